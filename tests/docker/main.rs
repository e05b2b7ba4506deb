//! The provisioner, and whole clusters, on a real Docker engine. Without one these tests skip with a visible line; in CI they fail.

// A test that cannot go on fails.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::exit)]

mod exec;
mod faults;
mod foreign;
mod harm;
mod heal;
mod image;
mod layout;
mod locks;
#[path = "../support/s3/mod.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod shared;
mod support;
mod whole;
