//! The only doors to the machine: the clock, child processes, files, memory.

pub mod clock;
pub mod files;
pub mod memory;
pub mod process;
