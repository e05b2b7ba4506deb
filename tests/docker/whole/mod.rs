//! Whole clusters, as a user has them: the binary that was just built, the image with it, and the servers in it. Each test is a story with a
//! cluster of its own.

mod archive;
mod cluster;
mod engine;
mod first_day;
mod interruption;
mod logical_slots;
mod losses;
mod neighbours;
mod new_credentials;
mod new_key;
mod operation;
mod secrets;
