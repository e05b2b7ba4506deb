//! `spilo router`: the first process of the router's container.

use std::path::PathBuf;

use crate::{
    cli::{CommandError, Context, ErrorKind, Exit},
    routing::{self, RoutingError},
};

/// Run the router: haproxy, kept in line with the leader
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The router's configuration
    pub config: PathBuf,
}

/// Runs until it is told to end.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    routing::run(&args.config).map(|()| Exit::OK).map_err(failed)
}

/// A configuration that is wrong is a usage error.
pub fn failed(error: RoutingError) -> CommandError {
    let usage = matches!(error, RoutingError::Unreadable { .. } | RoutingError::Config { .. } | RoutingError::DcsConfig { .. });
    CommandError::new(if usage { ErrorKind::Usage } else { ErrorKind::Failed }, error)
}
