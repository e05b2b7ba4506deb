//! Tests against real servers.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on panics, and one that is skipped says so")]

mod access;
mod agents;
mod backups;
mod base_backup;
mod callbacks;
mod calm;
mod cluster;
mod coming_back;
mod crash;
mod dcs;
mod dcs_outage;
mod drill;
mod encryption;
mod fault;
mod fencing;
mod hanging;
mod healing;
mod inside;
mod killed_expiry;
mod leftovers;
mod lone_server;
mod machine;
mod memory;
mod network;
mod node;
mod node_files;
mod operations;
mod partitions;
mod permanent_slots;
mod plain_server;
mod processes;
mod random_targets;
mod receiver;
mod recovery_oracle;
mod refusals;
mod rest;
mod rest_api;
mod restore;
mod router;
#[path = "../support/s3/mod.rs"]
mod s3;
mod segment_sizes;
mod slow_store;
mod soak;
mod standby_cluster;
mod store_outage;
#[path = "../support/mod.rs"]
mod support;
mod tags;
mod unpacked;
mod wal_archive;
mod watchdog;
mod writer;
