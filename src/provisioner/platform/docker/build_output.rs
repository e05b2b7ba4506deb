//! What the classic builder says, as whole lines: it sends pieces, colours what came from standard error, and counts its own containers.

use std::collections::VecDeque;

/// How many lines of the step that goes on are kept.
const KEPT: usize = 15;

/// How the builder marks what came from standard error.
const COLOURS: [&str; 2] = ["\u{1b}[91m", "\u{1b}[0m"];

/// Lines that tell of the builder's own doings.
const CHATTER: [&str; 3] = [" ---> ", "Removing intermediate container ", "Successfully "];

/// Puts pieces together to lines and remembers the step that goes on with the end of its output.
#[derive(Debug, Default)]
pub(super) struct BuildOutput {
    piece: String,
    step: String,
    last: VecDeque<String>,
}

impl BuildOutput {
    /// Takes a piece; returns the lines that it completed.
    pub(super) fn take(&mut self, piece: &str) -> Vec<String> {
        self.piece.push_str(&COLOURS.iter().fold(piece.to_owned(), |text, colour| text.replace(colour, "")));
        let mut lines = Vec::new();
        while let Some(end) = self.piece.find('\n') {
            let line: String = self.piece.drain(..=end).collect();
            lines.extend(self.keep(&line));
        }
        lines
    }

    /// The step that goes on, cut short, and the end of its output. An unfinished line counts.
    pub(super) fn end(mut self) -> (String, Vec<String>) {
        let rest = std::mem::take(&mut self.piece);
        self.keep(&rest);
        (shortened(&self.step), self.last.into())
    }

    fn keep(&mut self, line: &str) -> Option<String> {
        // What a carriage return overwrites is progress.
        let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
        if line.is_empty() || CHATTER.iter().any(|chatter| line.starts_with(chatter)) {
            return None;
        }
        if line.starts_with("Step ") {
            line.clone_into(&mut self.step);
            self.last.clear();
        } else {
            self.last.push_back(line.to_owned());
            if self.last.len() > KEPT {
                self.last.pop_front();
            }
        }
        Some(line.to_owned())
    }
}

/// Long commands are cut: a step's number and its beginning say which it is.
fn shortened(step: &str) -> String {
    let words = step.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() > 80 { words.chars().take(79).chain(['…']).collect() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_without_colours_and_chatter() {
        let mut output = BuildOutput::default();
        let mut lines = Vec::new();
        for piece in [
            "Step 2/8 : RUN x",
            "\n",
            " ---> Running in 8d39\n",
            "\u{1b}[91mE:\u{1b}[0m",
            "\u{1b}[91m no such package\n\u{1b}[0m",
            "10%\r20%\r30%\nend",
        ] {
            lines.extend(output.take(piece));
        }
        assert_eq!(lines, ["Step 2/8 : RUN x", "E: no such package", "30%"]);
        assert_eq!(output.end(), ("Step 2/8 : RUN x".to_owned(), ["E: no such package", "30%", "end"].map(str::to_owned).into()));
    }

    #[test]
    fn only_the_end_of_the_last_step_is_kept() {
        let mut output = BuildOutput::default();
        output.take("Step 1/2 : RUN a\nof the first step\nStep 2/2 : RUN b\n");
        for number in 0..100 {
            output.take(&format!("line {number}\n"));
        }
        let (step, last) = output.end();
        assert_eq!(step, "Step 2/2 : RUN b");
        assert_eq!((last.len(), last[0].as_str(), last[14].as_str()), (15, "line 85", "line 99"));
    }

    #[test]
    fn a_long_step_is_cut_short() {
        let mut output = BuildOutput::default();
        output.take(&format!("Step 2/8 : RUN set -eu;     {}\n", "x".repeat(500)));
        let (step, _) = output.end();
        assert!(step.starts_with("Step 2/8 : RUN set -eu; xxx") && step.chars().count() == 80, "{step}");
    }
}
