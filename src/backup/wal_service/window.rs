//! What is fetched ahead, and of whom: which segments are here, on their way or not to be had, and which will be asked for next.

use std::{collections::HashMap, rc::Rc, time::Instant};

use tokio::sync::watch;

use crate::model::{SystemId, WalFile, WalSegment};

/// At most so many segments are fetched ahead, and so many bytes of them; one in any case.
const AHEAD: u32 = 16;
pub const AHEAD_BYTES: u64 = 256 << 20;

/// After so many segments in a row it is a recovery, and not somebody who looks for something.
const IN_A_ROW: u32 = 2;

/// How a file fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The archive has it: a segment is in our folder and has so many bytes; of what is small, this is the content.
    Here(T),
    /// The store says that there is none.
    Absent,
    /// Nobody knows; it may pass.
    Unknown(String),
    /// What the archive has cannot be used.
    Unfit(String),
}

/// A file that is on its way.
pub type Job<T> = watch::Receiver<Option<Outcome<T>>>;

/// What is known of segments, and what was asked for.
#[derive(Default)]
pub struct Window {
    /// Whose WAL all of it is; `None`: the data directory does not say.
    pub system: Option<SystemId>,
    /// Grows with each change of the system. What was begun before belongs to nobody any more.
    pub turn: u64,
    /// The segments that are on their way.
    pub jobs: HashMap<WalSegment, Job<u64>>,
    /// What is small and on its way.
    pub small: HashMap<WalFile, Job<Rc<[u8]>>>,
    /// What waits in our folder, since when, and how large it is.
    pub here: HashMap<WalSegment, (Instant, u64)>,
    /// What the store does not have, and since when.
    pub absent: HashMap<WalSegment, Instant>,
    /// The history that was asked for last and is not there.
    pub without_history: Option<(WalFile, Instant)>,
    last: Option<WalSegment>,
    /// How many segments were asked for one after the other.
    row: u32,
    /// When the store did not answer.
    pub failed: Option<Instant>,
}

impl Window {
    /// Notes what came of a segment. `false`: it was fetched for another system.
    pub fn brought(&mut self, segment: WalSegment, turn: u64, outcome: &Outcome<u64>) -> bool {
        if self.turn != turn {
            return false;
        }
        self.jobs.remove(&segment);
        match outcome {
            Outcome::Here(size) => drop(self.here.insert(segment, (Instant::now(), *size))),
            Outcome::Absent => drop(self.absent.insert(segment, Instant::now())),
            Outcome::Unknown(_) | Outcome::Unfit(_) => {}
        }
        true
    }

    /// The same of what is small.
    pub fn read(&mut self, file: WalFile, turn: u64, outcome: &Outcome<Rc<[u8]>>) -> bool {
        if self.turn != turn {
            return false;
        }
        self.small.remove(&file);
        if *outcome == Outcome::Absent {
            self.without_history = Some((file, Instant::now()));
        }
        true
    }

    /// The data directory is this system's. `true`: it was another one's, whose segments have the same names, so all that was known is forgotten.
    pub fn is_of(&mut self, system: Option<SystemId>) -> bool {
        let changed = self.system != system;
        if changed {
            *self = Window { system, turn: self.turn + 1, failed: self.failed, ..Window::default() };
        }
        changed
    }

    /// The segments to fetch ahead, behind the one that was handed over.
    pub fn wanted(&mut self, segment: WalSegment, size: u64) -> Vec<WalSegment> {
        let Some(ordinal) = segment.ordinal(size) else { return Vec::new() };
        let before = self.last.replace(segment).and_then(|last| last.ordinal(size));
        // Timelines follow each other in a recovery; what counts is that positions do.
        self.row = match before {
            Some(before) if ordinal == before + 1 => self.row.saturating_add(1),
            Some(before) if ordinal == before => self.row,
            Some(_) => 0,
            None => 1,
        };
        if self.row < IN_A_ROW {
            return Vec::new();
        }
        // Slowly first: most of what is fetched ahead of somebody who stops soon is fetched for nothing.
        let most = u64::from(AHEAD.min(1 << self.row.min(8))).min(AHEAD_BYTES / size).max(1);
        (1..=most).map(|further| WalSegment::nth(segment.timeline, ordinal + further, size)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeline;

    const SIZE: u64 = 16 << 20;

    fn segment(timeline: u32, ordinal: u64) -> WalSegment {
        WalSegment::nth(Timeline(timeline), ordinal, SIZE)
    }

    #[test]
    fn who_reads_on_is_served_ahead_and_who_walks_backwards_is_not() {
        let mut window = Window::default();
        let ahead = |window: &mut Window, ordinal| window.wanted(segment(1, ordinal), SIZE).len();
        assert_eq!((ahead(&mut window, 254), ahead(&mut window, 255), ahead(&mut window, 256)), (0, 4, 8));
        assert_eq!(window.wanted(segment(1, 257), SIZE)[..2], [segment(1, 258), segment(1, 259)]);
        assert_eq!((ahead(&mut window, 256), ahead(&mut window, 255), ahead(&mut window, 254)), (0, 0, 0));
        assert_eq!((ahead(&mut window, 255), ahead(&mut window, 256)), (0, 4));
    }

    #[test]
    fn a_new_timeline_that_goes_on_where_the_last_one_ended_is_read_on_too() {
        let mut window = Window::default();
        window.wanted(segment(1, 7), SIZE);
        window.wanted(segment(1, 8), SIZE);
        assert_eq!(window.wanted(segment(2, 8), SIZE)[0], segment(2, 9));
        assert_eq!(window.wanted(segment(2, 9), SIZE)[0], segment(2, 10));
    }

    #[test]
    fn one_large_segment_is_fetched_ahead_and_not_sixteen() {
        let mut window = Window::default();
        let large = |ordinal| WalSegment::nth(Timeline(1), ordinal, 1 << 30);
        assert_eq!((1..=6).map(|ordinal| window.wanted(large(ordinal), 1 << 30).len()).max(), Some(1));
    }
}
