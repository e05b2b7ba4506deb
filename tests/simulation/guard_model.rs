//! The guard: parent of agent and server, and the one who stops a primary whose lease has ended.

use std::{collections::VecDeque, time::Duration};

use spilo::{
    agent::guard::{FromGuard, StopMode, ToGuard},
    sys::clock::Moment,
};

use crate::{
    mutations::Mutation,
    world::{Effect, Id, MICRO, MILLI, Nanos, SECOND, World},
};

/// The guard's own state.
#[derive(Default)]
pub struct Guard {
    pub life: u64,
    pub alive: bool,
    pub frozen: bool,
    pub held: VecDeque<Effect>,
    pub deadline: Option<Moment>,
    grace: Duration,
    fenced: bool,
    quick_deaths: u32,
    worker_since: Nanos,
}

/// A server has ended.
#[derive(Debug, Clone, Copy)]
pub struct ServerEnd {
    pub epoch: u64,
}

impl World {
    /// Has something happen in the guard: not at all when it has died, later when it is frozen.
    pub fn in_guard(&mut self, id: Id, after: Nanos, effect: impl FnOnce(&mut World) + 'static) {
        let life = self.members[id].guard.life;
        self.after(after, move |w| {
            let guard = &mut w.members[id].guard;
            if !guard.alive || guard.life != life {
                return;
            }
            if guard.frozen {
                guard.held.push_back(Box::new(effect));
            } else {
                effect(w);
            }
        });
    }

    /// The guard of a host starts, and with it the agent.
    pub fn start_guard(&mut self, id: Id) {
        let life = self.next();
        if !self.members[id].host_up || self.members[id].guard.alive {
            return;
        }
        // An agent that has lost its guard and has not ended yet.
        if self.members[id].agent.alive {
            self.agent_ended(id);
        }
        self.members[id].guard = Guard { life, alive: true, grace: Duration::from_millis(500), ..Guard::default() };
        self.start_worker(id);
    }

    fn start_worker(&mut self, id: Id) {
        self.members[id].guard.worker_since = self.now;
        let running = self.members[id].server.is_some();
        let first = if running { FromGuard::Running { pid: 1 } } else { FromGuard::Idle };
        let life = self.next();
        self.members[id].agent.begin(life, first);
        self.births.push(id);
    }

    /// The agent says something.
    pub fn tell_guard(&mut self, id: Id, message: ToGuard) {
        let takes = self.between(10 * MICRO, 200 * MICRO);
        self.in_guard(id, takes, move |w| w.guard_hears(id, &message));
    }

    fn guard_hears(&mut self, id: Id, message: &ToGuard) {
        match message {
            ToGuard::Start { .. } => {
                let started = self.members[id].server.is_some() || self.start_server(id).is_some();
                let answer = if started { FromGuard::Running { pid: 1 } } else { FromGuard::NotStarted { why: "no data".to_owned() } };
                self.tell_agent(id, answer);
            }
            ToGuard::Stop(StopMode::Kill) => self.kill_server(id),
            ToGuard::Stop(mode) => {
                self.stop_server(id, *mode == StopMode::Fast);
                let limit = if *mode == StopMode::Fast { 3600 * SECOND } else { 8 * SECOND };
                self.kill_later(id, limit);
            }
            ToGuard::Reload => self.reload(id),
            // Each member has its directory for itself here, and no machine that could be reset.
            ToGuard::Claim { .. } | ToGuard::Watchdog { .. } | ToGuard::NoWatchdog => {}
            ToGuard::Deadline { until, grace } => {
                let guard = &mut self.members[id].guard;
                (guard.deadline, guard.grace) = (*until, *grace);
                if let Some(until) = until {
                    let left = u64::try_from(until.since(self.clock(id)).as_nanos()).unwrap_or(u64::MAX);
                    let left = self.members[id].clock.real(left);
                    self.in_guard(id, left + MILLI, move |w| w.enforce(id));
                }
            }
        }
    }

