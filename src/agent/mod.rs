//! The high-availability agent: a guard, a pure decision, and a shell that observes and performs.

pub mod config;
pub mod decide;
pub mod guard;
pub mod lease;
pub mod view;
