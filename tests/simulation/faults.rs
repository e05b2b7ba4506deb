//! Everything that goes wrong, and everything that is done wrong.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use spilo::dcs::snapshot::FailoverKey;

use crate::{
    dcs_model::{Key, Value},
    world::{Id, MILLI, World},
};

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// Whoever holds the leader key then; else the first member.
    Leader,
    /// One of the others, counted from the leader.
    Standby(usize),
}

/// A process on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    Agent,
    Guard,
    /// The guard as a container's first process: everything ends with it.
    Container,
    Server,
    /// The postmaster only, not the sessions.
    Postmaster,
    Host,
}

/// One fault. Spans are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// It dies. What somebody else has to start again is down for that long.
    Crash(Who, What),
    /// It is off for a while.
    PowerOff {
        who: Who,
        span: u64,
    },
    /// It stops running and goes on later.
    Freeze {
        who: Who,
        what: What,
        span: u64,
    },
    /// No messages from or to it, the store included.
    Isolate {
        who: Who,
        span: u64,
    },
    /// No messages in one direction.
    OneWay {
        from: Who,
        to: Who,
        span: u64,
    },
    /// No messages between two members.
    Cut {
        a: Who,
        b: Who,
        span: u64,
    },
    /// No messages between a member and the store; `up`: its questions, `down`: their answers.
    CutFromStore {
        who: Who,
        up: bool,
        down: bool,
        span: u64,
    },
    /// Members see each other or not, again and again.
    Flap {
        a: Who,
        b: Who,
        period: u64,
        times: u64,
    },
    StoreDown {
        span: u64,
    },
    /// Requests or answers take long.
    StoreSlow {
        before: u64,
        after: u64,
        span: u64,
    },
    /// One message in so many is lost.
    StoreLossy {
        one_in: u32,
        span: u64,
    },
    /// The store has a new leader: all leases are extended.
    StoreElects,
    WatchLag {
        lag: u64,
        span: u64,
    },
    /// The store loses everything.
    Wipe,
    /// A standby's disk is empty.
    LoseDisk {
        who: usize,
    },
    /// Single messages are late.
    Straggle {
        late: u64,
        span: u64,
    },
    Switchover {
        candidate: Option<Who>,
    },
    SetSync {
        mode: String,
        count: u64,
        strict: bool,
    },
    SetTtl {
        ttl: u64,
    },
    Pause {
        span: u64,
    },
    RemoveMember {
        who: Who,
    },
    /// Somebody deletes the leader key.
    DropLeaderKey,
    /// The leader's machine is off for a while and comes back with an empty disk.
    LoseLeader {
        span: u64,
    },
}

/// How many kinds [`Fault::random`] knows. The others are for scenarios: one more here would change what every seed means.
pub const KINDS: u32 = 26;

/// Names of what a long run has to have seen.
pub const NAMES: &[&str] = &[
    "crash agent",
    "crash guard",
    "crash container",
    "crash server",
    "power off",
    "freeze agent",
    "freeze guard",
    "freeze server",
    "freeze postmaster",
    "freeze host",
    "isolate",
    "one way",
    "cut",
    "cut from store",
    "flap",
    "store down",
    "store slow",
    "store lossy",
    "store elects",
    "watch lag",
    "wipe",
    "lose disk",
    "straggle",
    "switchover",
    "set sync",
    "set ttl",
    "pause",
    "remove member",
    "drop leader key",
    "lose leader",
    "answer lost",
];

