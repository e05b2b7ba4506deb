//! One PostgreSQL server and its data directory: start, stop, crash, promotion, checkpoints, and what the control file says of it all.

use std::{collections::BTreeSet, collections::VecDeque};

use spilo::{
    agent::{
        action::PgSync,
        view::{Past, ServerFacts, StoppedData},
    },
    model::{HistoryLine, Lsn, SystemId, Timeline},
    postgres::{
        control_data::{ClusterState, ControlData},
        rewind::Origin,
        sql::StandbyFacts,
    },
};

use crate::{
    guard_model::ServerEnd,
    replication::{Receiver, Sender},
    signals::Pending,
    wal::{BranchId, Place},
    world::{Effect, Id, MILLI, Nanos, SECOND, World},
};

/// Size of a checkpoint record.
const CHECKPOINT: u64 = 120;

/// Where the WAL of a new system begins: so far on that a crashed server may have much to replay.
pub const BEGIN: Lsn = Lsn(1 << 30);

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conf {
    pub upstream: Option<Id>,
    pub slot: Option<String>,
    pub sync: PgSync,
}

/// A data directory.
#[derive(Debug, Clone)]
pub struct Data {
    /// Which directory this is: a copy is another one.
    pub identity: u64,
    pub branch: BranchId,
    /// End of the WAL that is on disk.
    pub end: Lsn,
    /// Timelines whose history files are there.
    pub histories: BTreeSet<u32>,
    /// Numbers whose place is held.
    pub places: BTreeSet<u32>,
    pub control: ControlData,
    pub standby_signal: bool,
    pub backup_label: bool,
    /// It has streamed since it was made: a copy that has not may be good for nothing.
    pub streamed: bool,
    /// A rewind changed it and was cut short.
    pub damaged: bool,
    pub slots: BTreeSet<String>,
    pub conf: Conf,
}

/// What survives the end of every process.
#[derive(Default)]
pub struct Disk {
    pub data: Option<Data>,
    pub old: Option<Data>,
    pub unrecorded: bool,
    pub rewinding: bool,
    pub config: Option<serde_json::Value>,
    /// What the agent remembers of the cluster.
    pub past: Past,
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Up,
    Stopping,
}

/// A commit that waits for standbys.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub end: Lsn,
}

/// The processes of a running server.
pub struct Server {
    pub epoch: u64,
    pub phase: Phase,
    pub primary: bool,
    pub promoting: bool,
    /// Nothing of it runs.
    pub frozen: bool,
    /// The postmaster alone does not run: no new sessions, no reload, no stop but SIGKILL.
    pub deaf: bool,
    pub held: VecDeque<Effect>,
    pub pending: Pending,
    /// The checkpointer is at work and does not read its configuration.
    pub busy: bool,
    /// End of the WAL in memory.
    pub insert: Lsn,
    /// What commits look at before they wait.
    pub sync: PgSync,
    /// What sessions show.
    pub shown: PgSync,
    pub waiting: Vec<Waiting>,
    /// Where the startup process streams from.
    pub upstream: Option<Id>,
    /// The same, as sessions show it.
    pub shown_upstream: Option<Id>,
    pub slot: Option<String>,
    pub receiver: Option<Receiver>,
    pub attempt: u64,
    pub senders: Vec<Sender>,
}

impl Server {
    /// It accepts writes.
    pub fn writes(&self) -> bool {
        self.primary && self.phase == Phase::Up
    }
}

impl Data {
    /// Its end in the tree of WAL.
    pub fn place(&self) -> Place {
        Place { branch: self.branch, lsn: self.end }
    }
}

impl World {
    /// A member's data directory, which must be there.
    pub fn data(&self, id: Id) -> &Data {
        self.members[id].disk.data.as_ref().expect("a server has data")
    }

    /// The same, to be changed.
    pub fn data_mut(&mut self, id: Id) -> &mut Data {
        self.members[id].disk.data.as_mut().expect("a server has data")
    }

    /// The timeline that a data directory is on.
    pub fn timeline(&self, id: Id) -> Timeline {
        self.wal.branches[self.data(id).branch].timeline
    }

    /// The server of this life, unless it has ended.
    pub fn server(&mut self, id: Id, epoch: u64) -> Option<&mut Server> {
        self.members[id].server.as_mut().filter(|s| s.epoch == epoch)
    }

