//! Streaming: receivers, senders, the connections between them, and commits that wait for standbys.

use std::collections::VecDeque;

use spilo::{agent::action::PgSync, model::Lsn};

use crate::{
    postgres_model::{Phase, Waiting},
    wal::{BranchId, Place},
    world::{Id, MICRO, MILLI, Nanos, SECOND, World},
};

/// `wal_retrieve_retry_interval`.
const RETRY: Nanos = 100 * MILLI;

/// `connect_timeout`.
const CONNECT: Nanos = 3 * SECOND;

/// `wal_sender_timeout` and `wal_receiver_timeout`.
const SILENCE: Nanos = 10 * SECOND;

/// Commits that wait at the same time, at most: then the clients wait too.
const CLIENTS: usize = 6;

/// A standby's receiver.
pub struct Receiver {
    pub connection: u64,
    pub streaming: bool,
}

/// The process of a server that sends to one standby.
pub struct Sender {
    pub connection: u64,
    pub standby: Id,
    /// `synchronous_standby_names` as this process has read it.
    pub sync: PgSync,
    pub flush: Lsn,
    pub caught_up_at: Lsn,
    pub streaming: bool,
    pub slot: Option<String>,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Message {
    /// Everything up to here, on the server's branch.
    Wal(BranchId, Lsn),
    /// The standby has this on disk.
    Flushed(Lsn),
    /// The other side has hung up.
    End,
}

/// A TCP connection between two lives of two servers.
pub struct Connection {
    pub standby: (Id, u64),
    pub server: (Id, u64),
    /// Arrival of the last message in each direction: the next cannot overtake it.
    last: [Nanos; 2],
    stalled: VecDeque<(bool, Message)>,
    doubted: bool,
}

impl World {
    /// Ends this server's receiver.
    pub fn stop_streaming(&mut self, id: Id, epoch: u64) {
        let Some(server) = self.server(id, epoch) else { return };
        server.attempt += 1;
        if let Some(receiver) = server.receiver.take() {
            self.send(receiver.connection, true, Message::End);
        }
    }

    /// The startup process takes in where to stream from.
    pub fn take_upstream(&mut self, id: Id, epoch: u64) {
        let conf = self.data(id).conf.clone();
        let Some(server) = self.server(id, epoch) else { return };
        if server.primary || server.promoting || (server.upstream == conf.upstream && server.slot == conf.slot) {
            return;
        }
        (server.upstream, server.slot) = (conf.upstream, conf.slot);
        self.stop_streaming(id, epoch);
        self.stream_soon(id, epoch, 2 * MILLI);
    }

    /// Tries to connect after a while, unless something else has been begun meanwhile.
    pub fn stream_soon(&mut self, id: Id, epoch: u64, pause: Nanos) {
        let Some(server) = self.server(id, epoch) else { return };
        server.attempt += 1;
        let attempt = server.attempt;
        self.in_server(id, epoch, pause, move |w| w.connect(id, epoch, attempt));
    }

    fn connect(&mut self, id: Id, epoch: u64, attempt: u64) {
        let Some(server) = self.server(id, epoch) else { return };
        if server.attempt != attempt || server.receiver.is_some() || server.phase != Phase::Up || server.primary || server.promoting {
            return;
        }
        let Some(upstream) = server.upstream.filter(|u| *u != id) else { return };
        if server.deaf {
            // Nobody is there to start the receiver.
            return self.stream_soon(id, epoch, RETRY);
        }
        let travel = self.travel() + self.travel();
        let silent = !self.connected(id, upstream) || self.members[upstream].server.as_ref().is_some_and(|s| s.frozen || s.deaf);
        if silent {
            return self.stream_soon(id, epoch, CONNECT);
        }
        self.in_server(id, epoch, travel, move |w| {
            if w.server(id, epoch).is_none_or(|s| s.attempt != attempt) {
                return;
            }
            match w.accepts(id, upstream) {
                Some(from) => w.open(id, epoch, upstream, from),
                None => w.stream_soon(id, epoch, RETRY),
            }
        });
    }

