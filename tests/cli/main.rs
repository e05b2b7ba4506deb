//! The command line from outside: the real binary, a hermetic environment, and no Docker engine.

mod agent;
mod backup;
mod completion;
mod encryption;
mod errors;
mod help;
#[path = "../support/kms/mod.rs"]
mod kms;
mod restore;
#[path = "../support/run.rs"]
mod run;
mod specs;
mod spilo;
mod wal;
mod words;
