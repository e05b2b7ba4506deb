//! `spilo backup create NAME`

use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        inside::Inside,
        interrupt::{Interrupt, run_async},
        status::{ContainerState, NodeRole, NodeStatus},
    },
    model::{ClusterName, MemberName},
    provisioner::{Object, ObjectKind},
};

const EXAMPLES: &str = "\
Examples:
  spilo backup create orders                       of a replica that is close, else of the leader
  spilo backup create orders --full                without what earlier backups have stored
  spilo backup create orders --from orders-3 --rate 50M";

/// A replica that is further behind than this is not backed up: the backup would be that much older than it says.
const CLOSE: u64 = 16 << 20;

/// Back up a cluster into its archive
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// Use nothing of earlier backups; what an interrupted one has left is used all the same
    #[arg(long)]
    full: bool,

    /// Back up this member: orders-3, or its number
    #[arg(long, value_name = "MEMBER")]
    from: Option<MemberName>,

    /// Read at most so much in a second, such as 100M
    #[arg(long, value_name = "BYTES")]
    rate: Option<String>,

    /// A remark, kept with the backup
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

/// Makes the backup.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    run_async(|interrupt| create(context, interrupt, args))
}

async fn create(context: &Context, interrupt: Interrupt, args: &Args) -> Result<Exit, CommandError> {
    let inside = Inside::of(&args.name).await?;
    let status = &inside.seen.status;
    let source = match &args.from {
        Some(wanted) => named(&status.nodes, &args.name, wanted)?,
        None => source(&status.nodes, status.leader.as_ref()).ok_or_else(|| {
            CommandError::new(ErrorKind::Refused, format!("no member of cluster '{}' can be backed up: {}", args.name, status.reason))
                .hint(format!("spilo status {}", args.name))
        })?,
    };
    context.ui.say(format_args!("backing up '{}'", source.name));
    let container = container(&inside, &source.name)?;
    inside.run_attached(container, &take(context, args, &inside, source), &interrupt).await
}

/// The command inside the node.
fn take(context: &Context, args: &Args, inside: &Inside, source: &NodeStatus) -> Vec<String> {
    let member = source.name.as_str();
    let words = ["backup", "take", "--data-dir", "/var/lib/spilo/data", "--host", "/run/spilo", "--user", "postgres", "--member", member];
    let mut command = inside.command(context, &words);
    let leader = inside.seen.status.leader.as_ref().filter(|leader| **leader != source.name);
    if let Some(leader) = leader {
        command.extend(["--primary-host".to_owned(), leader.to_string()]);
        command.extend(["--primary-user", "rewinder", "--primary-password-file", "/etc/spilo/secrets/rewinder"].map(str::to_owned));
    }
    let mut add = |option: &str, value: Option<&str>| {
        command.extend(value.map(|value| format!("{option}={value}")));
    };
    add("--rate", args.rate.as_deref());
    add("--label", args.label.as_deref());
    if args.full {
        command.push("--full".to_owned());
    }
    command
}

/// A replica that streams and is close, the closest of them; else the leader.
fn source<'n>(nodes: &'n [NodeStatus], leader: Option<&MemberName>) -> Option<&'n NodeStatus> {
    let follows = |node: &&NodeStatus| {
        let replica = matches!(node.role, Some(NodeRole::SyncStandby | NodeRole::QuorumStandby | NodeRole::Replica));
        replica && node.state == "streaming" && node.container == ContainerState::Running && node.lag_bytes.is_some_and(|lag| lag <= CLOSE)
    };
    let closest = nodes.iter().filter(follows).min_by_key(|node| node.lag_bytes);
    closest.or_else(|| nodes.iter().find(|node| Some(&node.name) == leader && node.container == ContainerState::Running))
}

fn named<'n>(nodes: &'n [NodeStatus], cluster: &ClusterName, wanted: &MemberName) -> Result<&'n NodeStatus, CommandError> {
    let numbered = format!("{cluster}-{wanted}");
    nodes.iter().find(|node| node.name == *wanted || node.name.as_str() == numbered).ok_or_else(|| {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        CommandError::new(ErrorKind::NotFound, format!("cluster '{cluster}' has no member '{wanted}'"))
            .hint(format!("its members are: {}", names.join(", ")))
    })
}

fn container<'i>(inside: &'i Inside, member: &MemberName) -> Result<&'i Object, CommandError> {
    let found = inside.seen.inventory.containers(ObjectKind::Node).find(|object| object.member.as_ref() == Some(member));
    found.ok_or_else(|| CommandError::new(ErrorKind::NotFound, format!("the container of '{member}' is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, role: NodeRole, state: &str, lag: Option<u64>) -> NodeStatus {
        NodeStatus {
            name: name.parse().unwrap(),
            role: Some(role),
            state: state.to_owned(),
            timeline: None,
            lag_bytes: lag,
            address: None,
            age_seconds: None,
            container: ContainerState::Running,
            trouble: None,
        }
    }

    fn chosen(nodes: &[NodeStatus]) -> Option<&str> {
        source(nodes, Some(&"orders-1".parse().unwrap())).map(|node| node.name.as_str())
    }

    #[test]
    fn the_closest_replica_that_streams_is_backed_up_and_else_the_leader() {
        let mut nodes = vec![
            node("orders-1", NodeRole::Leader, "running", None),
            node("orders-2", NodeRole::QuorumStandby, "streaming", Some(9)),
            node("orders-3", NodeRole::Replica, "streaming", Some(4)),
        ];
        assert_eq!(chosen(&nodes), Some("orders-3"));
        nodes[2].state = "in archive recovery".to_owned();
        assert_eq!(chosen(&nodes), Some("orders-2"));
        nodes[1].lag_bytes = Some(CLOSE + 1);
        assert_eq!(chosen(&nodes), Some("orders-1"));
        nodes[0].container = ContainerState::Stopped;
        assert_eq!(chosen(&nodes), None);
    }

    #[test]
    fn a_member_is_named_by_its_name_or_its_number() {
        let nodes = [node("orders-1", NodeRole::Leader, "running", None)];
        let cluster: ClusterName = "orders".parse().unwrap();
        for text in ["orders-1", "1"] {
            assert_eq!(named(&nodes, &cluster, &text.parse().unwrap()).unwrap().name.as_str(), "orders-1");
        }
        assert!(named(&nodes, &cluster, &"orders-7".parse().unwrap()).is_err());
    }
}