    /// Has something happen within a server, after a while: not at all when it has ended, and later when it is frozen.
    pub fn in_server(&mut self, id: Id, epoch: u64, after: Nanos, effect: impl FnOnce(&mut World) + 'static) {
        self.after(after, move |w| w.now_in_server(id, epoch, effect));
    }

    /// The same, now.
    pub fn now_in_server(&mut self, id: Id, epoch: u64, effect: impl FnOnce(&mut World) + 'static) {
        match self.server(id, epoch) {
            Some(server) if server.frozen => server.held.push_back(Box::new(effect)),
            Some(_) => effect(self),
            None => {}
        }
    }

    /// initdb.
    pub fn initdb(&mut self, id: Id) {
        self.check_initdb(id);
        let system = SystemId(7_000_000_000_000 + self.next());
        let branch = self.wal.initialize(system);
        let identity = self.next();
        self.note(|w| format!("{}     initdb: system {system}", w.members[id].name));
        let control = ControlData {
            system_id: system,
            state: ClusterState::ShutDown,
            checkpoint_timeline: Timeline(1),
            checkpoint: BEGIN,
            redo: BEGIN,
            min_recovery: None,
            rewindable: true,
        };
        self.members[id].disk.data = Some(Data {
            identity,
            branch,
            end: Lsn(BEGIN.0 + CHECKPOINT),
            histories: BTreeSet::new(),
            places: BTreeSet::new(),
            control,
            standby_signal: false,
            backup_label: false,
            streamed: true,
            damaged: false,
            slots: BTreeSet::new(),
            conf: Conf::default(),
        });
    }

    /// Starts a server on the data as it lies there. Returns its life's number.
    pub fn start_server(&mut self, id: Id) -> Option<u64> {
        self.check_start(id);
        let epoch = self.next();
        let data = self.members[id].disk.data.as_ref()?;
        let (standby, crashed) = (data.standby_signal, data.control.state != ClusterState::ShutDown);
        let server = Server {
            epoch,
            phase: Phase::Starting,
            primary: !standby,
            promoting: false,
            frozen: false,
            deaf: false,
            held: VecDeque::new(),
            pending: Pending::default(),
            busy: false,
            insert: data.end,
            sync: data.conf.sync.clone(),
            shown: data.conf.sync.clone(),
            waiting: Vec::new(),
            upstream: data.conf.upstream,
            shown_upstream: data.conf.upstream,
            slot: data.conf.slot.clone(),
            receiver: None,
            attempt: 0,
            senders: Vec::new(),
        };
        self.members[id].server = Some(server);
        self.note(|w| format!("{}     postgres starts as {}", w.members[id].name, if standby { "standby" } else { "primary" }));
        let most = if crashed { 1500 * MILLI } else { 300 * MILLI };
        let takes = self.between(30 * MILLI, most) * self.schedule.slow_start;
        self.in_server(id, epoch, takes, move |w| w.server_is_up(id, epoch));
        Some(epoch)
    }

    fn server_is_up(&mut self, id: Id, epoch: u64) {
        let Some(server) = self.server(id, epoch).filter(|s| s.phase == Phase::Starting) else { return };
        server.phase = Phase::Up;
        let primary = server.primary;
        let identity = self.data(id).identity;
        if primary {
            let place = self.data(id).place();
            // Somebody else has written this timeline: from here on there are two of the same number.
            if *self.promises.writers.entry(place.branch).or_insert(identity) != identity {
                let timeline = self.timeline(id);
                let branch = self.wal.fork(place, timeline);
                self.promises.writers.insert(branch, identity);
                self.data_mut(id).branch = branch;
            }
            let data = self.data_mut(id);
            data.control.state = ClusterState::InProduction;
            data.control.min_recovery = None;
            data.backup_label = false;
            self.begins_to_write(id, epoch);
        } else {
            let data = self.data_mut(id);
            data.control.state = ClusterState::InArchiveRecovery;
            data.backup_label = false;
            self.stream_soon(id, epoch, 0);
        }
        self.note(|w| format!("{}     postgres is up at {:?}", w.members[id].name, w.data(id).place()));
        self.wake_agent(id);
    }

    fn begins_to_write(&mut self, id: Id, epoch: u64) {
        self.check_writer(id);
        self.client_writes_soon(id, epoch);
        self.checkpoint_some_time(id, epoch);
    }

