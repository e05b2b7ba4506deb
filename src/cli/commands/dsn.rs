//! `spilo dsn NAME`

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    cli::{
        CommandError, Context, ErrorKind, Exit,
        connection::{APPLICATION, Connection, ConnectionParameters, Password, PasswordFiles},
        engine::connect,
        interrupt::run_async,
        look::{endpoints, stored_spec},
        output::{OutputFormat, Shown, print, show},
        status::Endpoints,
    },
    model::ClusterName,
    provisioner::{Platform, StoredSpec},
};

const EXAMPLES: &str = "\
Examples:
  psql \"$(spilo dsn orders)\"
  export $(spilo dsn orders --format env) && pg_dump
  spilo dsn orders --role ro --show-password       for clients that do not use libpq

The password is in a file that only you can read; libpq finds it by the parameter 'passfile'.";

/// Print how to connect to a cluster
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// To the primary, or to the replicas
    #[arg(long, value_enum, default_value_t)]
    role: Role,

    /// The form
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Put the password into the output instead of naming a file that holds it
    #[arg(long)]
    show_password: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Role {
    /// Read-write: the primary
    #[default]
    Rw,
    /// Read-only: the replicas
    Ro,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// postgresql://…
    Uri,
    /// host=… port=…
    Keyword,
    /// PGHOST=… lines
    Env,
    /// A JSON document
    Json,
}

/// A connection as a document.
#[derive(Debug, Serialize)]
struct Dsn {
    cluster: ClusterName,
    role: &'static str,
    uri: String,
    #[serde(flatten)]
    parameters: ConnectionParameters,
}

impl Shown for Dsn {
    const KIND: &'static str = "ConnectionString";

    fn text(&self, _wide: bool) -> String {
        self.uri.clone()
    }
}

/// Prints the connection string.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let connection = run_async(|_| async {
        let platform = connect().await?;
        let inventory = platform.observe(&args.name).await?;
        let stored = stored_spec(&inventory)?;
        connection(&platform, stored, args.role == Role::Ro, args.show_password).await
    })?;
    match args.format {
        Some(Format::Uri) => print(&connection.uri())?,
        Some(Format::Keyword) => print(&connection.keywords())?,
        Some(Format::Env) => print(&connection.environment())?,
        Some(Format::Json) => show(OutputFormat::Json, &document(args, &connection))?,
        None => context.show(&document(args, &connection))?,
    }
    Ok(Exit::OK)
}

fn document(args: &Args, connection: &Connection) -> Dsn {
    let role = if args.role == Role::Ro { "read-only" } else { "read-write" };
    Dsn { cluster: args.name.clone(), role, uri: connection.uri(), parameters: connection.parameters() }
}

/// The way into a cluster; unless the password is shown, its file is written.
pub async fn connection<P: Platform>(
    platform: &P,
    stored: &StoredSpec,
    read_only: bool,
    show_password: bool,
) -> Result<Connection, CommandError> {
    let cluster = &stored.spec.name;
    let ports: Endpoints = endpoints(&stored.spec)
        .ok_or_else(|| CommandError::new(ErrorKind::Failed, format!("the stored spec of cluster '{cluster}' has no port")))?;
    let secret = platform.read_secret(cluster, APPLICATION).await?;
    let password = if show_password {
        Password::Shown(secret)
    } else {
        Password::File(PasswordFiles::of_this_user()?.write(cluster, ports, &secret)?)
    };
    Ok(Connection { port: if read_only { ports.read_only } else { ports.read_write }, password })
}
