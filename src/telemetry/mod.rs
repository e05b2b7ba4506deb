//! Setting up the log. What is logged is decided where it happens.

mod log;

pub use log::{InvalidLogFilter, LogFormat, LogSettings, start_log};
