//! The REST API: answers from the published status, requests to the shell; never PostgreSQL itself. Speaks Patroni's protocol.

mod access;
mod answers;
pub mod backup_status;
pub mod change;
mod documents;
pub mod failsafe;
mod handover;
mod health;
mod metrics;
mod operate;
pub mod report;
pub mod request;
mod server;
mod status;

pub use access::{Access, Login};
pub use answers::{Answer, Body, answer};
pub use handover::{HandoverKind, Outcome, check_handover, judge_handover};
pub use server::serve;
pub use status::{ApiRequest, NodeStatus, WalSender, Xlog};
