//! `spilo version`

use serde::Serialize;

use crate::{
    cli::{CommandError, Context, Exit, output::Shown},
    spec::PostgresVersion,
};

/// Print the version
#[derive(Debug, clap::Args)]
pub struct Args {}

/// What there is to say about this program.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    os: &'static str,
    architecture: &'static str,
    default_postgres: PostgresVersion,
}

impl Shown for Version {
    const KIND: &'static str = "Version";

    fn text(&self, wide: bool) -> String {
        let short = format!("spilo {}", self.version);
        if wide { format!("{short} ({} {}, PostgreSQL {})", self.os, self.architecture, self.default_postgres) } else { short }
    }
}

/// Prints it.
pub fn run(context: &Context, _args: &Args) -> Result<Exit, CommandError> {
    context.show(&Version {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        architecture: std::env::consts::ARCH,
        default_postgres: PostgresVersion::default(),
    })?;
    Ok(Exit::OK)
}
