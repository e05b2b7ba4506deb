//! `spilo logs NAME`

use std::{cell::RefCell, rc::Rc};

use futures_util::future::try_join_all;

use crate::{
    cli::{CommandError, Context, ErrorKind, Exit, engine::connect, interrupt::run_async, look::no_such_cluster, output::print},
    model::ClusterName,
    provisioner::{Form, Inventory, LogLine, LogWish, Object, ObjectKind, Platform},
};

const EXAMPLES: &str = "\
Examples:
  spilo logs orders                        the newest lines of every node, in the order of time
  spilo logs orders -f --node 2
  spilo logs orders --node router --tail all";

/// How many lines of each container are shown when the user does not say.
const DEFAULT_TAIL: u32 = 100;

/// Show the logs of a cluster's nodes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// Go on as new lines come
    #[arg(short, long)]
    follow: bool,

    /// Only this one: a member or its number, router, etcd-1 [default: all nodes]
    #[arg(long, value_name = "NODE")]
    node: Option<String>,

    /// How many of the newest lines of each, or `all` [default: 100]
    #[arg(long, value_name = "LINES", value_parser = parse_tail)]
    tail: Option<Tail>,

    /// Begin each line with the engine's time
    #[arg(long)]
    timestamps: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(u32),
}

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number.parse().map(Tail::Lines).map_err(|_| "expected a number of lines, or all".to_owned()),
    }
}

/// Shows them.
pub fn run(_context: &Context, args: &Args) -> Result<Exit, CommandError> {
    run_async(|interrupt| async move {
        let platform = connect().await?;
        let inventory = platform.observe(&args.name).await?;
        let containers = containers(&inventory, args.node.as_deref())?;
        if args.follow {
            tokio::select! {
                result = follow(&platform, &containers, args) => result?,
                // The regular end of following.
                () = interrupt.requested() => {}
            }
        } else {
            show_in_order(&platform, &containers, args).await?;
        }
        Ok(Exit::OK)
    })
}

/// The containers whose logs are wanted.
fn containers<'i>(inventory: &'i Inventory, wanted: Option<&str>) -> Result<Vec<&'i Object>, CommandError> {
    let cluster = &inventory.cluster;
    if inventory.is_empty() {
        return Err(no_such_cluster(cluster));
    }
    let Some(wanted) = wanted else { return Ok(inventory.containers(ObjectKind::Node).collect()) };
    let all = || inventory.objects.iter().filter(|object| object.form == Form::Container);
    let is_meant =
        |object: &&Object| [wanted.to_owned(), format!("spilo-{wanted}"), format!("spilo-{cluster}-{wanted}")].contains(&object.name);
    match all().find(is_meant) {
        Some(container) => Ok(vec![container]),
        None => {
            let names: Vec<&str> = all().map(|object| short(&object.name)).collect();
            Err(CommandError::new(ErrorKind::NotFound, format!("cluster '{cluster}' has no container '{wanted}'"))
                .hint(format!("it has: {}", names.join(", "))))
        }
    }
}

fn short(container: &str) -> &str {
    container.strip_prefix("spilo-").unwrap_or(container)
}

fn wish(args: &Args, timestamps: bool) -> LogWish {
    let tail = match args.tail.unwrap_or(Tail::Lines(DEFAULT_TAIL)) {
        Tail::All => None,
        Tail::Lines(lines) => Some(lines),
    };
    LogWish { follow: args.follow, tail, timestamps }
}

/// Every container's lines as they come.
async fn follow<P: Platform>(platform: &P, containers: &[&Object], args: &Args) -> Result<(), CommandError> {
    let many = containers.len() > 1;
    let failed = Rc::new(RefCell::new(None));
    let followed = containers.iter().map(|container| {
        let failed = Rc::clone(&failed);
        async move {
            let mut sink = |line: LogLine| {
                if let Err(error) = print(&with_name(many, &container.name, &line.text)) {
                    failed.borrow_mut().get_or_insert(error);
                }
            };
            platform.logs(&container.name, wish(args, args.timestamps), &mut sink).await
        }
    });
    try_join_all(followed).await?;
    match failed.take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The lines of all containers in one order: that of the engine's time, which is then taken away unless it was asked for.
async fn show_in_order<P: Platform>(platform: &P, containers: &[&Object], args: &Args) -> Result<(), CommandError> {
    let many = containers.len() > 1;
    let mut lines: Vec<(String, String)> = Vec::new();
    for container in containers {
        let mut sink = |line: LogLine| {
            let (time, text) = line.text.split_once(' ').unwrap_or((&line.text, ""));
            let shown = if args.timestamps { &line.text } else { text };
            lines.push((time.to_owned(), with_name(many, &container.name, shown)));
        };
        platform.logs(&container.name, wish(args, true), &mut sink).await?;
    }
    // The engine writes times in one fixed width, so that their order as text is their order in time.
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, line) in lines {
        print(&line)?;
    }
    Ok(())
}

fn with_name(many: bool, container: &str, line: &str) -> String {
    if many { format!("{} | {line}", short(container)) } else { line.to_owned() }
}
