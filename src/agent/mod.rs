//! The high-availability agent: a guard, a pure decision, and a shell that observes and performs.

pub mod action;
pub mod config;
mod configure;
pub mod decide;
mod discard;
mod dynamic;
mod fence;
pub mod guard;
pub mod lease;
pub mod memory;
mod namesake;
mod observe;
mod peers;
mod pending;
mod perform;
mod publish;
pub mod reason;
pub mod rejoin;
mod requests;
mod server;
pub mod shell;
pub mod standing;
pub mod start;
mod tasks;
mod timelines;
pub mod view;
pub mod wish;