    /// Whether the upstream would send WAL to this standby, as PostgreSQL sees it: by numbers.
    fn accepts(&self, id: Id, upstream: Id) -> Option<Place> {
        let server = self.members[upstream].server.as_ref().filter(|s| s.phase == Phase::Up && !s.frozen && !s.deaf && !s.promoting)?;
        let (mine, theirs) = (self.data(id), self.data(upstream));
        if mine.control.system_id != theirs.control.system_id {
            return None;
        }
        if let Some(slot) = &self.members[id].server.as_ref()?.slot
            && (!theirs.slots.contains(slot) || server.senders.iter().any(|s| s.slot.as_ref() == Some(slot)))
        {
            return None;
        }
        let (my_timeline, their_timeline) = (self.timeline(id), self.timeline(upstream));
        if my_timeline == their_timeline {
            return (mine.end <= theirs.end).then(|| theirs.place());
        }
        let line = self.wal.history(theirs.branch).into_iter().find(|line| line.timeline == my_timeline)?;
        (mine.end <= line.switch).then(|| theirs.place())
    }

    fn open(&mut self, id: Id, epoch: u64, upstream: Id, from: Place) {
        let mine = self.data(id).place();
        self.check_stream(id, upstream, mine, from);
        let connection = self.next();
        let server_epoch = self.members[upstream].server.as_ref().map_or(0, |s| s.epoch);
        let link = Connection {
            standby: (id, epoch),
            server: (upstream, server_epoch),
            last: [self.now; 2],
            stalled: VecDeque::new(),
            doubted: false,
        };
        self.connections.insert(connection, link);
        let sync = self.data(upstream).conf.sync.clone();
        let slot = self.server(id, epoch).and_then(|server| {
            server.receiver = Some(Receiver { connection, streaming: true });
            server.slot.clone()
        });
        if let Some(server) = self.server(upstream, server_epoch) {
            server.senders.push(Sender { connection, standby: id, sync, flush: mine.lsn, caught_up_at: from.lsn, streaming: false, slot });
        }
        let histories = self.data(upstream).histories.clone();
        let data = self.data_mut(id);
        data.histories.extend(histories);
        data.streamed = true;
        self.note(|w| format!("{}     streams from {}", w.members[id].name, w.members[upstream].name));
        self.counters.event("standby streams");
        self.send(connection, false, Message::Wal(from.branch, from.lsn));
    }

    /// Sends what is on disk to every standby.
    pub fn send_wal(&mut self, id: Id, epoch: u64) {
        let place = self.data(id).place();
        let Some(server) = self.server(id, epoch) else { return };
        let connections: Vec<u64> = server.senders.iter().map(|s| s.connection).collect();
        for connection in connections {
            self.send(connection, false, Message::Wal(place.branch, place.lsn));
        }
    }

    /// Sends a message; `up`: from the standby to the server.
    fn send(&mut self, connection: u64, up: bool, message: Message) {
        let travel = self.travel();
        let Some(link) = self.connections.get_mut(&connection) else { return };
        let (from, to) = if up { (link.standby.0, link.server.0) } else { (link.server.0, link.standby.0) };
        let passes = self.net.passes(from, to) && self.members[to].host_up && self.members[from].host_up;
        if !passes || link.stalled.iter().any(|(way, _)| *way == up) {
            link.stalled.push_back((up, message));
            return self.doubt(connection);
        }
        let arrives = (self.now + travel).max(link.last[usize::from(up)]);
        link.last[usize::from(up)] = arrives;
        let (id, epoch) = if up { link.server } else { link.standby };
        self.at(arrives, move |w| w.now_in_server(id, epoch, move |w| w.receive(connection, id, epoch, message)));
    }

