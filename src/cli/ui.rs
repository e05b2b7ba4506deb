//! Everything a person reads besides the data: on standard error, coloured and moving only on a terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::bytes::bytes_in_words;

/// How often a spinner turns.
const SPIN: Duration = Duration::from_millis(80);

/// How often a line says how far long work has come where nothing moves.
const LINE: Duration = Duration::from_secs(10);

/// What the surroundings allow and the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UiSettings {
    /// Spinners and questions are possible: a person sits at a terminal.
    pub interactive: bool,
    /// Colour.
    pub colour: bool,
    /// Only warnings and errors.
    pub quiet: bool,
    /// How often `-v` was given.
    pub verbosity: u8,
}

impl UiSettings {
    /// Looks at terminal and environment. CI systems set `CI`; some of them fake a terminal, where moving lines end up as rubbish.
    pub fn detect(quiet: bool, verbosity: u8, no_color: bool) -> UiSettings {
        let set = |variable: &str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = io::stderr().is_terminal() && !dumb;
        UiSettings { interactive: terminal && !set("CI"), colour: terminal && !no_color && !set("NO_COLOR"), quiet, verbosity }
    }
}

/// The door to standard error.
#[derive(Debug, Clone)]
pub struct Ui {
    settings: UiSettings,
    lines: MultiProgress,
}

impl Ui {
    /// A door with these settings.
    pub fn new(settings: UiSettings) -> Ui {
        let target = if settings.interactive && !settings.quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Ui { settings, lines: MultiProgress::with_draw_target(target) }
    }

    /// The settings.
    pub fn settings(&self) -> UiSettings {
        self.settings
    }

    /// Says something that `--quiet` silences.
    pub fn say(&self, line: impl Display) {
        if !self.settings.quiet {
            self.write(line);
        }
    }

    /// Says something only with `--verbose`.
    pub fn detail(&self, line: impl Display) {
        if self.settings.verbosity > 0 {
            self.say(line);
        }
    }

    /// Says something that also `--quiet` does not silence.
    pub fn lasting(&self, line: impl Display) {
        self.write(line);
    }

    /// Warns, also with `--quiet`.
    pub fn warn(&self, line: impl Display) {
        self.lasting(format_args!("{}: {line}", self.painted("warning", YELLOW)));
    }

    /// Says what could be done next.
    pub fn hint(&self, line: impl Display) {
        self.say(format_args!("{}: {line}", self.painted("hint", CYAN)));
    }

    /// Announces a step that takes a moment.
    pub fn step(&self, title: impl Into<String>) -> UiStep {
        let title = title.into();
        let bar = self.lines.add(ProgressBar::new_spinner());
        bar.set_style(spinner_style());
        bar.set_message(title.clone());
        bar.enable_steady_tick(SPIN);
        UiStep { ui: self.clone(), title, bar, started: Instant::now(), ended: false }
    }

    /// Announces work of which it is known how many bytes are left.
    pub fn bytes(&self, title: impl Into<String>) -> UiBytes {
        let bar = self.lines.add(ProgressBar::new(0));
        bar.set_style(bytes_style());
        bar.enable_steady_tick(SPIN);
        UiBytes { ui: self.clone(), title: title.into(), bar, begun: Instant::now(), said: Instant::now() }
    }

    /// Asks for a line of text; `None` when nobody is there to answer.
    pub fn ask(&self, question: &str) -> io::Result<Option<String>> {
        if !self.can_ask() {
            return Ok(None);
        }
        // No lock is held while waiting: whoever interrupts the question has something to say.
        write!(io::stderr(), "{question} ")?;
        io::stderr().flush()?;
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer)?;
        Ok((read > 0).then(|| answer.trim().to_owned()))
    }

    /// Whether somebody could answer a question.
    pub fn can_ask(&self) -> bool {
        self.settings.interactive && io::stdin().is_terminal()
    }

    /// Text in a colour, if there is colour.
    pub fn painted(&self, text: &str, colour: Colour) -> String {
        if self.settings.colour { format!("\x1b[{}m{text}\x1b[0m", colour.0) } else { text.to_owned() }
    }

    /// Standard error may be closed; there is nobody left to tell then, so that the failed write is passed over.
    fn write(&self, line: impl Display) {
        self.lines.suspend(|| {
            let _ = writeln!(io::stderr().lock(), "{line}");
        });
    }
}

