//! Numbers and history of timelines in the DCS.

use std::fs;

use super::{
    perform::{Failure, Flow},
    shell::Shell,
    view::{Local, View},
};
use crate::{
    dcs::{
        Dcs,
        snapshot::{HistoryEntry, TimelineKey},
    },
    model::{HistoryLine, Timeline, parse_history},
    postgres::timelines,
};

impl Shell {
    /// Takes `least`, or the number above every one that this directory knows of, before the promotion that will use it.
    pub(super) async fn reserve_timeline(&mut self, least: Timeline, view: &View) -> Result<Flow, Failure> {
        let highest = timelines::highest(&self.config.installation.data_dir)?;
        let number = least.max(Timeline(highest.0.saturating_add(1)));
        let key = TimelineKey { reserved: number.0, by: self.config.name.to_string(), ..view.cluster.timelines.clone() };
        if !self.dcs.put_timelines(&self.config.name, &key, view.cluster.timelines_version).await? {
            return Ok(Flow::Enough);
        }
        self.memory.reserved_timeline = Some(number);
        Ok(Flow::LookAgain)
    }

    /// Notes the timeline that this leader writes. One that is above what was reserved was found in an archive: it is taken too. What the
    /// DCS has forgotten, this agent may still know.
    pub(super) async fn record_timeline(&mut self, begun: Timeline) -> Result<(), Failure> {
        let reserved = self.cluster.timelines.reserved.max(begun.0).max(self.memory.past.timelines.reserved);
        let key = TimelineKey { reserved, by: self.config.name.to_string(), begun: Some(begun), remote: None };
        self.dcs.put_timelines(&self.config.name, &key, self.cluster.timelines_version).await?;
        Ok(())
    }

    /// Notes the timeline of another cluster's primary, which this standby cluster follows. Its number is taken.
    pub(super) async fn record_remote_timeline(&mut self, remote: Timeline) -> Result<(), Failure> {
        let reserved = self.cluster.timelines.reserved.max(remote.0);
        let key = TimelineKey { reserved, by: self.config.name.to_string(), begun: None, remote: Some(remote) };
        self.dcs.put_timelines(&self.config.name, &key, self.cluster.timelines_version).await?;
        Ok(())
    }

    /// Writes the past timelines as PostgreSQL's history file has them, with the time and name of the newest.
    pub(super) async fn put_history(&mut self, view: &View) -> Result<(), Failure> {
        let Local::Primary(facts) = &view.local else { return Ok(()) };
        let path = self.config.installation.data_dir.join("pg_wal").join(format!("{:08X}.history", facts.timeline.0));
        let text = fs::read_to_string(&path)?;
        let mut lines = parse_history(&text).ok_or("the timeline history file is unreadable")?;
        let modified = jiff::Timestamp::try_from(fs::metadata(&path)?.modified()?)?;
        let newest = lines.pop();
        let mut entries: Vec<HistoryEntry> = lines.into_iter().map(|line| known_entry(&self.cluster.history, line)).collect();
        if let Some(line) = newest {
            let time = modified.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string();
            entries.push(HistoryEntry(line.timeline, line.switch, line.reason, time, self.config.name.to_string()));
        }
        let entries = latest(entries, self.settings.max_timelines_history);
        if self.dcs.put_history(&self.config.name, &entries).await? {
            self.memory.history_of = Some(facts.timeline);
        }
        Ok(())
    }
}

/// The last `most` of them; 0: all.
fn latest(mut entries: Vec<HistoryEntry>, most: usize) -> Vec<HistoryEntry> {
    let surplus = if most == 0 { 0 } else { entries.len().saturating_sub(most) };
    entries.split_off(surplus)
}

/// The line as the DCS has it, with time and name, if it is the same fork.
fn known_entry(known: &[HistoryEntry], line: HistoryLine) -> HistoryEntry {
    let same = known.iter().find(|entry| entry.0 == line.timeline && entry.1 == line.switch).cloned();
    same.unwrap_or_else(|| HistoryEntry(line.timeline, line.switch, line.reason, String::new(), String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Lsn;

    #[test]
    fn a_history_is_kept_as_long_as_is_wished() {
        let entry = |timeline| HistoryEntry(Timeline(timeline), Lsn(5), String::new(), String::new(), String::new());
        let all: Vec<HistoryEntry> = [1, 2, 3].map(entry).into();
        assert_eq!(latest(all.clone(), 0), all);
        assert_eq!(latest(all.clone(), 2), all[1..]);
        assert_eq!(latest(all.clone(), 9), all);
    }

    #[test]
    fn what_another_history_says_of_a_number_is_not_taken_over() {
        let known = [HistoryEntry(Timeline(1), Lsn(5), "x".into(), "then".into(), "b".into())];
        let line = |switch| HistoryLine { timeline: Timeline(1), switch: Lsn(switch), reason: "y".into() };
        assert_eq!(known_entry(&known, line(5)).4, "b");
        assert_eq!(known_entry(&known, line(6)), HistoryEntry(Timeline(1), Lsn(6), "y".into(), String::new(), String::new()));
    }
}
