//! What reaches a server from outside: being stopped and resumed as a process, and the signals that it is told by to reload and to end. One
//! that comes while the postmaster is stopped is not lost: the kernel keeps it until the postmaster goes on.

use crate::{
    postgres_model::Phase,
    world::{Id, MILLI, World},
};

/// The signals that a stopped postmaster will find.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pending {
    reload: bool,
    /// `true`: cleanly.
    stop: Option<bool>,
}

impl World {
    /// Stops or resumes all processes of a server.
    pub fn freeze_server(&mut self, id: Id, frozen: bool) {
        let Some(server) = &mut self.members[id].server else { return };
        let epoch = server.epoch;
        server.frozen = frozen;
        if frozen {
            return;
        }
        for effect in std::mem::take(&mut server.held) {
            self.now_in_server(id, epoch, effect);
        }
        self.take_signals(id);
    }

    /// Stops or resumes the postmaster alone.
    pub fn freeze_postmaster(&mut self, id: Id, frozen: bool) {
        let Some(server) = &mut self.members[id].server else { return };
        server.deaf = frozen;
        self.take_signals(id);
    }

    /// The postmaster looks at its signals, if it runs: at a request to end first.
    fn take_signals(&mut self, id: Id) {
        let Some(server) = self.members[id].server.as_mut().filter(|s| !s.frozen && !s.deaf) else { return };
        let pending = std::mem::take(&mut server.pending);
        if let Some(fast) = pending.stop {
            self.stop_server(id, fast);
        }
        if pending.reload {
            self.reload(id);
        }
    }

    /// Stops a server as `pg_ctl stop` would; `fast`: cleanly.
    pub fn stop_server(&mut self, id: Id, fast: bool) {
        let Some(server) = self.members[id].server.as_mut() else { return };
        if server.frozen || server.deaf {
            server.pending.stop = Some(fast && server.pending.stop.unwrap_or(true));
            return;
        }
        let (epoch, primary, was) = (server.epoch, server.primary, server.phase);
        if !fast {
            let takes = self.between(3 * MILLI, 60 * MILLI);
            return self.in_server(id, epoch, takes, move |w| w.end_server(id, epoch));
        }
        if was != Phase::Up {
            let takes = self.between(5 * MILLI, 100 * MILLI);
            return self.in_server(id, epoch, takes, move |w| w.end_server(id, epoch));
        }
        server.phase = Phase::Stopping;
        server.waiting.clear();
        let takes = self.between(10 * MILLI, 200 * MILLI);
        self.in_server(id, epoch, takes, move |w| if primary { w.shutdown_checkpoint(id, epoch) } else { w.standby_shut_down(id, epoch) });
    }

    /// The server reads its configuration again: each process in its own time.
    pub fn reload(&mut self, id: Id) {
        let Some(server) = self.members[id].server.as_mut() else { return };
        if server.frozen || server.deaf {
            server.pending.reload = true;
            return;
        }
        let epoch = server.epoch;
        let connections: Vec<u64> = server.senders.iter().map(|s| s.connection).collect();
        // Sessions and senders read it within moments. The checkpointer, which tells commits whether to wait, may be busy for longer.
        let quick = self.between(0, 4 * MILLI);
        self.in_server(id, epoch, quick, move |w| {
            let conf = w.data(id).conf.clone();
            if let Some(server) = w.server(id, epoch) {
                (server.shown, server.shown_upstream) = (conf.sync, conf.upstream);
            }
        });
        let busy = self.one_in(4);
        let most = if busy { self.schedule.slow_reload } else { 4 * MILLI };
        let takes = self.between(0, most);
        if let Some(server) = self.server(id, epoch) {
            server.busy |= busy;
        }
        self.in_server(id, epoch, takes, move |w| {
            if let Some(server) = w.server(id, epoch) {
                server.busy = false;
            }
            let names = w.data(id).conf.sync.clone();
            w.commits_look_at(id, epoch, names);
        });
        let takes = self.between(0, 4 * MILLI);
        self.in_server(id, epoch, takes, move |w| w.take_upstream(id, epoch));
        for connection in connections {
            let takes = self.between(0, 4 * MILLI);
            self.in_server(id, epoch, takes, move |w| {
                let names = w.data(id).conf.sync.clone();
                if let Some(sender) = w.server(id, epoch).and_then(|s| s.senders.iter_mut().find(|s| s.connection == connection)) {
                    sender.sync = names;
                }
                w.check_quorums(id);
            });
        }
    }
}
