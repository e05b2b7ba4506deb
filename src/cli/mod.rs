//! The command line: arguments, words, exit codes. Nothing uses this room.

mod apply_wish;
mod arguments;
mod arrival;
mod bytes;
mod change;
mod clone_source;
mod cluster_store;
mod commands;
mod connection;
mod context;
mod engine;
mod error;
mod goal_arguments;
mod inside;
mod interrupt;
mod look;
mod output;
mod provision_error;
mod report_error;
mod spec_arguments;
pub mod status;
mod store_arguments;
mod ui;
mod wait;
mod wal_client;
mod which_archive;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{ColorChoice, CommandFactory, FromArgMatches};

pub use arguments::Cli;
pub use context::{Context, GlobalArgs};
pub use error::{CommandError, ErrorKind, Exit};

use self::{
    commands::wal,
    report_error::{report_error, usage_error},
    wal_client::Errand,
};
use crate::{model::WalFile, telemetry::start_log};

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(errand) = Errand::find(&arguments) {
        return ExitCode::from(errand.run());
    }
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
            early.failure(error.kind)
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
    if error.use_stderr() { early.failure(ErrorKind::Usage) } else { ExitCode::SUCCESS }
}

/// What decides how a mistake on the command line itself is told, found before it is parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct EarlyArgs {
    json: bool,
    no_color: bool,
    /// This is `wal fetch`, whose exit code PostgreSQL takes for what the archive has.
    wal_fetch: bool,
    /// The file that is asked for, if one is named.
    wal_file: Option<WalFile>,
}

impl EarlyArgs {
    fn find(arguments: &[OsString]) -> EarlyArgs {
        let ours = || arguments.iter().take_while(|argument| *argument != "--").filter_map(|argument| argument.to_str());
        let pairs = ours().zip(ours().skip(1));
        let json = ours().any(|argument| matches!(argument, "-ojson" | "-o=json" | "--output=json"))
            || pairs.into_iter().any(|pair| matches!(pair, ("-o" | "--output", "json")));
        let wal_fetch = ours().skip(1).skip_while(|argument| argument.starts_with('-')).take(2).eq(["wal", "fetch"]);
        let wal_file = ours().find_map(|argument| argument.parse().ok());
        EarlyArgs { json, no_color: ours().any(|argument| argument == "--no-color"), wal_fetch, wal_file }
    }

    /// The exit code of a failure. No failure of `wal fetch`, wherever it comes from, may look as if the archive had no such file.
    fn failure(&self, kind: ErrorKind) -> ExitCode {
        ExitCode::from(if self.wal_fetch { wal::no_answer(Path::new("."), self.wal_file).0 } else { kind.exit_code() })
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
        assert!(find(&["spilo", "-v", "wal", "fetch", "nonsense"]).wal_fetch);
        assert!(!find(&["spilo", "wal", "push", "fetch"]).wal_fetch);
    }
}