    /// Stops the server when the lease has ended.
    fn enforce(&mut self, id: Id) {
        let now = self.clock(id);
        let guard = &self.members[id].guard;
        if guard.fenced || guard.deadline.is_none_or(|d| now < d) || self.members[id].server.is_none() || self.mutated(Mutation::GuardOff) {
            return;
        }
        self.note(|w| format!("{}     the guard stops postgres", w.members[id].name));
        self.counters.event("guard stops postgres");
        let grace = u64::try_from(self.members[id].guard.grace.as_nanos()).unwrap_or(u64::MAX);
        self.members[id].guard.fenced = true;
        self.stop_server(id, false);
        self.kill_later(id, grace);
    }

    fn kill_later(&mut self, id: Id, limit: Nanos) {
        let epoch = self.members[id].server.as_ref().map(|s| s.epoch);
        self.in_guard(id, limit, move |w| {
            if epoch.is_some_and(|epoch| w.server(id, epoch).is_some()) {
                w.kill_server(id);
            }
        });
    }

    /// The guard reaps the postmaster.
    pub fn postmaster_ended(&mut self, id: Id, end: ServerEnd) {
        self.in_guard(id, 100 * MICRO, move |w| {
            if w.members[id].server.as_ref().is_some_and(|s| s.epoch != end.epoch) {
                return;
            }
            let guard = &mut w.members[id].guard;
            let fenced = std::mem::take(&mut guard.fenced);
            guard.deadline = None;
            w.tell_agent(id, FromGuard::Ended { status: String::new(), fenced });
        });
    }

    fn tell_agent(&mut self, id: Id, message: FromGuard) {
        let takes = self.between(10 * MICRO, 200 * MICRO);
        let life = self.members[id].agent.life;
        self.after(takes, move |w| {
            if w.members[id].agent.life == life {
                w.members[id].agent.inbox.push_back(message);
                w.wake_agent(id);
            }
        });
    }

    /// The agent has ended: everything it had running is killed, and it is started again.
    pub fn agent_ended(&mut self, id: Id) {
        let process = (id, self.members[id].agent.life);
        self.members[id].agent.alive = false;
        self.members[id].agent.frozen = false;
        self.members[id].agent.held.clear();
        self.killed.push(process);
        self.in_guard(id, 100 * MICRO, move |w| {
            let (now, guard) = (w.now, &mut w.members[id].guard);
            guard.quick_deaths = if now - guard.worker_since > 10 * SECOND { 0 } else { guard.quick_deaths + 1 };
            let pause = (100 * MILLI * u64::from(guard.quick_deaths.saturating_sub(1))).min(2 * SECOND);
            w.in_guard(id, pause, move |w| {
                if !w.members[id].agent.alive {
                    w.start_worker(id);
                }
            });
        });
    }

    /// The guard dies. In a container everything else dies with it, elsewhere the server is stopped by the kernel and the agent ends.
    pub fn kill_guard(&mut self, id: Id, container: bool) {
        let guard = &mut self.members[id].guard;
        if !guard.alive {
            return;
        }
        (guard.alive, guard.frozen) = (false, false);
        guard.held.clear();
        if container || self.members[id].server.as_ref().is_some_and(|s| s.deaf || s.frozen) {
            self.kill_server(id);
        } else {
            self.stop_server(id, false);
        }
        if container || !self.members[id].agent.alive {
            self.agent_ended(id);
        } else {
            self.members[id].agent.orphaned = true;
            self.wake_agent(id);
        }
    }

    /// Power is gone, at once.
    pub fn power_off(&mut self, id: Id) {
        self.members[id].host_up = false;
        self.kill_guard(id, true);
        self.kill_server(id);
        self.agent_ended(id);
        self.review_connections();
    }

    /// Power is back.
    pub fn power_on(&mut self, id: Id) {
        self.members[id].host_up = true;
        self.start_guard(id);
        self.review_connections();
    }

    /// Stops or resumes the guard.
    pub fn freeze_guard(&mut self, id: Id, frozen: bool) {
        self.members[id].guard.frozen = frozen;
        if !frozen {
            for effect in std::mem::take(&mut self.members[id].guard.held) {
                effect(self);
            }
        }
    }

    /// Stops or resumes the agent.
    pub fn freeze_agent(&mut self, id: Id, frozen: bool) {
        self.members[id].agent.frozen = frozen;
        if !frozen {
            let held = std::mem::take(&mut self.members[id].agent.held);
            self.ready.extend(held);
        }
    }
}
