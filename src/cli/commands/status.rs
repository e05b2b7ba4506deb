//! `spilo status NAME`

use std::{io::IsTerminal, time::Duration};

use tokio::time::sleep;

use crate::{
    cli::{
        CommandError, Context, Exit,
        bytes::bytes_in_words,
        context::parse_duration,
        engine::connect,
        interrupt::{Interrupt, run_async},
        look::look,
        output::{Shown, print, table},
        status::{ClusterStatus, Health, NodeConflict, NodeStatus},
        ui::{Colour, GREEN, RED, YELLOW, in_words},
    },
    model::{ClusterName, WalConflict, length_in_words},
    provisioner::Platform,
};

const EXAMPLES: &str = "\
Examples:
  spilo status orders
  spilo status orders -w             again every two seconds, until Ctrl-C
  spilo status orders -o json | jq -r .leader

Exit code: 0 healthy, 20 degraded, 21 critical, 4 no such cluster.";

/// Clears the screen and what was scrolled, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Show how a cluster is
///
/// Judged from the DCS, every node's REST API and one real read per node: what was not seen to work counts as not working.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// Show it again and again, with this pause between
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s", value_parser = parse_duration)]
    watch: Option<Duration>,
}

impl Shown for ClusterStatus {
    const KIND: &'static str = "ClusterStatus";

    fn text(&self, wide: bool) -> String {
        let mut text = format!("{}  {}: {}\n", self.name, self.health.as_str(), self.reason);
        if let Some(ports) = self.endpoints {
            let ports = [("read-write", ports.read_write), ("read-only", ports.read_only), ("health", ports.health)];
            let words: Vec<String> = ports.iter().map(|(name, port)| format!("{name} 127.0.0.1:{port}")).collect();
            text += &format!("{}\n", words.join("   "));
        }
        if let Some(backup) = &self.backup {
            text += &format!("{}\n", backup.line(self.observed_at));
        }
        self.wal_conflicts.iter().for_each(|found| text += &self.conflict_line(found));
        text += "\n";
        text += &if wide { self.wide_nodes() } else { self.nodes_table() };
        text
    }
}

impl ClusterStatus {
    /// What was found, since when, and what to do about it.
    fn conflict_line(&self, found: &NodeConflict) -> String {
        let (node, WalConflict { file, since, aside }) = (&found.node, &found.conflict);
        let age = length_in_words(self.observed_at.duration_since(*since));
        format!(
            "WAL conflict of '{node}' for {age}: '{file}' is archived with another content, and this one is kept as '{aside}'. Another server archives \
             under the name '{0}': find and stop it, then see 'spilo wal check {0}'\n",
            self.name
        )
    }

    fn nodes_table(&self) -> String {
        table(["NODE", "ROLE", "STATE", "TIMELINE", "LAG", "ADDRESS", "AGE"], self.nodes.iter().map(columns))
    }

    fn wide_nodes(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let [name, role, state, timeline, lag, address, age] = columns(node);
            let trouble = node.trouble.clone().unwrap_or_else(dash);
            [name, role, state, timeline, lag, address, age, node.container.to_string(), trouble]
        });
        let services = self.services.iter().map(|service| {
            let [none, container] = [dash(), service.container.to_string()];
            let name = service.name.strip_prefix("spilo-").unwrap_or(&service.name).to_owned();
            [name, none.clone(), none.clone(), none.clone(), none.clone(), none.clone(), none.clone(), container, none]
        });
        table(["NODE", "ROLE", "STATE", "TIMELINE", "LAG", "ADDRESS", "AGE", "CONTAINER", "TROUBLE"], nodes.chain(services))
    }
}

