//! The command line: arguments, words, exit codes. Nothing uses this room.

mod apply_wish;
mod arguments;
mod change;
mod commands;
mod connection;
mod context;
mod engine;
mod error;
mod interrupt;
mod look;
mod output;
mod provision_error;
mod report_error;
mod spec_arguments;
pub mod status;
mod ui;
mod wait;

use std::{ffi::OsString, process::ExitCode};

use clap::{ColorChoice, CommandFactory, FromArgMatches};

pub use arguments::Cli;
pub use context::{Context, GlobalArgs};
pub use error::{CommandError, ErrorKind, Exit};

use self::report_error::{report_error, usage_error};
use crate::telemetry::start_log;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let early = EarlyArgs::find(&arguments);
    let cli = match parse(&arguments, &early) {
        Ok(cli) => cli,
        Err(error) => return told_by_clap(&error, &early),
    };
    let context = Context::new(&cli.global);
    let log = cli.command.log_settings(&context);
    let started = start_log(&log).map_err(|error| CommandError::new(ErrorKind::Usage, error));
    match started.and_then(|()| cli.command.run(&context)) {
        Ok(exit) => ExitCode::from(exit.0),
        Err(error) => {
            report_error(&context.ui, context.output == output::OutputFormat::Json, &error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn parse(arguments: &[OsString], early: &EarlyArgs) -> Result<Cli, clap::Error> {
    let colour = if early.no_color { ColorChoice::Never } else { ColorChoice::Auto };
    let matches = Cli::command().color(colour).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

/// Help and version are data on standard output; everything else that clap has to say is an error.
fn told_by_clap(error: &clap::Error, early: &EarlyArgs) -> ExitCode {
    if early.json && error.use_stderr() {
        let context = Context::new(&GlobalArgs::default());
        report_error(&context.ui, true, &usage_error(error));
    } else {
        // Help into a closed pipe (`| head`) is not worth an error.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 })
}

/// The options that decide how a mistake on the command line itself is told, found before it is parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct EarlyArgs {
    json: bool,
    no_color: bool,
}

impl EarlyArgs {
    fn find(arguments: &[OsString]) -> EarlyArgs {
        let ours = || arguments.iter().take_while(|argument| *argument != "--").filter_map(|argument| argument.to_str());
        let pairs = ours().zip(ours().skip(1));
        let json = ours().any(|argument| matches!(argument, "-ojson" | "-o=json" | "--output=json"))
            || pairs.into_iter().any(|pair| matches!(pair, ("-o" | "--output", "json")));
        EarlyArgs { json, no_color: ours().any(|argument| argument == "--no-color") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_form_of_errors_is_known_before_parsing() {
        let find = |words: &[&str]| EarlyArgs::find(&words.iter().map(OsString::from).collect::<Vec<_>>());
        for words in [&["spilo", "-o", "json"][..], &["spilo", "x", "--output=json"], &["spilo", "-ojson", "y"]] {
            assert!(find(words).json, "{words:?}");
        }
        assert!(!find(&["spilo", "connect", "x", "--", "-o", "json"]).json);
        assert!(find(&["spilo", "--no-color"]).no_color);
    }
}