impl Fault {
    /// A fault of this kind.
    pub fn random(kind: u32, members: usize, ttl: u64, rng: &mut fastrand::Rng) -> Fault {
        let who = |rng: &mut fastrand::Rng| if rng.bool() { Who::Leader } else { Who::Standby(rng.usize(0..members)) };
        let lease = ttl * 1000;
        let span = |rng: &mut fastrand::Rng| match rng.u32(0..3) {
            0 => rng.u64(50..1_500),
            1 => rng.u64(500..lease),
            _ => rng.u64(lease / 2..lease * 2),
        };
        match kind {
            0 => Fault::Crash(who(rng), What::Agent),
            1 => Fault::Crash(who(rng), What::Guard),
            2 => Fault::Crash(who(rng), What::Container),
            3 | 4 => Fault::Crash(who(rng), What::Server),
            5 | 6 => Fault::PowerOff { who: who(rng), span: span(rng) },
            7 | 8 => Fault::Freeze { who: who(rng), what: What::Agent, span: span(rng) },
            9 => Fault::Freeze { who: who(rng), what: [What::Guard, What::Server, What::Postmaster][rng.usize(0..3)], span: span(rng) },
            10 => Fault::Freeze { who: who(rng), what: What::Host, span: span(rng) },
            11 => Fault::Isolate { who: who(rng), span: span(rng) },
            12 => Fault::OneWay { from: who(rng), to: who(rng), span: span(rng) },
            13 => Fault::Cut { a: who(rng), b: who(rng), span: span(rng) },
            14 => Fault::CutFromStore { who: who(rng), up: rng.bool(), down: true, span: span(rng) },
            15 => Fault::Flap { a: who(rng), b: who(rng), period: rng.u64(100..3000), times: rng.u64(2..8) },
            16 => Fault::StoreDown { span: span(rng) },
            17 => {
                Fault::StoreSlow { before: [0, 500, 2000, 6000][rng.usize(0..4)], after: [0, 500, 2000][rng.usize(0..3)], span: span(rng) }
            }
            18 => Fault::StoreLossy { one_in: rng.u32(2..12), span: span(rng) },
            19 => {
                if rng.bool() {
                    Fault::StoreElects
                } else {
                    Fault::WatchLag { lag: rng.u64(100..4000), span: span(rng) }
                }
            }
            20 => Fault::Wipe,
            21 => Fault::LoseDisk { who: rng.usize(0..members) },
            22 => Fault::Straggle { late: rng.u64(20..1500), span: span(rng) },
            23 => Fault::Switchover { candidate: rng.bool().then(|| who(rng)) },
            24 => match rng.u32(0..3) {
                0 => Fault::SetTtl { ttl: [3, 5, 10, 20][rng.usize(0..4)] },
                _ => Fault::SetSync {
                    mode: ["off", "on", "quorum", "quorum"][rng.usize(0..4)].to_owned(),
                    count: rng.u64(1..3),
                    strict: rng.u32(0..4) == 0,
                },
            },
            _ => {
                if rng.bool() {
                    Fault::Pause { span: span(rng) }
                } else {
                    Fault::RemoveMember { who: who(rng) }
                }
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Fault::Crash(_, What::Agent) => "crash agent",
            Fault::Crash(_, What::Guard) => "crash guard",
            Fault::Crash(_, What::Container) => "crash container",
            Fault::Crash(..) => "crash server",
            Fault::PowerOff { .. } => "power off",
            Fault::Freeze { what: What::Agent, .. } => "freeze agent",
            Fault::Freeze { what: What::Guard | What::Container, .. } => "freeze guard",
            Fault::Freeze { what: What::Server, .. } => "freeze server",
            Fault::Freeze { what: What::Postmaster, .. } => "freeze postmaster",
            Fault::Freeze { what: What::Host, .. } => "freeze host",
            Fault::Isolate { .. } => "isolate",
            Fault::OneWay { .. } => "one way",
            Fault::Cut { .. } => "cut",
            Fault::CutFromStore { .. } => "cut from store",
            Fault::Flap { .. } => "flap",
            Fault::StoreDown { .. } => "store down",
            Fault::StoreSlow { .. } => "store slow",
            Fault::StoreLossy { .. } => "store lossy",
            Fault::StoreElects => "store elects",
            Fault::WatchLag { .. } => "watch lag",
            Fault::Wipe => "wipe",
            Fault::LoseDisk { .. } => "lose disk",
            Fault::Straggle { .. } => "straggle",
            Fault::Switchover { .. } => "switchover",
            Fault::SetSync { .. } => "set sync",
            Fault::SetTtl { .. } => "set ttl",
            Fault::Pause { .. } => "pause",
            Fault::RemoveMember { .. } => "remove member",
            Fault::DropLeaderKey => "drop leader key",
            Fault::LoseLeader { .. } => "lose leader",
        }
    }
}

impl World {
    fn whom(&self, who: Who) -> Id {
        let leader = self.dcs.leader().and_then(|l| self.members.iter().position(|m| m.name.as_str() == l)).unwrap_or(0);
        match who {
            Who::Leader => leader,
            Who::Standby(n) => (leader + 1 + n % (self.members.len() - 1).max(1)) % self.members.len(),
        }
    }

    fn undo(&mut self, span: u64, effect: impl FnOnce(&mut World) + 'static) {
        self.after(span * MILLI, move |w| {
            // After the healing nothing is left to be undone.
            if !w.healed {
                effect(w);
            }
        });
    }

