//! Where clients are sent: haproxy's configuration from what the DCS says, and haproxy itself.

mod claim;
mod config;
mod follow;
mod haproxy;
mod machine;
mod master;
mod probe;
mod request;
mod roster;
mod runtime;

use std::path::PathBuf;

pub use config::{Listen, RouterConfig};
pub use follow::run;
pub use haproxy::{Member, Routes};
pub use machine::Machine;
pub use master::Haproxy;
pub use probe::probe;
pub use request::request_switchover;

use crate::dcs::{DcsConfigError, DcsError};

/// The router, or a question to the cluster from inside, failed.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The configuration cannot be read.
    #[error("cannot read the router's configuration '{}'", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The configuration is not YAML, or not a router's.
    #[error("the router's configuration '{}' is wrong: {fault}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The configuration does not say where the DCS is.
    #[error("the router's configuration '{}' does not say where the DCS is", path.display())]
    DcsConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: DcsConfigError,
    },
    /// The DCS cannot be asked.
    #[error("the DCS cannot be asked")]
    Dcs(#[source] DcsError),
    /// haproxy cannot be run.
    #[error("cannot run '{}': is haproxy installed?", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the router cannot be written.
    #[error("cannot write '{}'", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// haproxy's command socket does not answer, or does not do what it is told.
    #[error("haproxy did not do '{command}': {fault}")]
    Command {
        /// What it was told.
        command: String,
        /// What came back.
        fault: String,
    },
    /// The asynchronous runtime or the signal handlers could not be set up.
    #[error("the router cannot set itself up")]
    Setup(#[source] std::io::Error),
    /// Nobody leads, so that nobody can hand over.
    #[error("cluster '{0}' has no leader: wait for one, or look at its members' logs")]
    NoLeader(String),
    /// The leader's REST API cannot be asked.
    #[error("the REST API of '{member}' at '{url}' did not answer: {fault}")]
    Rest {
        /// The member.
        member: String,
        /// Its address.
        url: String,
        /// Why.
        fault: String,
    },
}