fn columns(node: &NodeStatus) -> [String; 7] {
    [
        node.name.to_string(),
        node.role.map_or_else(dash, |role| role.as_str().to_owned()),
        node.state.clone(),
        node.timeline.map_or_else(dash, |timeline| timeline.to_string()),
        node.lag_bytes.map_or_else(dash, bytes_in_words),
        node.address.clone().unwrap_or_else(dash),
        node.age_seconds.map_or_else(dash, age_in_words),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

/// The largest unit that fits: `12s`, `5m`, `3h`, `6d`.
pub fn age_in_words(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Shows the status; its health is the exit code.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    run_async(|interrupt| async {
        let interrupt = interrupt;
        let platform = connect().await?;
        match args.watch {
            None => show(context, &look(&platform, &args.name).await?.status),
            Some(pause) => watch(context, &interrupt, &platform, &args.name, pause).await,
        }
    })
}

fn show(context: &Context, status: &ClusterStatus) -> Result<Exit, CommandError> {
    context.show(status)?;
    Ok(Exit(status.health.exit_code()))
}

/// Until Ctrl-C, which is the regular end here: the exit code is that of the last look.
async fn watch<P: Platform>(
    context: &Context,
    interrupt: &Interrupt,
    platform: &P,
    cluster: &ClusterName,
    pause: Duration,
) -> Result<Exit, CommandError> {
    let whole_screen = std::io::stdout().is_terminal() && !context.output.is_for_programs();
    loop {
        let status = look(platform, cluster).await?.status;
        if whole_screen {
            let head = format!("{}   every {}, Ctrl-C ends\n", dot(context, status.health), in_words(pause));
            print(&format!("{CLEAR}{head}{}", status.text(context.output == crate::cli::output::OutputFormat::Wide)))?;
        } else {
            context.show(&status)?;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = interrupt.requested() => return Ok(Exit(status.health.exit_code())),
        }
    }
}

fn dot(context: &Context, health: Health) -> String {
    let colour: Colour = match health {
        Health::Healthy => GREEN,
        Health::Degraded => YELLOW,
        Health::Critical => RED,
    };
    context.ui.painted(&format!("● {}", health.as_str()), colour)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::{ContainerState, Endpoints, NodeRole, ServiceStatus};

    fn status() -> ClusterStatus {
        let node = |name: &str, role, lag| NodeStatus {
            name: name.parse().unwrap(),
            role: Some(role),
            state: if lag == Some(0) { "streaming" } else { "running" }.to_owned(),
            timeline: Some(crate::model::Timeline(2)),
            lag_bytes: lag,
            address: Some(format!("{name}:5432")),
            age_seconds: Some(7300),
            container: ContainerState::Running,
            trouble: None,
        };
        ClusterStatus {
            name: "orders".parse().unwrap(),
            health: Health::Healthy,
            reason: "'orders-1' takes writes on timeline 2, its replica streams".to_owned(),
            observed_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            endpoints: Some(Endpoints { read_write: 5432, read_only: 5433, health: 5434 }),
            leader: "orders-1".parse().ok(),
            timeline: Some(crate::model::Timeline(2)),
            paused: false,
            nodes: vec![node("orders-1", NodeRole::Leader, None), node("orders-2", NodeRole::QuorumStandby, Some(0))],
            services: vec![ServiceStatus { name: "spilo-orders-router".to_owned(), container: ContainerState::Running }],
            backup: None,
            wal_conflicts: Vec::new(),
        }
    }

    #[test]
    fn a_conflict_in_the_archive_has_a_line_that_says_what_to_do() {
        let (file, aside) = ("000000010000000000000007".to_owned(), "orders/conflict/7/x.zst".to_owned());
        let conflict = WalConflict { file, since: "2025-12-31T23:40:00Z".parse().unwrap(), aside };
        let found = NodeConflict { node: "orders-1".parse().unwrap(), conflict };
        let status = ClusterStatus { wal_conflicts: vec![found], ..status() };
        let text = status.text(false);
        let line = text.lines().find(|line| line.starts_with("WAL conflict of 'orders-1' for 20 min")).expect(&text);
        assert!(line.contains("'000000010000000000000007' is archived with another content"), "{line}");
        assert!(line.ends_with("find and stop it, then see 'spilo wal check orders'"), "{line}");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["wal_conflicts"][0]["node"], "orders-1");
        assert_eq!(json["wal_conflicts"][0]["aside"], "orders/conflict/7/x.zst");
    }

    #[test]
    fn people_read_one_line_of_health_and_a_table() {
        assert_eq!(
            status().text(false),
            "\
orders  healthy: 'orders-1' takes writes on timeline 2, its replica streams
read-write 127.0.0.1:5432   read-only 127.0.0.1:5433   health 127.0.0.1:5434

NODE      ROLE            STATE      TIMELINE  LAG  ADDRESS        AGE
orders-1  leader          running    2         -    orders-1:5432  2h
orders-2  quorum standby  streaming  2         0 B  orders-2:5432  2h
"
        );
    }

    #[test]
    fn the_wide_table_has_containers_and_services_too() {
        let text = status().text(true);
        assert!(text.contains("CONTAINER  TROUBLE"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("orders-router  ") && line.contains("running")), "{text}");
    }

    #[test]
    fn programs_read_the_same_as_data() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(json["health"], "healthy");
        assert_eq!(json["nodes"][1]["role"], "quorum_standby");
        assert_eq!(json["nodes"][1]["lag_bytes"], 0);
        assert_eq!(json["endpoints"]["read_only"], 5433);
        assert_eq!(json["observed_at"], "2026-01-01T00:00:00Z");
    }

    #[test]
    fn ages_are_short() {
        let ages = [(5, "5s"), (125, "2m"), (7300, "2h"), (600_000, "6d")];
        ages.iter().for_each(|(seconds, words)| assert_eq!(age_in_words(*seconds), *words));
    }
}
