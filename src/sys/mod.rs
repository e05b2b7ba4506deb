//! The only doors to the machine: the clock, processes, files, locks, memory, priorities, timers.

pub mod causes;
pub mod clock;
pub mod files;
pub mod lock;
pub mod machine;
pub mod memory;
pub mod priority;
pub mod process;
pub mod process_end;
pub mod process_table;
pub mod timer;
