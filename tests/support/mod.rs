//! What the tests that run real programs share. Each test binary uses a part of it.
#![allow(dead_code)]

pub mod etcd;
pub mod ports;
pub mod run;
pub mod slow;
pub mod writer;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

pub use ports::free_address;

/// Where a program is, searched as a shell does, and in the place where Debian keeps servers.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Whether the test can run. Without the program it is skipped with a visible line, except in CI, where it must be there.
pub fn available(name: &str) -> bool {
    let found = program(name).is_some();
    assert!(found || std::env::var_os("CI").is_none(), "'{name}' is not installed, and in CI no test may be skipped");
    if !found {
        eprintln!("SKIPPED: '{name}' is not installed");
    }
    found
}

/// Waits until `ready`; panics with `what` when that takes longer than `limit`. Returns how long it took.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

/// Runs a future to its end, where the caller is not asynchronous.
pub fn block<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
