//! `spilo list`

use jiff::Timestamp;
use serde::Serialize;

use super::status::age_in_words;
use crate::{
    cli::{
        CommandError, Context, Exit,
        engine::connect,
        interrupt::run_async,
        look::endpoints,
        output::{Shown, table},
        status::Endpoints,
    },
    model::ClusterName,
    provisioner::{ClusterSummary, Platform},
    spec::ClusterSpec,
};

/// List the clusters on this machine
#[derive(Debug, clap::Args)]
pub struct Args {}

/// The clusters, as data.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct ClusterList(Vec<Line>);

/// One cluster.
#[derive(Debug, Serialize)]
struct Line {
    name: ClusterName,
    /// Absent for the remains of an interrupted creation or deletion.
    spec: Option<ClusterSpec>,
    image: Option<String>,
    endpoints: Option<Endpoints>,
    containers: usize,
    running: usize,
    created: Option<Timestamp>,
    /// It is deleted, and its backups are left.
    only_backups: bool,
    /// Why its spec cannot be read.
    unreadable: Option<String>,
    #[serde(skip)]
    age: String,
}

impl Shown for ClusterList {
    const KIND: &'static str = "ClusterList";

    fn text(&self, wide: bool) -> String {
        if wide {
            let rows = self.0.iter().map(|line| {
                let [name, pg, nodes, running, port, age] = line.columns();
                let durability = line.spec.as_ref().map_or("-".to_owned(), |spec| spec.durability.to_string());
                [name, pg, nodes, running, port, age, durability, line.image.clone().unwrap_or("-".to_owned())]
            });
            return table(["NAME", "PG", "NODES", "RUNNING", "PORT", "AGE", "DURABILITY", "IMAGE"], rows);
        }
        table(["NAME", "PG", "NODES", "RUNNING", "PORT", "AGE"], self.0.iter().map(Line::columns))
    }
}

impl Line {
    fn new(summary: ClusterSummary, now: Timestamp) -> Line {
        let age = summary.created.and_then(|created| u64::try_from(now.duration_since(created).as_secs()).ok());
        let (spec, image) = summary.stored.map(|stored| (stored.spec, stored.image)).unzip();
        Line {
            name: summary.name,
            endpoints: spec.as_ref().and_then(endpoints),
            spec,
            image,
            containers: summary.containers,
            running: summary.running,
            created: summary.created,
            only_backups: summary.only_backups,
            unreadable: summary.unreadable,
            age: age.map_or("-".to_owned(), age_in_words),
        }
    }

    fn columns(&self) -> [String; 6] {
        let of_spec = |value: fn(&ClusterSpec) -> String| self.spec.as_ref().map_or("-".to_owned(), value);
        [
            self.name.to_string(),
            of_spec(|spec| spec.postgres.to_string()),
            of_spec(|spec| spec.nodes.to_string()),
            format!("{}/{}", self.running, self.containers),
            self.endpoints.map_or("-".to_owned(), |ports| ports.read_write.to_string()),
            self.age.clone(),
        ]
    }
}

/// Lists them.
pub fn run(context: &Context, _args: &Args) -> Result<Exit, CommandError> {
    let clusters = run_async(|_| async { Ok(connect().await?.clusters().await?) })?;
    let now = Timestamp::now();
    let list = ClusterList(clusters.into_iter().map(|summary| Line::new(summary, now)).collect());
    if list.0.is_empty() && !context.output.is_for_programs() {
        context.ui.say("there is no cluster on this machine");
        context.ui.hint("spilo create cluster NAME");
        return Ok(Exit::OK);
    }
    context.show(&list)?;
    for line in &list.0 {
        line.unreadable.iter().for_each(|why| context.ui.warn(format_args!("'{}': {why}", line.name)));
    }
    for deleted in list.0.iter().filter(|line| line.only_backups) {
        let name = &deleted.name;
        context.ui.hint(format_args!("of '{name}' only its backups are left; to remove them: spilo delete cluster {name} --backups"));
    }
    Ok(Exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remains_without_a_spec_are_listed_too() {
        let summary = ClusterSummary {
            name: "orders".parse().unwrap(),
            stored: None,
            running: 0,
            containers: 2,
            created: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            only_backups: false,
            unreadable: None,
        };
        let list = ClusterList(vec![Line::new(summary, "2026-01-01T00:00:09Z".parse().unwrap())]);
        assert_eq!(list.text(false), "NAME    PG  NODES  RUNNING  PORT  AGE\norders  -   -      0/2      -     9s\n");
    }
}
