//! Timelines: PostgreSQL starts a new one at each promotion, and its history says where each forked off.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Lsn;

/// A timeline's number; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One line of a timeline's history: `timeline` ended at `switch`, for `reason`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where the next one forked off.
    pub switch: Lsn,
    /// What PostgreSQL noted, such as `no recovery target specified`.
    pub reason: String,
}

/// Reads the text of a `0000000N.history` file. Comment lines and blank lines are passed over; a line that is neither makes the whole
/// text unreadable (`None`), because a history with a hole would misplace a fork.
pub fn parse_history(text: &str) -> Option<Vec<HistoryLine>> {
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let mut fields = line.splitn(3, ['\t', ' ']).map(str::trim);
        let timeline = Timeline(fields.next()?.parse().ok()?);
        let switch = fields.next()?.parse().ok()?;
        lines.push(HistoryLine { timeline, switch, reason: fields.next().unwrap_or_default().to_owned() });
    }
    Some(lines)
}

/// The timeline that WAL up to `position` belongs to, for who is on the way to `timeline` with this past. A standby that follows a new
/// primary names the new timeline before it has all that lies before the fork; taken for one that is past the fork, it would seem to be
/// ahead of somebody who has more.
pub fn timeline_at(past: &[HistoryLine], timeline: Timeline, position: Lsn) -> Timeline {
    past.iter().find(|line| position < line.switch).map_or(timeline, |line| line.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_before_the_fork_lies_on_the_timeline_before() {
        let past = parse_history("1\t0/100\tx\n2\t0/200\tx\n").unwrap();
        let at = |position: u64| timeline_at(&past, Timeline(3), Lsn(position)).0;
        assert_eq!([at(0x50), at(0xff), at(0x100), at(0x1ff), at(0x200), at(0x300)], [1, 1, 2, 2, 3, 3]);
        assert_eq!(timeline_at(&[], Timeline(1), Lsn(7)), Timeline(1));
    }

    #[test]
    fn a_history_file_reads_as_its_forks() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# comment\n2\t0/5000000\tx\n";
        let lines = parse_history(text).unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].timeline, lines[0].switch), (Timeline(1), Lsn(0x300_0148)));
        assert_eq!(lines[0].reason, "no recovery target specified");
    }

    #[test]
    fn a_broken_line_makes_the_history_unreadable() {
        assert_eq!(parse_history("1\tnonsense\tx\n"), None);
    }
}
