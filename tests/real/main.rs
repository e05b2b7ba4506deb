//! Tests against real servers.

mod agents;
mod cluster;
mod dcs;
mod inside;
#[path = "../support/mod.rs"]
mod support;
mod writer;
