//! `spilo agent`: the first process of a node.

use crate::{
    agent::{config::Overrides, guard},
    cli::{CommandError, Context, ErrorKind, Exit},
    sys::files,
};

/// Run the high-availability agent of one node
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The configuration, in Patroni's language
    pub config: String,

    /// The member's name, instead of the configuration's
    #[arg(long)]
    pub name: Option<String>,

    /// The host under which others reach this member
    #[arg(long)]
    pub address: Option<String>,

    /// Never initialise a new cluster, only join the one that exists
    #[arg(long)]
    pub join_only: bool,
}

impl Args {
    /// What the command line says on top of the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides { name: self.name.clone(), address: self.address.clone(), join_only: self.join_only }
    }

    /// The command line of the agent below the guard.
    fn worker(&self) -> Vec<String> {
        let mut words = vec!["agent-worker".to_owned(), self.config.clone()];
        for (option, value) in [("--name", &self.name), ("--address", &self.address)] {
            words.extend(value.iter().flat_map(|v| [option.to_owned(), v.clone()]));
        }
        words.extend(self.join_only.then(|| "--join-only".to_owned()));
        words
    }
}

/// Runs the guard, which starts the agent and PostgreSQL.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    // On a new volume it is not there. Without it there are no backups, and everything else is as it should be.
    if let Err(error) = files::ensure_dir(&std::env::temp_dir()) {
        tracing::warn!("the directory of temporary files cannot be made: {error}");
    }
    guard::run(args.worker()).map(Exit).map_err(|error| CommandError::new(ErrorKind::Failed, error))
}
