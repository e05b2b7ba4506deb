//! Everything a decision is made from, as plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    dcs::{snapshot::Snapshot, tags::Tags},
    model::{HistoryLine, Lsn, MemberName, SystemId, Term, Timeline},
    postgres::control_data::ControlData,
    spec::settings::Settings,
    sys::clock::Moment,
};

pub use super::{
    memory::{Memory, Trouble},
    past::{AsOf, Past},
    promise::Promise,
    wish::{Pending, Refusal, Request, Restart, Scheduled, Wishes},
};
pub use crate::postgres::sql::{LogicalSlotFacts, ServerFacts, StandbyFacts};

/// One look at the world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// When the look was taken.
    pub now: Moment,
    /// This member.
    pub me: MemberName,
    /// The dynamic configuration in force.
    pub settings: Settings,
    /// This member's tags.
    pub tags: Tags,
    /// A program of the user's has to succeed before a promotion.
    pub pre_promote: bool,
    /// This member may initialise a new cluster.
    pub may_initialize: bool,
    /// The agent was told to end.
    pub stopping: bool,
    /// The cluster as the DCS has it; when it is silent, as it last was.
    pub cluster: Snapshot,
    /// The DCS answered.
    pub dcs_answers: bool,
    /// Who holds the leader key.
    pub lock: Lock,
    /// The local server.
    pub local: Local,
    /// Answers of other members, asked for by the decision before this one.
    pub peers: Option<BTreeMap<MemberName, Peer>>,
    /// When they were asked.
    pub asked_at: Option<Moment>,
    /// This member's own vote: the term under which its standby is fenced. `local` was observed after that was seen.
    pub vote: Option<Term>,
    /// The long task that is running.
    pub task: Option<Task>,
    /// What earlier turns left to remember.
    pub memory: Memory,
    /// What operators ask for.
    pub wishes: Wishes,
}

/// Who holds the leader key, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// This member, and PostgreSQL may accept writes until then.
    Mine {
        /// End of the lease, less its margin.
        until: Moment,
    },
    /// Another member.
    Other(MemberName),
    /// Nobody.
    Free,
    /// The DCS did not answer.
    Unknown {
        /// Until when a lease that was held before still lasts.
        until: Option<Moment>,
    },
}

/// The local data directory and server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Local {
    /// There is no data.
    Empty,
    /// The data cannot be used, and must not be touched.
    Unusable {
        /// Why.
        why: String,
    },
    /// There is data and no server.
    Stopped(StoppedData),
    /// There is a server that does not answer: it starts, stops or hangs.
    Silent {
        /// Its last answer, or its start when it has not answered yet.
        since: Moment,
    },
    /// A primary answers.
    Primary(ServerFacts),
    /// A standby answers.
    Standby(ServerFacts),
}

impl Local {
    /// Which database cluster the data are of; `None`: there are none, or it is not known now.
    pub fn system_id(&self) -> Option<SystemId> {
        match self {
            Local::Stopped(data) => Some(data.control.system_id),
            Local::Primary(server) | Local::Standby(server) => Some(server.system_id),
            Local::Empty | Local::Unusable { .. } | Local::Silent { .. } => None,
        }
    }
}

/// Data that no server uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoppedData {
    /// What the control file says.
    pub control: ControlData,
    /// The timelines before its present one; `None`: unknown.
    pub past: Option<Vec<HistoryLine>>,
    /// The next start would be one as a standby.
    pub standby_signal: bool,
    /// A rewind was begun and not completed: nothing may be started from this.
    pub half_rewound: bool,
    /// It is a copy that was never started. Its control file is the source's, and says nothing of how *this* directory was left.
    pub fresh_copy: bool,
}

/// What another member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Peer {
    /// It did not answer, or its server did not.
    Silent,
    /// It accepts writes.
    Primary,
    /// It is a standby that has received the WAL up to there.
    Standby {
        /// Its timeline.
        timeline: Timeline,
        /// Its position.
        position: Lsn,
        /// It must not become leader.
        nofailover: bool,
        /// The term under which it is fenced: it has promised to acknowledge nothing more to whoever led in that term or before, and its
        /// position was read after that. `None`: it may be acknowledging at this moment.
        vote: Option<Term>,
    },
}

/// Long work: one at most, while the loop goes on renewing the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// initdb, first start, roles.
    Initialize,
    /// Copying another member.
    Clone,
    /// Finding out how to follow, rewinding where needed, starting.
    Rejoin,
    /// Comparing histories with the leader.
    CompareHistories,
    /// The user's program that has to succeed before a promotion.
    PrePromote,
    /// pg_promote.
    Promote,
    /// Stopping the primary cleanly and giving the leader key up.
    HandOver,
    /// Stopping the primary cleanly, to follow another cluster with it.
    DemoteCluster,
    /// Stopping.
    Stop,
    /// Stopping a standby that is to be started again.
    Restart,
    /// Stopping a primary that is to be started again, under its lease.
    RestartPrimary,
    /// Replacing the data directory by a copy, because somebody asked for it.
    Reinitialize,
    /// The checkpoint after a promotion.
    Checkpoint,
    /// Creating logical slots, which waits for the transactions that are running.
    CreateSlots,
}

impl Task {
    /// It looks for a way to have data, or to follow somebody with them: what may fail for as long as others are not there.
    pub fn needs_others(self) -> bool {
        matches!(self, Task::Initialize | Task::Clone | Task::Rejoin | Task::CompareHistories | Task::Reinitialize)
    }

    /// What is going on, in a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Task::Initialize => "initialising",
            Task::Clone => "copying",
            Task::Rejoin => "coming back",
            Task::CompareHistories => "comparing histories",
            Task::PrePromote => "pre_promote",
            Task::Promote => "promotion",
            Task::HandOver => "handing over",
            Task::DemoteCluster => "demoting",
            Task::Stop => "stopping",
            Task::Restart | Task::RestartPrimary => "restart",
            Task::Reinitialize => "reinitialize",
            Task::Checkpoint => "checkpoint",
            Task::CreateSlots => "creating slots",
        }
    }
}

impl View {
    /// Members other than this one.
    pub fn others(&self) -> impl Iterator<Item = &MemberName> {
        self.cluster.members.keys().filter(|name| **name != self.me)
    }

    /// True while this member leaves the leader key to others, because its `pre_promote` said no.
    pub fn stays_back(&self) -> bool {
        self.memory.stays_back_until.is_some_and(|until| self.now < until)
    }

    /// True while the whole cluster follows another one: nobody in it accepts writes.
    pub fn is_standby_cluster(&self) -> bool {
        self.settings.standby_cluster.is_some()
    }

    /// True when synchronous replication decides who may succeed the leader.
    pub fn sync_active(&self) -> bool {
        self.cluster.sync.is_active()
    }
}
