//! `spilo backup keep`: the keeper of a node, which the agent starts.

use std::path::PathBuf;

use crate::{
    cli::{CommandError, Context, ErrorKind, Exit, cluster_store::ClusterStoreArgs, interrupt::run_async},
    keeper::{Commands, KeeperConfig, keep},
    model::Secret,
    sys::priority,
};

/// Take, verify, restore and expire backups when it is time; the agent starts this
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the archive is.
    #[command(flatten)]
    archive: ClusterStoreArgs,
    /// This member
    #[arg(long, value_name = "NAME")]
    member: String,
    /// Its data directory
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the local agent answers
    #[arg(long, value_name = "URL")]
    agent: String,
    /// Directory of the server's socket, or its host
    #[arg(long, value_name = "HOST")]
    host: String,
    /// The server's port
    #[arg(long, default_value_t = 5432)]
    port: u16,
    /// A role that may back up
    #[arg(long, value_name = "ROLE")]
    user: String,
    /// Read the role's password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Directory of PostgreSQL's programs, where they are not on the path
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where test restores may write; without it there are none
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

/// Keeps on until it is told to end.
pub fn run(_: &Context, args: &Args) -> Result<Exit, CommandError> {
    // Before anything else of it runs: children take it over.
    priority::run_last();
    let config = config(args)?;
    run_async(|interrupt| async move {
        tokio::select! {
            () = keep(config) => {}
            () = interrupt.requested() => {}
        }
        Ok(Exit::OK)
    })
}

fn config(args: &Args) -> Result<KeeperConfig, CommandError> {
    let commands = Commands {
        archive: args.archive.options(),
        host: args.host.clone(),
        port: args.port,
        user: args.user.clone(),
        password: if args.password_stdin { Some(read_password()?) } else { None },
        bin_dir: args.bin_dir.clone(),
    };
    Ok(KeeperConfig {
        member: args.member.clone(),
        data_dir: args.data_dir.clone(),
        agent: args.agent.clone(),
        store: args.archive.place.config(),
        root: args.archive.root()?,
        scratch: args.scratch.clone(),
        commands,
    })
}

fn read_password() -> Result<Secret, CommandError> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    read.map_err(|error| CommandError::new(ErrorKind::Failed, format!("the password cannot be read from standard input: {error}")))?;
    Ok(Secret::new(line.trim_end_matches('\n')))
}
