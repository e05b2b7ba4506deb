//! `spilo agent-worker`: the agent itself, started by the guard.

use super::agent::Args;
use crate::{
    agent::{
        setup::{self, AgentError},
        start::Refused,
    },
    cli::{CommandError, Context, ErrorKind, Exit},
};

/// Runs the agent. What will not change by itself ends with the code that tells the guard not to try again.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    setup::run(&args.config, &args.overrides()).map(Exit).map_err(|error| {
        let kind = match &error {
            AgentError::Config(_) | AgentError::Guard(_) | AgentError::Refused(Refused::Hopeless(_)) => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        };
        CommandError::new(kind, error)
    })
}