    fn checkpoint_some_time(&mut self, id: Id, epoch: u64) {
        let pause = self.between(10 * SECOND, 40 * SECOND);
        self.in_server(id, epoch, pause, move |w| {
            if w.server(id, epoch).is_some_and(|s| s.writes()) {
                w.checkpoint(id);
                w.checkpoint_some_time(id, epoch);
            }
        });
    }

    /// Where the checkpoint that is complete here had begun: some have been written for so long that a crash leaves much to replay.
    fn redo(&self, id: Id, checkpoint: Lsn) -> Lsn {
        let long = (self.schedule.seed ^ checkpoint.0 ^ id as u64) & 1 == 0;
        Lsn(checkpoint.0 - if long { 64 << 20 } else { 0 })
    }

    /// A checkpoint: the control file names the present timeline from now on.
    pub fn checkpoint(&mut self, id: Id) {
        let Some(epoch) = self.members[id].server.as_ref().filter(|s| s.writes()).map(|s| s.epoch) else { return };
        let timeline = self.timeline(id);
        let start = self.members[id].server.as_ref().map_or(Lsn(0), |s| s.insert);
        if let Some(server) = self.server(id, epoch) {
            server.insert = Lsn(start.0 + CHECKPOINT);
        }
        let redo = self.redo(id, start);
        let data = self.data_mut(id);
        data.end = Lsn(start.0 + CHECKPOINT);
        data.control.checkpoint = start;
        data.control.redo = redo;
        data.control.checkpoint_timeline = timeline;
        self.send_wal(id, epoch);
    }

    /// Begins a promotion; it goes on whatever becomes of whoever asked for it.
    pub fn promote(&mut self, id: Id) -> bool {
        let Some(server) = self.members[id].server.as_mut().filter(|s| s.phase == Phase::Up && !s.primary && !s.deaf && !s.frozen) else {
            return false;
        };
        if std::mem::replace(&mut server.promoting, true) {
            return true;
        }
        let epoch = server.epoch;
        self.stop_streaming(id, epoch);
        let takes = self.between(40 * MILLI, 250 * MILLI) * self.schedule.slow_promote;
        self.in_server(id, epoch, takes, move |w| w.promoted(id, epoch));
        true
    }

    fn promoted(&mut self, id: Id, epoch: u64) {
        if self.server(id, epoch).is_none_or(|s| s.phase != Phase::Up) {
            return;
        }
        let (place, present) = (self.data(id).place(), self.timeline(id));
        let mut timeline = Timeline(present.0 + 1);
        while self.data(id).histories.contains(&timeline.0) || self.data(id).places.contains(&timeline.0) {
            timeline.0 += 1;
        }
        let identity = self.data(id).identity;
        let branch = self.wal.fork(place, timeline);
        self.promises.writers.insert(branch, identity);
        let end = Lsn(place.lsn.0 + 80);
        let data = self.data_mut(id);
        data.branch = branch;
        data.end = end;
        data.histories.insert(timeline.0);
        data.standby_signal = false;
        data.control.state = ClusterState::InProduction;
        data.control.min_recovery = None;
        self.drop_senders(id);
        if let Some(server) = self.server(id, epoch) {
            (server.primary, server.promoting, server.insert) = (true, false, end);
        }
        self.note(|w| format!("{}     promoted: timeline {timeline} from {:?}", w.members[id].name, place));
        self.check_promotion(id, branch);
        self.begins_to_write(id, epoch);
    }

    /// The end of a clean stop.
    pub fn standby_shut_down(&mut self, id: Id, epoch: u64) {
        if self.server(id, epoch).is_none() {
            return;
        }
        let timeline = self.timeline(id);
        let data = self.data_mut(id);
        data.control.state = ClusterState::ShutDownInRecovery;
        data.control.min_recovery = Some((data.end, timeline));
        self.end_server(id, epoch);
    }

    /// The last checkpoint of a clean stop.
    pub fn shutdown_checkpoint(&mut self, id: Id, epoch: u64) {
        let Some(server) = self.server(id, epoch) else { return };
        let start = server.insert;
        server.insert = Lsn(start.0 + CHECKPOINT);
        let timeline = self.timeline(id);
        let redo = self.redo(id, start);
        let data = self.data_mut(id);
        data.end = Lsn(start.0 + CHECKPOINT);
        data.control.checkpoint = start;
        data.control.redo = redo;
        data.control.checkpoint_timeline = timeline;
        self.send_wal(id, epoch);
        self.wait_for_senders(id, epoch);
    }

