//! Stores: what each driver promises, and what they do when the other side misbehaves.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on panics")]

mod amazon;
mod directory;
mod faults;
#[path = "../support/kms/mod.rs"]
mod kms;
mod kms_keys;
mod promises;
mod races;
mod refusals;
#[path = "../support/s3/mod.rs"]
mod s3;

use bytes::Bytes;
use spilo::storage::ObjectName;

fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

fn content(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
