//! The only doors to the machine: the clock, child processes, files.

pub mod clock;
pub mod files;
pub mod process;
