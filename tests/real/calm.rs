//! Nothing goes wrong, but the machine is busy: the shortest lease is still long enough.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    cluster::{Cluster, Node},
    writer::Writer,
};
use crate::support::writer::Row;

/// How long, in seconds, unless SPILO_CALM_SECONDS says otherwise.
const SHORT: u64 = 25;

/// Threads that compute all the time, twice as many as there are cores; they end with it.
struct BusyLoops(Arc<AtomicBool>);

impl BusyLoops {
    fn start() -> BusyLoops {
        let end = Arc::new(AtomicBool::new(false));
        for _ in 0..2 * std::thread::available_parallelism().map_or(2, usize::from) {
            let end = end.clone();
            std::thread::spawn(move || while !end.load(Ordering::Relaxed) {});
        }
        BusyLoops(end)
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn longest_gap(rows: &[Row]) -> Duration {
    rows.windows(2).map(|pair| pair[1].acknowledged - pair[0].acknowledged).max().unwrap_or_default()
}

#[test]
fn a_busy_machine_is_no_reason_to_change_the_leader() {
    let seconds = std::env::var("SPILO_CALM_SECONDS").map_or(SHORT, |text| text.parse().expect("SPILO_CALM_SECONDS is a number"));
    let Some(cluster) = Cluster::start() else { return };
    let leader = cluster.leader().expect("it is well").name.clone();
    let postmaster = cluster.leader().and_then(Node::postmaster_pid);
    let writer = Writer::start(&cluster);
    let busy = BusyLoops::start();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(1));
    }
    drop(busy);
    writer.wait_for_more();
    let rows = writer.rows(0);
    eprintln!("calm: {seconds} s, {} rows, longest gap {:?}", rows.len(), longest_gap(&rows));
    let taken_by = rows.iter().map(|row| (row.timeline, row.server.as_str())).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(taken_by.len(), 1, "somebody else took over from {leader}: {taken_by:?}");
    assert_eq!(cluster.leader().map(|l| l.name.clone()), Some(leader));
    assert_eq!(cluster.leader().and_then(Node::postmaster_pid), postmaster, "PostgreSQL was stopped, and started again");
    writer.check(&cluster);
}
