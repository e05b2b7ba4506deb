//! Tests against real servers.

mod agents;
mod cluster;
mod dcs;
#[path = "../support/mod.rs"]
mod support;
mod writer;
