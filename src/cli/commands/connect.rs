//! `spilo connect NAME`

use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        connection::APPLICATION,
        engine,
        interrupt::run_async,
        look::{Look, look, stored_spec},
    },
    model::{ClusterName, MemberName},
    provisioner::{Condition, Inventory, ObjectKind, Platform},
};

const EXAMPLES: &str = "\
Examples:
  spilo connect orders                             psql on the primary, as 'app'
  spilo connect orders --replica -- -c 'select 1'  arguments of psql after --
  spilo connect orders < schema.sql
  spilo connect orders --superuser                 as 'postgres', on the leader's own socket";

/// The router's ports inside its container.
const READ_WRITE: u16 = 5000;
const READ_ONLY: u16 = 5001;

/// Where the password of the application's role is, inside.
const PASSFILE: &str = "/etc/spilo/secrets/pgpass";

/// Open psql on a cluster; needs no PostgreSQL client on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// Connect to a replica
    #[arg(long)]
    replica: bool,

    /// Connect as superuser 'postgres' on the leader itself
    #[arg(long, conflicts_with = "replica")]
    superuser: bool,

    /// Arguments of psql
    #[arg(last = true, value_name = "PSQL ARGUMENTS")]
    psql: Vec<String>,
}

/// Runs psql inside; its exit code is ours.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    run_async(|_| async {
        let platform = engine::connect().await?;
        let (container, command) = if args.superuser {
            let seen = look(&platform, &args.name).await?;
            (leader_container(&seen)?, psql_on_socket(&args.psql))
        } else {
            let inventory = platform.observe(&args.name).await?;
            stored_spec(&inventory)?;
            (router_container(&inventory)?, psql_through_router(args.replica, &args.psql))
        };
        let code = platform.exec_attached(&container, &command).await?;
        // What does not fit an exit code of ours (a signal, say) is a failure all the same.
        Ok(Exit(u8::try_from(code).unwrap_or(1)))
    })
}

/// Everything goes by environment, so that arguments of the user may name another database; the password itself is in the file.
fn psql_through_router(replica: bool, arguments: &[String]) -> Vec<String> {
    let port = if replica { READ_ONLY } else { READ_WRITE };
    let settings = [
        "PGHOST=127.0.0.1".to_owned(),
        format!("PGPORT={port}"),
        format!("PGUSER={APPLICATION}"),
        format!("PGDATABASE={APPLICATION}"),
        format!("PGPASSFILE={PASSFILE}"),
    ];
    psql(&settings, arguments)
}

fn psql_on_socket(arguments: &[String]) -> Vec<String> {
    psql(&["PGHOST=/run/spilo", "PGUSER=postgres", "PGDATABASE=postgres"].map(str::to_owned), arguments)
}

fn psql(settings: &[String], arguments: &[String]) -> Vec<String> {
    // The root file system is read-only: psql's history has to go where it may be written, and goes with the container.
    let fixed = ["PGAPPNAME=spilo connect", "PSQL_HISTORY=/tmp/psql_history"].map(str::to_owned);
    let words = ["env".to_owned()].into_iter().chain(settings.to_vec()).chain(fixed);
    words.chain(["psql".to_owned()]).chain(arguments.iter().cloned()).collect()
}

fn router_container(inventory: &Inventory) -> Result<String, CommandError> {
    let cluster = &inventory.cluster;
    match inventory.containers(ObjectKind::Router).next() {
        Some(router) if router.condition == Condition::Running => Ok(router.name.clone()),
        router => {
            let state = router.map_or("missing".to_owned(), |router| router.condition.to_string());
            Err(CommandError::new(ErrorKind::Failed, format!("the router of cluster '{cluster}' is {state}"))
                .hint(format!("to restore it: spilo apply {cluster}")))
        }
    }
}

fn leader_container(seen: &Look) -> Result<String, CommandError> {
    let cluster = &seen.inventory.cluster;
    let of_leader = |leader: &MemberName| {
        seen.inventory.containers(ObjectKind::Node).find(|c| c.member.as_ref() == Some(leader) && c.condition == Condition::Running)
    };
    match seen.status.leader.as_ref().and_then(of_leader) {
        Some(container) => Ok(container.name.clone()),
        None => {
            Err(CommandError::new(ErrorKind::Failed, format!("cluster '{cluster}' has no leader to connect to: {}", seen.status.reason))
                .hint(format!("spilo status {cluster}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psql_gets_the_password_by_file_and_the_users_arguments_last() {
        let command = psql_through_router(true, &["-c".to_owned(), "select 1".to_owned()]);
        assert_eq!(command[0], "env");
        assert!(command.contains(&"PGPORT=5001".to_owned()));
        assert!(command.contains(&"PGPASSFILE=/etc/spilo/secrets/pgpass".to_owned()));
        assert!(!command.iter().any(|word| word.starts_with("PGPASSWORD")));
        assert_eq!(command[command.len() - 3..], ["psql", "-c", "select 1"]);
    }
}
