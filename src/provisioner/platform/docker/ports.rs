//! The three consecutive ports of a cluster on 127.0.0.1.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
};

/// How many ports a cluster has.
pub(super) const PORTS: u16 = 3;

/// The first of three consecutive ports, from `from` on, that are neither reserved nor in use.
pub(super) fn first_free(from: u16, reserved: &BTreeSet<u16>, in_use: impl Fn(u16) -> bool) -> Option<u16> {
    let last = u16::MAX - (PORTS - 1);
    let mut first = from;
    while first <= last {
        match (first..=first + (PORTS - 1)).rev().find(|port| reserved.contains(port) || in_use(*port)) {
            None => return Some(first),
            Some(taken) => first = taken.checked_add(1)?,
        }
    }
    None
}

/// Whether somebody listens on the port: only binding it tells.
pub(super) fn is_in_use(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err()
}

/// The ports of a cluster whose first is this one; none beyond the last port there is.
pub(super) fn ports_from(first: u16) -> impl Iterator<Item = u16> {
    (0..PORTS).filter_map(move |offset| first.checked_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_in_a_row_are_chosen() {
        let reserved = BTreeSet::from([5435]);
        assert_eq!(first_free(5432, &BTreeSet::new(), |_| false), Some(5432));
        assert_eq!(first_free(5432, &reserved, |port| port == 5432), Some(5436));
        assert_eq!(first_free(5432, &reserved, |_| false), Some(5432));
        assert_eq!(first_free(5432, &BTreeSet::from([5433]), |port| port == 5436), Some(5437));
    }

    #[test]
    fn the_search_ends_with_the_last_port() {
        assert_eq!(first_free(5432, &BTreeSet::new(), |_| true), None);
        assert_eq!(first_free(65533, &BTreeSet::new(), |_| false), Some(65533));
        assert_eq!(first_free(65534, &BTreeSet::new(), |_| false), None);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_in_use() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_in_use(port));
        drop(listener);
        assert!(!is_in_use(port));
    }
}
