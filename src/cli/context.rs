//! What every command gets: the options that all commands share, resolved once.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::{
    CommandError,
    output::{OutputFormat, Shown, show},
    ui::{Ui, UiSettings},
};

const SHARED: &str = "Options of every command";

/// Options that every command accepts, before or after its own.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalArgs {
    /// How to show data (errors too become JSON with `json`)
    #[arg(short, long, global = true, help_heading = SHARED, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: OutputFormat,

    /// Say only warnings and errors
    #[arg(short, long, global = true, help_heading = SHARED, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; twice and three times for debugging
    #[arg(short, long, global = true, help_heading = SHARED, action = ArgAction::Count)]
    pub verbose: u8,

    /// No colours (as with the environment variable NO_COLOR)
    #[arg(long, global = true, help_heading = SHARED)]
    pub no_color: bool,

    /// Longest wait, such as 90s or 5m
    #[arg(long, global = true, help_heading = SHARED, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// What a command runs with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The door to standard error.
    pub ui: Ui,
    /// How data is shown.
    pub output: OutputFormat,
    timeout: Option<Duration>,
}

impl Context {
    /// Resolves the shared options against terminal and environment.
    pub fn new(args: &GlobalArgs) -> Context {
        let settings = UiSettings::detect(args.quiet, args.verbose, args.no_color);
        Context { ui: Ui::new(settings), output: args.output, timeout: args.timeout }
    }

    /// Shows data on standard output.
    pub fn show<T: Shown>(&self, data: &T) -> Result<(), CommandError> {
        show(self.output, data)
    }

    /// How long to wait: what the user said, else the command's default.
    pub fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }
}

/// Reads `90`, `90s`, `1.5s`, `2m`, `1h`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "ms" => 0.001,
        other => return Err(format!("'{other}' is not a unit of time: use ms, s, m, h or d")),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a number with an optional unit, such as 90s or 5m".to_owned())?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| "expected a length of time that is not negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, millis) in
            [("90", 90_000), ("90s", 90_000), ("1.5s", 1_500), ("2m", 120_000), ("200ms", 200), ("1h", 3_600_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_times_are_refused_with_what_is_allowed() {
        for (text, words) in
            [("soon", "not a unit"), ("", "a number"), ("-1s", "not negative"), ("5w", "not a unit"), ("NaN", "not a unit")]
        {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
