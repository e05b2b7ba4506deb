//! The world: time, events, members, and what they share. Everything that happens is an event at a moment; equal moments keep their order.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use spilo::{model::MemberName, spec::settings::Settings, sys::clock::Moment};

use crate::{
    agent::AgentProcess,
    counters::Counters,
    dcs_model::Store,
    exec::{Process, TaskId},
    guard_model::Guard,
    invariants::Promises,
    mutations::Mutation,
    network::Network,
    postgres_model::{Disk, Server},
    replication::Connection,
    schedule::Schedule,
    wal::Wal,
};

/// A member's number.
pub type Id = usize;

/// Nanoseconds since the world began.
pub type Nanos = u64;

pub const MICRO: Nanos = 1_000;
pub const MILLI: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;

/// Something that happens.
pub type Effect = Box<dyn FnOnce(&mut World)>;

struct Event {
    at: Nanos,
    order: u64,
    effect: Effect,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.order == other.order
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    /// The earliest is the greatest: the heap gives the greatest first.
    fn cmp(&self, other: &Event) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// A clock that starts somewhere and runs a little too fast or too slow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    pub offset: Nanos,
    /// Parts per million.
    pub error: i64,
}

impl Clock {
    fn read(self, now: Nanos) -> Moment {
        let drift = i128::from(now) * i128::from(self.error) / 1_000_000;
        Moment(u64::try_from(i128::from(self.offset) + i128::from(now) + drift).expect("offsets outweigh drifts"))
    }

    /// How long `span` on this clock really lasts.
    pub fn real(self, span: Nanos) -> Nanos {
        u64::try_from(u128::from(span) * 1_000_000 / u128::try_from(1_000_000 + self.error).expect("small errors")).expect("short spans")
    }
}

/// One host and what runs on it.
pub struct Member {
    pub name: MemberName,
    pub clock: Clock,
    pub agent: AgentProcess,
    pub guard: Guard,
    pub disk: Disk,
    pub server: Option<Server>,
    pub host_up: bool,
    /// Made anew in a cluster that was healthy once: it never initialises one.
    pub join_only: bool,
}

/// Everything.
pub struct World {
    pub now: Nanos,
    order: u64,
    queue: BinaryHeap<Event>,
    pub rng: fastrand::Rng,
    pub ready: VecDeque<TaskId>,
    /// Members whose agent is to be started.
    pub births: Vec<Id>,
    pub killed: Vec<Process>,
    pub members: Vec<Member>,
    pub net: Network,
    pub dcs: Store,
    pub wal: Wal,
    pub connections: BTreeMap<u64, Connection>,
    pub promises: Promises,
    pub counters: Counters,
    pub mutation: Option<Mutation>,
    pub schedule: Schedule,
    /// Numbers that are never used twice.
    pub unique: u64,
    pub trace: Trace,
    /// Faults are over: clients and everybody else should do well from now on.
    pub healed: bool,
}

/// What happened, in words where somebody wants to read it, and in a number that tells two histories apart.
#[derive(Default)]
pub struct Trace {
    pub wanted: bool,
    pub lines: VecDeque<String>,
    pub hash: u64,
}

/// Lines of a trace that are kept.
const KEPT: usize = 20_000;

impl World {
    /// A world as the schedule has it, with nothing running yet.
    pub fn new(schedule: Schedule, mutation: Option<Mutation>, traced: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(schedule.seed);
        let members = (0..schedule.members)
            .map(|i| Member {
                name: format!("n{}", i + 1).parse().expect("a plain name"),
                clock: Clock { offset: SECOND * 1000 + rng.u64(0..SECOND * 5000), error: schedule.clock_error * rng.i64(-100..=100) / 100 },
                agent: AgentProcess::default(),
                guard: Guard::default(),
                disk: Disk::default(),
                server: None,
                host_up: true,
                join_only: false,
            })
            .collect();
        World {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            net: Network::new(schedule.members),
            dcs: Store::new(schedule.clock_error * rng.i64(-100..=100) / 100),
            rng,
            ready: VecDeque::new(),
            births: Vec::new(),
            killed: Vec::new(),
            members,
            wal: Wal::default(),
            connections: BTreeMap::new(),
            promises: Promises::default(),
            counters: Counters::default(),
            mutation,
            schedule,
            unique: 0,
            trace: Trace { wanted: traced, hash: 0xcbf2_9ce4_8422_2325, ..Trace::default() },
            healed: false,
        }
    }

    /// Has `effect` happen at a moment.
    pub fn at(&mut self, at: Nanos, effect: impl FnOnce(&mut World) + 'static) {
        self.order += 1;
        self.queue.push(Event { at: at.max(self.now), order: self.order, effect: Box::new(effect) });
    }

    /// Has `effect` happen after a while.
    pub fn after(&mut self, span: Nanos, effect: impl FnOnce(&mut World) + 'static) {
        self.at(self.now + span, effect);
    }

    /// Goes on to the next event; false when there is none before `end`.
    pub fn step(&mut self, end: Nanos) -> bool {
        if self.queue.peek().is_none_or(|event| event.at > end) {
            return false;
        }
        let Some(event) = self.queue.pop() else { return false };
        self.now = event.at;
        self.mix(event.at ^ event.order);
        self.counters.events += 1;
        (event.effect)(self);
        true
    }

    /// Lets a task look again.
    pub fn wake(&mut self, task: TaskId) {
        self.ready.push_back(task);
    }

    /// The time on a member's clock.
    pub fn clock(&self, id: Id) -> Moment {
        self.members[id].clock.read(self.now)
    }

    /// The moment at which `span` has passed on a member's clock.
    pub fn later(&self, id: Id, span: Duration) -> Nanos {
        self.now + self.members[id].clock.real(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4))
    }

    /// A number that was never given before.
    pub fn next(&mut self) -> u64 {
        self.unique += 1;
        self.unique
    }

    /// A span between two others.
    pub fn between(&mut self, least: Nanos, most: Nanos) -> Nanos {
        self.rng.u64(least..=most.max(least))
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.u32(0..n) == 0
    }

    /// A member by its name.
    pub fn id(&self, name: &MemberName) -> Option<Id> {
        self.members.iter().position(|m| m.name == *name)
    }

    /// What the DCS truly says is wanted.
    pub fn settings(&self) -> Settings {
        self.dcs.config().map_or_else(Settings::default, Settings::read)
    }

    /// True when this bug was planted.
    pub fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Makes the history's number depend on something.
    pub fn mix(&mut self, value: u64) {
        self.trace.hash = (self.trace.hash ^ value).wrapping_mul(0x0100_0000_01b3);
    }

    /// Notes what happens, where somebody wants to read it.
    pub fn note(&mut self, text: impl FnOnce(&World) -> String) {
        if self.trace.wanted {
            let line = format!("{:9.3} {}", self.now as f64 / 1e9, text(self));
            if self.trace.lines.len() == KEPT {
                self.trace.lines.pop_front();
            }
            self.trace.lines.push_back(line);
        }
    }
}