    /// A connection over which nothing comes any more is given up, after a while.
    fn doubt(&mut self, connection: u64) {
        let Some(link) = self.connections.get_mut(&connection) else { return };
        if std::mem::replace(&mut link.doubted, true) {
            return;
        }
        self.after(SILENCE, move |w| {
            let Some(link) = w.connections.get_mut(&connection) else { return };
            link.doubted = false;
            let (standby, server) = (link.standby.0, link.server.0);
            if !w.connected(standby, server) {
                w.close(connection, true);
                w.close(connection, false);
                w.connections.remove(&connection);
            }
        });
    }

    /// The network or a host has changed: what was held back goes on, what is silent comes into doubt.
    pub fn review_connections(&mut self) {
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for connection in all {
            let Some(link) = self.connections.get_mut(&connection) else { continue };
            let (standby, server) = (link.standby.0, link.server.0);
            if !self.connected(standby, server) {
                self.doubt(connection);
                continue;
            }
            let stalled = self.connections.get_mut(&connection).map(|l| std::mem::take(&mut l.stalled)).unwrap_or_default();
            for (up, message) in stalled {
                self.send(connection, up, message);
            }
        }
    }

    fn receive(&mut self, connection: u64, id: Id, epoch: u64, message: Message) {
        match message {
            Message::Wal(branch, end) => {
                if self.server(id, epoch).is_none_or(|s| s.receiver.as_ref().is_none_or(|r| r.connection != connection)) {
                    return;
                }
                let disk = self.between(100 * MICRO, 3 * MILLI);
                self.in_server(id, epoch, disk, move |w| w.written(connection, id, epoch, Place { branch, lsn: end }));
            }
            Message::Flushed(end) => {
                let Some(server) = self.server(id, epoch) else { return };
                let Some(sender) = server.senders.iter_mut().find(|s| s.connection == connection) else { return };
                sender.flush = sender.flush.max(end);
                let news = !sender.streaming && end >= sender.caught_up_at;
                sender.streaming |= news;
                self.release(id, epoch, connection);
            }
            Message::End => {
                let standby = self.connections.get(&connection).is_some_and(|l| l.standby == (id, epoch));
                self.close(connection, standby);
                self.connections.remove(&connection);
            }
        }
    }

    /// The standby has it on disk.
    fn written(&mut self, connection: u64, id: Id, epoch: u64, place: Place) {
        // Whoever has been told to stream from elsewhere, or to promote, does not take in what still came.
        if self.server(id, epoch).is_none_or(|s| s.receiver.as_ref().is_none_or(|r| r.connection != connection)) {
            return;
        }
        let data = self.data(id);
        if place.lsn > data.end || place.branch != data.branch {
            let branch = self.wal.branch_at(place.branch, place.lsn);
            let data = self.data_mut(id);
            (data.branch, data.end) = (branch, place.lsn);
        }
        self.send(connection, true, Message::Flushed(place.lsn));
    }

    /// One side of a connection learns that it is over.
    fn close(&mut self, connection: u64, standby: bool) {
        let Some(link) = self.connections.get(&connection) else { return };
        let (id, epoch) = if standby { link.standby } else { link.server };
        let Some(server) = self.server(id, epoch) else { return };
        if !standby {
            server.senders.retain(|s| s.connection != connection);
        } else if server.receiver.as_ref().is_some_and(|r| r.connection == connection) {
            server.receiver = None;
            self.stream_soon(id, epoch, RETRY);
        }
    }

    /// The server's processes end: the other sides hear of it, where the network lets them.
    pub fn hang_up(&mut self, id: Id) {
        let ours: Vec<(u64, bool)> = self
            .connections
            .iter()
            .filter_map(|(c, l)| if l.standby.0 == id { Some((*c, true)) } else { (l.server.0 == id).then_some((*c, false)) })
            .collect();
        for (connection, up) in ours {
            self.send(connection, up, Message::End);
        }
    }