    /// A clean shutdown lets the connected standbys confirm everything first.
    fn wait_for_senders(&mut self, id: Id, epoch: u64) {
        let end = self.data(id).end;
        let Some(server) = self.server(id, epoch) else { return };
        if server.senders.iter().any(|s| s.flush < end) {
            return self.in_server(id, epoch, 10 * MILLI, move |w| w.wait_for_senders(id, epoch));
        }
        self.data_mut(id).control.state = ClusterState::ShutDown;
        self.end_server(id, epoch);
    }

    /// Every process of the server is gone. What was not on disk is lost, and whoever waited knows nothing.
    pub fn end_server(&mut self, id: Id, epoch: u64) {
        if self.server(id, epoch).is_none() {
            return;
        }
        self.note(|w| format!("{}     postgres is gone", w.members[id].name));
        self.hang_up(id);
        self.members[id].server = None;
        if let Some(data) = &mut self.members[id].disk.data
            && data.control.state == ClusterState::InArchiveRecovery
            && data.control.min_recovery.is_none()
        {
            // The control file of a standby that crashed lags behind what it has received.
            let timeline = self.wal.branches[data.branch].timeline;
            data.control.min_recovery = Some((Lsn(data.end.0.saturating_sub(400)), timeline));
        }
        self.postmaster_ended(id, ServerEnd { epoch });
    }

    /// SIGKILL to everything.
    pub fn kill_server(&mut self, id: Id) {
        if let Some(epoch) = self.members[id].server.as_ref().map(|s| s.epoch) {
            self.end_server(id, epoch);
        }
    }

    /// What a session is told; `None`: nobody answers.
    pub fn facts(&self, id: Id) -> Option<ServerFacts> {
        let server = self.members[id].server.as_ref().filter(|s| s.phase == Phase::Up && !s.frozen && !s.deaf)?;
        let data = self.data(id);
        let position = data.end;
        let standbys = server.senders.iter().map(|s| StandbyFacts {
            application_name: self.members[s.standby].name.to_string(),
            usename: String::new(),
            client_addr: None,
            state: if s.streaming { "streaming" } else { "catchup" }.to_owned(),
            sync_state: String::new(),
            sync_priority: i32::from(s.sync.names.contains(self.members[s.standby].name.as_str())),
            flush_lsn: Some(s.flush),
        });
        Some(ServerFacts {
            in_recovery: !server.primary,
            system_id: data.control.system_id,
            data_directory: String::new(),
            version: 170_000,
            started: String::new(),
            timeline: self.timeline(id),
            position,
            received: (!server.primary).then_some(position),
            replayed: (!server.primary).then_some(position),
            replayed_at: None,
            replay_paused: false,
            streaming: server.receiver.as_ref().is_some_and(|r| r.streaming),
            receiver: None,
            primary_conninfo: server.shown_upstream.map_or_else(String::new, |u| self.members[u].name.to_string()),
            synchronous_standby_names: server.shown.render(),
            standbys: standbys.collect(),
            slots: data.slots.iter().map(|slot| (slot.clone(), Default::default())).collect(),
            has_archive: false,
            decodes: false,
            logical_slots: Default::default(),
        })
    }

    /// The timelines before `timeline`, as far as this directory has its history file.
    pub fn lineage(&self, data: &Data, timeline: Timeline) -> Option<Vec<HistoryLine>> {
        if timeline <= Timeline(1) {
            return Some(Vec::new());
        }
        let mut at = data.branch;
        while self.wal.branches[at].timeline != timeline {
            at = self.wal.branches[at].parent?.0;
        }
        data.histories.contains(&timeline.0).then(|| self.wal.history(at))
    }

    /// What a directory without a server shows.
    pub fn stopped(&self, id: Id) -> Option<StoppedData> {
        let disk = &self.members[id].disk;
        let data = disk.data.as_ref()?;
        Some(StoppedData {
            past: self.lineage(data, data.control.timeline()),
            control: data.control.clone(),
            standby_signal: data.standby_signal,
            half_rewound: disk.rewinding,
            fresh_copy: data.backup_label,
        })
    }

    /// What a running server says of its history over a replication connection.
    pub fn origin(&self, id: Id) -> Option<Origin> {
        let server = self.members[id].server.as_ref().filter(|s| s.phase == Phase::Up && !s.frozen && !s.deaf)?;
        let (_, data) = (server, self.data(id));
        Some(Origin { system_id: data.control.system_id, timeline: self.timeline(id), history: self.wal.history(data.branch) })
    }
}
