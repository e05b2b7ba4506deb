//! The only doors to the machine: the clock, processes, files, memory, priorities.

pub mod clock;
pub mod files;
pub mod memory;
pub mod priority;
pub mod process;
pub mod process_table;
