//! The router with a real haproxy, before members that only pretend.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on panics, and one that is skipped says so")]

mod first_process;
mod follow;
mod haproxy;
mod members;
#[path = "../support/mod.rs"]
mod support;
