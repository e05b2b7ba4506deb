//! The one place where an error is told: its chain as a sentence, then the hints; as JSON for programs.

use std::io::{self, Write};

use serde_json::json;

use super::{
    CommandError, ErrorKind,
    ui::{RED, Ui},
};

/// Tells an error on standard error.
pub fn report_error(ui: &Ui, as_json: bool, error: &CommandError) {
    if as_json {
        // Nobody is left to tell when standard error itself is closed.
        let _ = writeln!(io::stderr().lock(), "{}", json_text(error));
        return;
    }
    ui.lasting(format_args!("{}: {}", ui.painted("error", RED), sentence(error)));
    for hint in &error.hints {
        ui.hint(hint);
    }
}

/// Turns clap's own error into ours: the message without its decoration, tips as hints.
pub fn usage_error(error: &clap::Error) -> CommandError {
    let text = error.render().to_string();
    let mut message = Vec::new();
    let mut hints = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            hints.push(tip.to_owned());
        } else if let Some(usage) = line.strip_prefix("Usage: ") {
            hints.push(format!("usage: {usage}"));
        } else if !line.starts_with("For more information") {
            message.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let mut usage = CommandError::new(ErrorKind::Usage, message.join(" "));
    usage.hints = hints;
    usage
}

fn json_text(error: &CommandError) -> String {
    json!({ "code": error.kind.exit_code(), "message": sentence(error), "hints": error.hints }).to_string()
}

/// The error and its causes. Many messages already name their cause; those are not told twice.
fn sentence(error: &CommandError) -> String {
    let mut sentence = error.source.to_string();
    let mut cause = error.source.source();
    while let Some(current) = cause {
        let text = current.to_string();
        if !sentence.contains(&text) {
            sentence = format!("{sentence}: {text}");
        }
        cause = current.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not start")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_chain_is_one_sentence() {
        let error = CommandError::new(ErrorKind::Failed, Outer(io::Error::other("disk on fire")));
        assert_eq!(sentence(&error), "could not start: disk on fire");
    }

    #[test]
    fn a_cause_that_the_message_names_is_not_told_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not start: {0}")]
        struct Named(#[source] io::Error);
        let error = CommandError::new(ErrorKind::Failed, Named(io::Error::other("disk on fire")));
        assert_eq!(sentence(&error), "could not start: disk on fire");
    }

    #[test]
    fn programs_get_code_message_and_hints() {
        let error = CommandError::new(ErrorKind::NotFound, "there is no cluster 'x'").hint("spilo list");
        assert_eq!(json_text(&error), r#"{"code":4,"message":"there is no cluster 'x'","hints":["spilo list"]}"#);
    }
}