    /// The senders of a server end, and their standbys hear of it.
    pub fn drop_senders(&mut self, id: Id) {
        let Some(server) = &mut self.members[id].server else { return };
        for sender in std::mem::take(&mut server.senders) {
            self.send(sender.connection, false, Message::End);
        }
    }

    /// A client commits a row.
    pub fn commit(&mut self, id: Id, epoch: u64) {
        let size = self.between(60, 200);
        let disk = self.between(200 * MICRO, 3 * MILLI);
        let Some(server) = self.server(id, epoch).filter(|s| s.writes() && s.waiting.len() < CLIENTS) else { return };
        server.insert = Lsn(server.insert.0 + size);
        let end = server.insert;
        self.in_server(id, epoch, disk, move |w| {
            if w.server(id, epoch).is_none_or(|s| !s.writes()) {
                return;
            }
            let data = w.data_mut(id);
            data.end = data.end.max(end);
            w.send_wal(id, epoch);
            let Some(server) = w.server(id, epoch) else { return };
            if server.sync.names.is_empty() {
                w.acknowledged(id, end, false);
            } else {
                server.waiting.push(Waiting { end });
            }
        });
    }

    /// A commit that waits for nobody, as the agent makes one: its standbys report.
    pub fn commit_locally(&mut self, id: Id) {
        let Some(server) = self.members[id].server.as_mut().filter(|s| s.writes() && !s.frozen) else { return };
        server.insert = Lsn(server.insert.0 + 60);
        let (epoch, end) = (server.epoch, server.insert);
        let data = self.data_mut(id);
        data.end = data.end.max(end);
        self.send_wal(id, epoch);
    }

    /// Commits look at new names: with none, everybody who waits is let go.
    pub fn commits_look_at(&mut self, id: Id, epoch: u64, names: PgSync) {
        let Some(server) = self.server(id, epoch) else { return };
        server.sync = names;
        if server.sync.names.is_empty() && server.writes() {
            for waiting in std::mem::take(&mut server.waiting) {
                self.acknowledged(id, waiting.end, false);
            }
        }
        self.check_quorums(id);
    }

    /// A sender has heard of its standby: lets go whoever has waited for it, by the names that this very process knows.
    fn release(&mut self, id: Id, epoch: u64, connection: u64) {
        let names: Vec<String> = self.members.iter().map(|m| m.name.to_string()).collect();
        let Some(server) = self.server(id, epoch) else { return };
        let Some(sender) = server.senders.iter().find(|s| s.connection == connection) else { return };
        if !sender.sync.names.contains(&names[sender.standby]) || !sender.streaming || server.waiting.is_empty() {
            return;
        }
        let counts = |s: &&Sender| s.streaming && s.sync.names.contains(&names[s.standby]);
        let mut flushed: Vec<Lsn> = server.senders.iter().filter(counts).map(|s| s.flush).collect();
        let count = sender.sync.count.max(1) as usize;
        if flushed.len() < count {
            return;
        }
        flushed.sort_unstable_by(|a, b| b.cmp(a));
        let reached = flushed[count - 1];
        let (done, rest): (Vec<Waiting>, Vec<Waiting>) = std::mem::take(&mut server.waiting).into_iter().partition(|w| w.end <= reached);
        server.waiting = rest;
        if !done.is_empty() {
            self.check_distinct(id);
        }
        for waiting in done {
            self.acknowledged(id, waiting.end, true);
        }
    }

    /// The client beside a primary writes again and again.
    pub fn client_writes_soon(&mut self, id: Id, epoch: u64) {
        let pause = self.between(self.schedule.write_pause / 2, self.schedule.write_pause * 3 / 2);
        self.in_server(id, epoch, pause, move |w| {
            if w.server(id, epoch).is_some_and(|s| s.writes()) {
                w.commit(id, epoch);
                w.client_writes_soon(id, epoch);
            }
        });
    }
}
