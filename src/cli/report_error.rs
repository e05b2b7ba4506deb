//! The one place where an error is told: its chain as a sentence, then the hints; as JSON for programs.

use std::io::{self, Write};

use serde_json::json;

use super::{
    CommandError, ErrorKind,
    ui::{RED, Ui},
};
use crate::sys::causes;

/// Tells an error on standard error.
pub fn report_error(ui: &Ui, as_json: bool, error: &CommandError) {
    if as_json {
        // Nobody is left to tell when standard error itself is closed.
        let _ = writeln!(io::stderr().lock(), "{}", json_text(error));
        return;
    }
    ui.lasting(format_args!("{}: {}", ui.painted("error", RED), causes::in_one_line(&*error.source)));
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
    json!({ "code": error.kind.exit_code(), "message": causes::in_one_line(&*error.source), "hints": error.hints }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_code_message_and_hints() {
        let error = CommandError::new(ErrorKind::NotFound, "there is no cluster 'x'").hint("spilo list");
        assert_eq!(json_text(&error), r#"{"code":4,"message":"there is no cluster 'x'","hints":["spilo list"]}"#);
    }
}