    /// A fault happens.
    pub fn inflict(&mut self, fault: &Fault) {
        self.note(|_| format!("------ {fault:?}"));
        self.counters.fault(fault.name());
        match fault.clone() {
            Fault::Crash(who, what) => self.crash(who, what),
            Fault::PowerOff { who, span } => {
                let id = self.whom(who);
                self.power_off(id);
                self.undo(span, move |w| w.power_on(id));
            }
            Fault::Freeze { who, what, span } => {
                let id = self.whom(who);
                self.freeze(id, what, true);
                self.undo(span, move |w| w.freeze(id, what, false));
            }
            Fault::Isolate { who, span } => {
                let id = self.whom(who);
                let pairs = (0..=self.members.len()).filter(|o| *o != id).flat_map(|o| [(id, o), (o, id)]).collect();
                self.cut_all(pairs, span);
            }
            Fault::OneWay { from, to, span } => self.cut_all(vec![(self.whom(from), self.whom(to))], span),
            Fault::Cut { a, b, span } => {
                let (a, b) = (self.whom(a), self.whom(b));
                self.cut_all(vec![(a, b), (b, a)], span);
            }
            Fault::CutFromStore { who, up, down, span } => {
                let (id, store) = (self.whom(who), self.net.store());
                let pairs = [(up, (id, store)), (down, (store, id))].into_iter().filter(|(wanted, _)| *wanted).map(|(_, p)| p).collect();
                self.cut_all(pairs, span);
            }
            Fault::Flap { a, b, period, times } => {
                let (a, b) = (self.whom(a), self.whom(b));
                for n in 0..times {
                    self.after(2 * n * period * MILLI, move |w| {
                        if !w.healed {
                            w.cut_all(vec![(a, b), (b, a)], period);
                        }
                    });
                }
            }
            other => self.hit_store_or_cluster(other),
        }
    }

    fn hit_store_or_cluster(&mut self, fault: Fault) {
        match fault {
            Fault::StoreDown { span } => {
                self.dcs.down += 1;
                self.undo(span, |w| {
                    w.dcs.down = w.dcs.down.saturating_sub(1);
                    w.extend_leases();
                });
            }
            Fault::StoreSlow { before, after, span } => {
                (self.dcs.slow_before, self.dcs.slow_after) = (before * MILLI, after * MILLI);
                self.undo(span, |w| (w.dcs.slow_before, w.dcs.slow_after) = (0, 0));
            }
            Fault::StoreLossy { one_in, span } => {
                self.dcs.loss = one_in;
                self.undo(span, |w| w.dcs.loss = 0);
            }
            Fault::StoreElects => self.extend_leases(),
            Fault::WatchLag { lag, span } => {
                self.dcs.watch_lag = lag * MILLI;
                self.undo(span, |w| w.dcs.watch_lag = 0);
            }
            Fault::Wipe => self.wipe_store(),
            Fault::LoseDisk { who } => self.lose_disk(who),
            Fault::Straggle { late, span } => {
                (self.net.stragglers, self.net.straggle) = (20, late * MILLI);
                self.undo(span, |w| w.net.stragglers = 0);
            }
            Fault::Switchover { candidate } => {
                let leader = self.dcs.leader().map(str::to_owned);
                let member = candidate.map(|c| self.members[self.whom(c)].name.to_string());
                let request = FailoverKey { leader, member, scheduled_at: None };
                self.put(usize::MAX, Key::Failover, Value::Failover(request), 0);
            }
            Fault::SetSync { mode, count, strict } => {
                if mode == "off" {
                    self.forgive();
                }
                self.patch(&[
                    ("synchronous_mode", json!(mode)),
                    ("synchronous_node_count", json!(count)),
                    ("synchronous_mode_strict", json!(strict)),
                ]);
            }
            Fault::SetTtl { ttl } => {
                self.patch(&[("ttl", json!(ttl)), ("loop_wait", json!(1)), ("retry_timeout", json!((ttl - 1) / 2))]);
            }
            Fault::Pause { span } => {
                self.patch(&[("pause", json!(true))]);
                self.undo(span, |w| w.patch(&[("pause", json!(false))]));
            }
            Fault::RemoveMember { who } => {
                let name = self.members[self.whom(who)].name.clone();
                self.delete(&Key::Member(name));
            }
            Fault::DropLeaderKey => self.delete(&Key::Leader),
            Fault::LoseLeader { span } => {
                let id = self.whom(Who::Leader);
                if self.members[id].disk.data.is_none() || !self.could_lead_without(id) {
                    return;
                }
                self.power_off(id);
                self.empty_disk(id);
                self.undo(span, move |w| w.power_on(id));
            }
            _ => unreachable!("hit before"),
        }
    }

    /// Changes the dynamic configuration, where there is one.
    pub fn patch(&mut self, changes: &[(&str, Json)]) {
        let Some(mut config) = self.dcs.config().cloned() else { return };
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        self.put(usize::MAX, Key::Config, Value::Config(config.into()), 0);
    }