/// A terminal colour.
#[derive(Debug, Clone, Copy)]
pub struct Colour(&'static str);

/// For what went well.
pub const GREEN: Colour = Colour("32");
/// For warnings.
pub const YELLOW: Colour = Colour("33");
/// For errors.
pub const RED: Colour = Colour("31");
/// For hints.
pub const CYAN: Colour = Colour("36");

/// A step that was announced. Dropped without an end, it counts as not finished.
#[derive(Debug)]
pub struct UiStep {
    ui: Ui,
    title: String,
    bar: ProgressBar,
    started: Instant,
    ended: bool,
}

impl UiStep {
    /// Shows what the step is at; with `--verbose` on lines of their own.
    pub fn note(&self, text: &str) {
        self.ui.detail(format_args!("{}: {text}", self.title));
        self.bar.set_message(format!("{}  {text}", self.title));
    }

    /// It went well.
    pub fn done(self) {
        let elapsed = self.started.elapsed();
        self.done_after(elapsed);
    }

    /// It went well and took this long by another's clock.
    pub fn done_after(mut self, elapsed: Duration) {
        let elapsed = in_words(elapsed);
        self.end(if self.ui.settings.interactive {
            format!("{} {} {elapsed}", self.ui.painted("✔", GREEN), self.title)
        } else {
            format!("{}: done in {elapsed}", self.title)
        });
    }

    /// It failed; the error itself is told elsewhere, once.
    pub fn failed(mut self) {
        let elapsed = in_words(self.started.elapsed());
        self.end(if self.ui.settings.interactive {
            format!("{} {} {elapsed}", self.ui.painted("✘", RED), self.title)
        } else {
            format!("{}: failed after {elapsed}", self.title)
        });
    }

    fn end(&mut self, line: String) {
        self.ended = true;
        self.bar.finish_and_clear();
        self.ui.lines.remove(&self.bar);
        self.ui.say(line);
    }
}

impl Drop for UiStep {
    fn drop(&mut self) {
        if !self.ended {
            self.bar.finish_and_clear();
            self.ui.lines.remove(&self.bar);
        }
    }
}

/// Work of which it is known how many bytes are left: a bar with rate and remaining time on a terminal, a line now and then elsewhere.
#[derive(Debug)]
pub struct UiBytes {
    ui: Ui,
    title: String,
    bar: ProgressBar,
    begun: Instant,
    said: Instant,
}

impl UiBytes {
    /// Shows what the work is at and how far it has come.
    pub fn at(&mut self, what: &str, done: u64, total: u64) {
        self.bar.set_message(format!("{}  {what}", self.title));
        self.bar.set_length(total.max(done));
        self.bar.set_position(done);
        if !self.ui.settings.interactive && self.said.elapsed() >= LINE {
            self.said = Instant::now();
            let rate = done / self.begun.elapsed().as_secs().max(1);
            let left = total.saturating_sub(done).checked_div(rate).map(Duration::from_secs);
            let left = left.filter(|_| done < total).map(|left| format!(", {} left", in_words(left))).unwrap_or_default();
            let [done, total, rate] = [done, total, rate].map(bytes_in_words);
            self.ui.say(format_args!("{}: {what}, {done} of {total}, {rate}/s{left}", self.title));
        }
    }
}

impl Drop for UiBytes {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.ui.lines.remove(&self.bar);
    }
}

fn bytes_style() -> ProgressStyle {
    let template = "{spinner} {msg} {wide_bar} {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    let style = ProgressStyle::with_template(template).expect("the template is a constant that parses");
    style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

fn spinner_style() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}").expect("the template is a constant that parses");
    style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

/// A duration as people say it: `0.2s`, `12.0s`, `1m05s`.
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (millis, words) in [(200, "0.2s"), (12_000, "12.0s"), (65_000, "1m05s"), (7_260_000, "2h01m")] {
            assert_eq!(in_words(Duration::from_millis(millis)), words);
        }
    }

    #[test]
    fn nobody_is_asked_where_nobody_sits() {
        assert_eq!(Ui::new(UiSettings::default()).ask("sure?").unwrap(), None);
    }

    #[test]
    fn without_colour_text_stays_as_it_is() {
        assert_eq!(Ui::new(UiSettings::default()).painted("ok", GREEN), "ok");
        assert_eq!(Ui::new(UiSettings { colour: true, ..UiSettings::default() }).painted("ok", GREEN), "\x1b[32mok\x1b[0m");
    }
}
