//! `spilo request`: what the command line asks of a cluster from inside its network.

use std::path::PathBuf;

use super::{probe::print_json, router::failed};
use crate::{
    cli::{CommandError, Context, Exit},
    routing,
};

/// Ask the cluster for something, from inside
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Hand over to another member
    Switchover {
        /// The router's configuration
        #[arg(long)]
        config: PathBuf,
        /// The member that should lead now; whoever does when not given
        #[arg(long)]
        leader: Option<String>,
        /// The member that should lead next
        #[arg(long)]
        candidate: Option<String>,
    },
}

/// Asks, and prints the answer as JSON, also when it is a refusal.
pub fn run(_context: &Context, command: &Command) -> Result<Exit, CommandError> {
    let Command::Switchover { config, leader, candidate } = command;
    let answer = routing::request_switchover(config, leader.as_deref(), candidate.as_deref()).map_err(failed)?;
    print_json(&answer)?;
    Ok(if answer.code == 200 { Exit::OK } else { Exit(1) })
}
