//! `spilo probe`: what can be seen of a cluster from inside its network, as one JSON document.

use std::path::PathBuf;

use super::router::failed;
use crate::{
    cli::{CommandError, Context, ErrorKind, Exit},
    routing,
};

/// Look at the cluster from inside and print one JSON document
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The router's configuration
    pub config: PathBuf,
}

/// Looks and prints.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let report = routing::probe(&args.config).map_err(failed)?;
    print_json(&report)?;
    Ok(Exit::OK)
}

/// One line of JSON on standard output.
#[allow(clippy::print_stdout, reason = "the document is the command's data")]
pub fn print_json<T: serde::Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).map_err(|error| CommandError::new(ErrorKind::Failed, error))?;
    println!("{text}");
    Ok(())
}
