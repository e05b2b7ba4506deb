//! A way through timelines. Pure: from what a history says.

use crate::model::{HistoryLine, Lsn, Timeline};

/// A way through timelines: each but the last is left where the next one forks off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath {
    /// From the oldest on; never empty.
    stretches: Vec<Stretch>,
}

/// The part of a timeline that a path goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The timeline.
    pub timeline: Timeline,
    /// Its first position.
    pub begin: Lsn,
    /// The position at which the next timeline forks off; `None`: the path ends with this timeline.
    pub end: Option<Lsn>,
}

impl TimelinePath {
    /// The path to `timeline`, whose past this is. A line that lies before an earlier one's end cuts that short: PostgreSQL writes such a
    /// history when a standby was promoted that knew of a later timeline and had not come that far.
    pub fn new(history: &[HistoryLine], timeline: Timeline) -> TimelinePath {
        let mut stretches = Vec::new();
        let mut begin = Lsn(0);
        for (at, line) in history.iter().enumerate() {
            let end = history[at..].iter().map(|later| later.switch).min().unwrap_or(line.switch);
            if end > begin {
                stretches.push(Stretch { timeline: line.timeline, begin, end: Some(end) });
                begin = end;
            }
        }
        stretches.push(Stretch { timeline, begin, end: None });
        TimelinePath { stretches }
    }

    /// The stretches, from the oldest on.
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The timeline that it leads to.
    pub fn timeline(&self) -> Timeline {
        self.stretches.last().map_or(Timeline(1), |stretch| stretch.timeline)
    }

    /// Whether whoever is at `position` of `timeline` can get to the path's end.
    pub fn contains(&self, timeline: Timeline, position: Lsn) -> bool {
        let on_it = |stretch: &Stretch| stretch.timeline == timeline && stretch.end.is_none_or(|end| position <= end);
        self.stretches.iter().any(on_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse_history;

    #[test]
    fn a_history_that_goes_back_cuts_the_timelines_before_short() {
        let path = TimelinePath::new(&parse_history("1\t0/5000000\tx\n2\t0/4000000\tx\n").unwrap(), Timeline(3));
        let stretch = |timeline, begin, end| Stretch { timeline: Timeline(timeline), begin: Lsn(begin), end };
        assert_eq!(path.stretches(), [stretch(1, 0, Some(Lsn(0x400_0000))), stretch(3, 0x400_0000, None)]);
        assert!(path.contains(Timeline(1), Lsn(0x400_0000)) && !path.contains(Timeline(1), Lsn(0x400_0001)));
        assert!(!path.contains(Timeline(2), Lsn(0x300_0000)));
    }
}
