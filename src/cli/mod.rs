//! The command line: arguments, words, exit codes. Nothing uses this room.

mod error;

pub use error::{CommandError, ErrorKind};

/// Runs the command that the process was started with.
pub fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let a: Vec<String> = std::env::args().skip(1).collect();
    let o = crate::agent::config::Overrides::default();
    let r: Result<u8, Box<dyn std::error::Error>> = match a[0].as_str() {
        "agent" => crate::agent::guard::run(vec!["agent-worker".into(), a[1].clone()]).map_err(Into::into),
        _ => crate::agent::shell::run(&a[1], &o).map_err(Into::into),
    };
    match r {
        Ok(c) => c.into(),
        Err(e) => {
            tracing::error!("{e}");
            2.into()
        }
    }
}