    fn crash(&mut self, who: Who, what: What) {
        let id = self.whom(who);
        match what {
            What::Agent => {
                if self.members[id].agent.alive {
                    self.agent_ended(id);
                }
            }
            What::Guard | What::Container => {
                self.kill_guard(id, what == What::Container);
                let down = self.between(100 * MILLI, 6_000 * MILLI);
                self.after(down, move |w| w.start_guard(id));
            }
            _ => self.kill_server(id),
        }
    }

    fn freeze(&mut self, id: Id, what: What, frozen: bool) {
        match what {
            What::Agent => self.freeze_agent(id, frozen),
            What::Guard | What::Container => {
                self.promises.unguarded = true;
                self.freeze_guard(id, frozen);
            }
            What::Server => self.freeze_server(id, frozen),
            What::Postmaster => self.freeze_postmaster(id, frozen),
            What::Host => {
                // Whichever process runs first after that, nobody can say.
                self.promises.unguarded = true;
                let server_first = self.rng.bool();
                if server_first {
                    self.freeze_server(id, frozen);
                }
                self.freeze_agent(id, frozen);
                self.freeze_guard(id, frozen);
                if !server_first {
                    self.freeze_server(id, frozen);
                }
            }
        }
    }

    fn cut_all(&mut self, pairs: Vec<(usize, usize)>, span: u64) {
        for (from, to) in pairs.iter().filter(|(from, to)| from != to) {
            self.net.cut(*from, *to);
        }
        self.review_connections();
        self.undo(span, move |w| {
            for (from, to) in pairs.iter().filter(|(from, to)| from != to) {
                w.net.mend(*from, *to);
            }
            w.review_connections();
            w.rewatch();
        });
    }

    fn lose_disk(&mut self, who: usize) {
        let id = self.whom(Who::Standby(who));
        let others = (0..self.members.len()).filter(|o| *o != id && self.members[*o].disk.data.is_some()).count();
        let writes = self.members[id].server.as_ref().is_some_and(|s| s.primary || s.promoting);
        if others < 2 || writes || self.members[id].server.is_none() || !self.could_lead_without(id) {
            return;
        }
        self.kill_server(id);
        if self.members[id].agent.alive {
            self.agent_ended(id);
        }
        self.empty_disk(id);
    }

    fn empty_disk(&mut self, id: Id) {
        self.members[id].disk = Default::default();
        self.members[id].join_only = true;
        // What nobody holds any more cannot be asked for.
        let held = |w: &World, b: usize, l| {
            let part = crate::wal::Place { branch: b, lsn: l };
            w.members.iter().filter_map(|m| m.disk.data.as_ref()).any(|d| w.wal.contains(d.place(), part))
        };
        let gone: Vec<usize> = self.wal.promised.iter().filter(|(b, l)| !held(self, **b, **l)).map(|(b, _)| *b).collect();
        for branch in gone {
            self.wal.promised.remove(&branch);
        }
    }

    /// Whether somebody could lead, as far as the voters say, if this member's data were gone: the last leader, or enough voters to elect. When
    /// more copies are lost than that, nobody may be elected ever again, and an operator has to say what is given up.
    fn could_lead_without(&self, id: Id) -> bool {
        let sync = self.dcs.last_sync();
        let holds = |name: &str| {
            self.members.iter().enumerate().any(|(o, m)| o != id && m.name.as_str() == name && m.disk.data.is_some() && !m.disk.rewinding)
        };
        let voters = sync.voters.iter().filter(|name| holds(name)).count();
        !sync.is_active() || sync.leader.as_deref().is_some_and(holds) || voters > sync.quorum as usize
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        self.note(|_| "====== everything is healed".to_owned());
        self.healed = true;
        self.net.mend_all();
        self.net.stragglers = 0;
        self.dcs.down = 0;
        (self.dcs.slow_before, self.dcs.slow_after, self.dcs.loss, self.dcs.watch_lag) = (0, 0, 0, 0);
        self.extend_leases();
        for id in 0..self.members.len() {
            self.freeze_agent(id, false);
            self.freeze_guard(id, false);
            self.freeze_postmaster(id, false);
            self.freeze_server(id, false);
            if !self.members[id].host_up {
                self.power_on(id);
            }
        }
        // Whoever has paused the cluster ends that, also when nobody but the members remembers it.
        if let Some(mut config) = self.dcs.paused_config() {
            config["pause"] = json!(false);
            self.put(usize::MAX, Key::Config, Value::Config(config.into()), 0);
        }
        self.review_connections();
    }
}
