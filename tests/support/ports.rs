//! Ports that are ours alone: not another test's of this process, not those of another one beside it, and never a connection's that leaves.
//!
//! A port that the kernel picks (port 0) lies where it also takes the ports of outgoing connections from. Between two starts of a server, or
//! before its first one, such a connection may take it and keep it for as long as it lasts.

use std::{
    fs::{DirBuilder, File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below it are ports that well-known programs use; Linux gives outgoing connections ports from 32768 on.
const FIRST: u16 = 10_000;
const BLOCK: u16 = 500;
const BLOCKS: u8 = 44;

/// A block of ports, for as long as this process lives: the kernel gives up the lock with it, however it ends.
struct Block {
    number: u8,
    next: AtomicU16,
    _lock: File,
}

/// The number of this process among those that run such tests on this machine; it also tells apart the networks that they make.
pub fn process_number() -> u8 {
    block().number
}

/// An address on loopback that nobody else uses.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)))
}

/// The first of so many ports in a row that nobody else uses.
pub fn free_ports(count: u16) -> u16 {
    let block = block();
    for _ in 0..BLOCK {
        let offset = block.next.fetch_add(count, Ordering::Relaxed) % BLOCK;
        let first = FIRST + u16::from(block.number) * BLOCK + offset;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if offset + count <= BLOCK && (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("all of this process's {BLOCK} ports are in use");
}

fn block() -> &'static Block {
    static OWN: OnceLock<Block> = OnceLock::new();
    OWN.get_or_init(|| {
        warn_of_overlap();
        let user = rustix::process::geteuid().as_raw();
        let dir = std::env::temp_dir().join(format!("spilo-test-ports-{user}"));
        // Locks of whoever made it first are the same locks.
        let _ = DirBuilder::new().mode(0o700).create(&dir);
        assert_eq!(dir.metadata().map(|found| found.uid()).ok(), Some(user), "{} is this user's", dir.display());
        for number in 0..BLOCKS {
            let lock = File::create(dir.join(number.to_string())).expect("the locks of ports can be written");
            match lock.try_lock() {
                Ok(()) => return Block { number, next: AtomicU16::new(0), _lock: lock },
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("{} cannot be locked: {error}", dir.display()),
            }
        }
        panic!("{BLOCKS} processes use the ports of tests already");
    })
}

/// Where the kernel was told to take outgoing ports from here too, a test may fail for it: then this says why.
fn warn_of_overlap() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(u16::MAX);
    let end = FIRST + u16::from(BLOCKS) * BLOCK;
    if lowest < end {
        eprintln!("connections that leave may take ports from {lowest} on, tests listen on {FIRST} to {end}: one may take the other's");
    }
}
