//! The tree of commands. Each command's own arguments live in its file; adding a command is one line in [`Command`] or [`Verb`] and
//! one in its `run`.

use clap::{Parser, Subcommand};

use super::{
    CommandError, Context, Exit, GlobalArgs,
    commands::{
        agent, agent_worker, apply, backup, completion, connect, create_cluster, delete_cluster, doctor, dsn, help, image, list, logs,
        plan, probe, request, restore, router, scale, status, switchover, version, wal,
    },
};
use crate::telemetry::{LogFormat, LogSettings};

const EXAMPLES: &str = "\
Examples:
  spilo create cluster orders              a cluster of three nodes on this machine
  spilo status orders -w                   how it is, again and again
  spilo connect orders                     psql on its primary
  spilo delete cluster orders              it and all its data

More: spilo help COMMAND, spilo help exit-codes, spilo help spec, spilo help environment";

/// Highly available PostgreSQL clusters, from nothing, with one command
#[derive(Debug, Parser)]
#[command(name = "spilo", version, disable_help_subcommand = true, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Command {
    /// Create a cluster
    #[command(subcommand)]
    Create(Create),
    Restore(restore::Args),
    #[command(flatten)]
    Verb(Verb),
    /// Delete a cluster
    #[command(subcommand)]
    Delete(Delete),
    /// The same commands with the noun first: spilo cluster create orders
    #[command(subcommand)]
    Cluster(Cluster),
    /// Base backups: make them, list them, check them
    #[command(subcommand)]
    Backup(backup::Command),
    /// Archived WAL: check it, and what PostgreSQL runs to archive and restore it
    #[command(subcommand)]
    Wal(wal::Command),
    /// Build and list images
    #[command(subcommand)]
    Image(image::Command),
    Doctor(doctor::Args),
    Completion(completion::Args),
    Version(version::Args),
    Help(help::Args),
    #[command(hide = true)]
    Agent(agent::Args),
    #[command(hide = true)]
    AgentWorker(agent::Args),
    #[command(hide = true)]
    Router(router::Args),
    #[command(hide = true)]
    Probe(probe::Args),
    #[command(hide = true)]
    #[command(subcommand)]
    Request(request::Command),
}

/// What can be created.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Create {
    Cluster(create_cluster::Args),
}

/// What can be deleted.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Delete {
    Cluster(delete_cluster::Args),
}

/// What is done with a cluster, under one name in either order of words.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Verb {
    Apply(apply::Args),
    Plan(plan::Args),
    Status(status::Args),
    List(list::Args),
    Connect(connect::Args),
    Dsn(dsn::Args),
    Switchover(switchover::Args),
    Scale(scale::Args),
    Logs(logs::Args),
}

/// What can be done with a cluster, noun first.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)]
pub enum Cluster {
    Create(create_cluster::Args),
    Restore(restore::Args),
    #[command(flatten)]
    Verb(Verb),
    Delete(delete_cluster::Args),
}

impl Command {
    /// How the command logs: a service with time and place, one that a person started little, in words.
    pub fn log_settings(&self, context: &Context) -> LogSettings {
        let service = matches!(self, Command::Agent(_) | Command::AgentWorker(_) | Command::Router(_))
            || matches!(self, Command::Wal(wal::Command::Serve { .. }) | Command::Backup(backup::Command::Keep(_)));
        if service {
            return LogSettings::service(LogFormat::Full);
        }
        let ui = context.ui.settings();
        LogSettings::command(ui.verbosity, ui.colour)
    }

    /// Runs the command.
    pub fn run(self, context: &Context) -> Result<Exit, CommandError> {
        match self {
            Command::Create(Create::Cluster(args)) => create_cluster::run(context, &args),
            Command::Restore(args) => restore::run(context, &args),
            Command::Verb(verb) => verb.run(context),
            Command::Delete(Delete::Cluster(args)) => delete_cluster::run(context, &args),
            Command::Cluster(Cluster::Create(args)) => create_cluster::run(context, &args),
            Command::Cluster(Cluster::Restore(args)) => restore::run(context, &args),
            Command::Cluster(Cluster::Verb(verb)) => verb.run(context),
            Command::Cluster(Cluster::Delete(args)) => delete_cluster::run(context, &args),
            Command::Image(command) => image::run(context, &command),
            Command::Doctor(args) => doctor::run(context, &args),
            Command::Completion(args) => completion::run(context, &args),
            Command::Version(args) => version::run(context, &args),
            Command::Help(args) => help::run(context, &args),
            Command::Agent(args) => agent::run(context, &args),
            Command::AgentWorker(args) => agent_worker::run(context, &args),
            Command::Router(args) => router::run(context, &args),
            Command::Probe(args) => probe::run(context, &args),
            Command::Request(command) => request::run(context, &command),
            Command::Wal(command) => wal::run(context, &command),
            Command::Backup(command) => backup::run(context, &command),
        }
    }
}

impl Verb {
    fn run(self, context: &Context) -> Result<Exit, CommandError> {
        match self {
            Verb::Apply(args) => apply::run(context, &args),
            Verb::Plan(args) => plan::run(context, &args),
            Verb::Status(args) => status::run(context, &args),
            Verb::List(args) => list::run(context, &args),
            Verb::Connect(args) => connect::run(context, &args),
            Verb::Dsn(args) => dsn::run(context, &args),
            Verb::Switchover(args) => switchover::run(context, &args),
            Verb::Scale(args) => scale::run(context, &args),
            Verb::Logs(args) => logs::run(context, &args),
        }
    }
}
