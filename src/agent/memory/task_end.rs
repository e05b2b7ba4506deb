//! What a task leaves to the loop.

use std::time::Duration;

use super::{Memory, waits::RETRY};
use crate::{
    agent::view::Task,
    model::{Lsn, MemberName},
    sys::clock::Moment,
};

/// The longest pause after a cluster could not be begun, in units of [`RETRY`]: what was restored for it may be restored again each time.
const RAREST_BIRTH: u32 = 256;

/// What a task leaves to the loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// Nothing.
    Done,
    /// Data is ready to be started as a standby of this member.
    ReadyToFollow(MemberName),
    /// A copy of this member is ready to be started as its standby.
    Copied(MemberName),
    /// What is here can follow the primary of the other cluster.
    FitsRemote,
    /// A copy of the other cluster's primary is ready to be started as its standby.
    CopiedRemote,
    /// The leader has no longer the WAL that the standby needs next.
    WalGone,
    /// The standby has WAL that its leader does not have.
    Diverged,
    /// The user's program has nothing against a promotion.
    MayPromote,
    /// The user's program does not want this member promoted: not for so long.
    MustNotPromote {
        /// How long somebody else has the chance.
        back_off: Duration,
    },
    /// The server accepts writes from this position on.
    Promoted(Lsn),
}

impl Memory {
    /// A task has ended well.
    pub fn task_ended(&mut self, kind: Task, end: TaskEnd, now: Moment) {
        if kind == Task::Promote {
            self.reserved_timeline = None;
        }
        if kind == Task::Initialize {
            (self.failed_births, self.begin_again_at) = (0, None);
        }
        match (kind, end) {
            (_, TaskEnd::ReadyToFollow(leader)) => {
                self.bringing_up.get_or_insert_default();
                self.diverged = false;
                self.ready_behind = Some(leader);
            }
            (_, TaskEnd::Copied(leader)) => {
                *self = Memory {
                    copied: true,
                    wal_gone: false,
                    diverged: false,
                    failed_starts: 0,
                    failed_copies: 0,
                    no_room: None,
                    ..std::mem::take(self)
                };
                self.ready_behind = Some(leader);
                self.bringing_up.get_or_insert_default();
            }
            (_, TaskEnd::FitsRemote) => {
                self.fits_remote = true;
                self.diverged = false;
                self.remote_fault = None;
                match kind {
                    Task::Rejoin => drop(self.bringing_up.get_or_insert_default()),
                    // Nothing is wrong, and it does not stream: looking again at once would find the same.
                    _ => self.retry_at = Some(now + RETRY),
                }
            }
            (_, TaskEnd::CopiedRemote) => {
                *self =
                    Memory { copied: true, wal_gone: false, diverged: false, failed_starts: 0, failed_copies: 0, ..std::mem::take(self) };
                self.fits_remote = true;
                self.remote_fault = None;
                self.bringing_up.get_or_insert_default();
            }
            (_, TaskEnd::MayPromote) => self.pre_promote_passed = true,
            (_, TaskEnd::MustNotPromote { back_off }) => self.stays_back_until = Some(now + back_off),
            (_, TaskEnd::Diverged) => {
                self.diverged = true;
                // It was found fit, and has shown that it is not.
                self.ready_behind = None;
                self.fits_remote = false;
            }
            (_, TaskEnd::WalGone) => self.wal_gone = true,
            // Nothing is wrong, and it does not stream: looking again at once would find the same.
            (Task::CompareHistories, TaskEnd::Done) => self.retry_at = Some(now + RETRY),
            (_, TaskEnd::Promoted(position)) => {
                // The standbys that commits wait for have to have all that was here at the promotion before they may vote.
                self.barrier_is(position);
                // Nor before it is certain that commits wait for them.
                self.names_change();
                self.checkpoint_due = true;
            }
            (Task::Checkpoint, TaskEnd::Done) => self.checkpoint_due = false,
            (_, TaskEnd::Done) => {}
        }
    }

    /// A task has failed. `source_answered`: not only for want of the member that it needed.
    pub fn task_failed(&mut self, kind: Task, source_answered: bool, now: Moment) {
        *if kind.needs_others() { &mut self.retry_at } else { &mut self.act_again_at } = Some(now + RETRY);
        if kind == Task::Promote {
            // It may have begun after all: another attempt takes another number.
            self.reserved_timeline = None;
        }
        if kind == Task::Initialize {
            self.holds_initialize = false;
            // It may have taken hours to find out, and moved all data there are.
            if source_answered {
                let pauses = 2_u32.saturating_pow(self.failed_births).min(RAREST_BIRTH);
                self.failed_births = self.failed_births.saturating_add(1);
                self.begin_again_at = Some(now + RETRY * pauses);
            }
        }
        if kind == Task::Clone {
            self.failed_copies = self.failed_copies.saturating_add(1);
        }
        if kind == Task::Rejoin && source_answered {
            self.failed_rejoins += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(10_000_000_000_000);

    #[test]
    fn who_cannot_find_out_how_to_follow_may_lead_at_once() {
        let mut memory = Memory::default();
        memory.task_failed(Task::CompareHistories, false, NOW);
        assert!(memory.has_to_wait_for(Task::CompareHistories, NOW) && memory.has_to_wait(NOW));
        assert!(!memory.has_to_wait_for(Task::PrePromote, NOW) && !memory.has_to_wait_for(Task::Promote, NOW));
        memory.task_failed(Task::Promote, true, NOW);
        assert!(memory.has_to_wait_for(Task::Promote, NOW), "a promotion that fails is not tried again in the same moment");
        assert!(!memory.has_to_wait_for(Task::Promote, NOW + RETRY));
        assert_eq!(memory.pause(None, Duration::from_secs(9), NOW), RETRY);
    }

    #[test]
    fn a_cluster_that_cannot_be_begun_is_tried_less_and_less_often() {
        let mut memory = Memory::default();
        memory.task_failed(Task::Initialize, false, NOW);
        assert_eq!(memory.begin_again_at, None, "a cluster to follow that is not there yet");
        let mut waits = Vec::new();
        for _ in 0..12 {
            memory.task_failed(Task::Initialize, true, NOW);
            waits.push(memory.begin_again_at.unwrap().since(NOW).as_secs());
        }
        assert_eq!(waits[..5], [1, 2, 4, 8, 16]);
        assert_eq!(waits[11], 256);
        assert_eq!(memory.retry_at, Some(NOW + RETRY), "somebody else's cluster may be copied at once");
        memory.task_ended(Task::Initialize, TaskEnd::Done, NOW);
        assert_eq!((memory.begin_again_at, memory.failed_births), (None, 0));
    }
}
