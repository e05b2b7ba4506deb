//! What proves that this member may write: the lease, or the promises of everybody who could take its place. And the other side: what keeps
//! it from leading because it has promised not to.

use std::io;

use super::{
    decide,
    failsafe::{Circle, Order},
    promise::Stance,
    server::Process,
    shell::Shell,
    view::{Local, Lock, Task},
};
use crate::{api::failsafe::PromiseRequest, dcs::snapshot::MemberData, postgres::conf, sys::clock::Moment};

impl Shell {
    /// Until when nobody else can lead: by the lease or by promises, whichever lasts longer.
    pub(super) fn leads_until(&self) -> Option<Moment> {
        self.lease_until.max(self.failsafe.until())
    }

    /// Marks that something leaves now that may end in leading. False when a promise forbids it.
    pub(super) fn begin_to_lead(&self) -> bool {
        let free = self.promises.begin_to_lead(Moment::now());
        if !free {
            tracing::info!("not leading: another leader was promised to be left in the lead");
        }
        free
    }

    /// An agent that finds a primary running was leading before it was started: it asks on where the one before it stopped, while the DCS
    /// may be silent. The guard has the end of what was proved.
    pub(super) fn resume_leading(&mut self) {
        let writes = matches!(self.server.process(), Process::Running(..)) && !conf::has_standby_signal(&self.config.installation.data_dir);
        self.circle = self.failsafe.kept().filter(|_| writes);
        self.failsafe.stand(self.circle.clone().map(|circle| self.order(circle)));
    }

    /// Takes in a look, for the rounds of promises and for the answers to others'. `asked`: when the look at the DCS began.
    pub(super) fn look_at_promises(&mut self, local: &Local, lock: &Lock, asked: Moment) {
        self.promises.look(self.stance(local, lock), self.dcs_answers.then_some((&self.cluster, asked)));
        self.memory.promise = self.promises.binding(Moment::now());
        self.memory.confirmed_until = self.failsafe.until();
        match lock {
            Lock::Mine { .. } => {
                self.circle = self.present_circle();
                if let Err(error) = self.failsafe.keep(self.circle.as_ref()) {
                    tracing::error!("whose promises are needed when the DCS is silent cannot be kept: {error}");
                }
            }
            Lock::Other(_) => self.circle = None,
            Lock::Free | Lock::Unknown { .. } => {}
        }
        let leads = match local {
            Local::Primary(_) => true,
            Local::Silent { .. } | Local::Stopped(_) => self.leads_until().is_some_and(|until| Moment::now() < until),
            _ => self.promotes(),
        };
        self.failsafe.stand(self.circle.clone().filter(|_| leads).map(|circle| self.order(circle)));
    }

    fn stance(&self, local: &Local, lock: &Lock) -> Stance {
        let begins = self.task.as_ref().is_some_and(|task| matches!(task.kind, Task::Promote | Task::RestartPrimary));
        let writes = match local {
            Local::Primary(_) => true,
            Local::Silent { .. } => self.server.process() != Process::None && !conf::has_standby_signal(&self.config.installation.data_dir),
            _ => false,
        };
        let sync = &self.cluster.sync;
        Stance {
            leads: writes || begins || matches!(lock, Lock::Mine { .. }),
            voted: self.server.fence().is_some(),
            leader: self.memory.last_leader.clone(),
            unled: self.cluster.leader.is_none(),
            voters_named_by: sync.leader.clone().filter(|_| sync.is_active()),
            upstream: match local {
                Local::Standby(facts) if facts.streaming => Some(facts.primary_conninfo.clone()),
                _ => None,
            },
        }
    }

    /// The leader key is given up, or may have been: from here on nobody's promise counts, until the DCS says that it is still ours.
    pub(super) fn let_go(&mut self) {
        self.memory.circle = None;
        self.circle = None;
        self.failsafe.stand(None);
    }

    /// Brings the circle up to date with what leaves for the DCS next, on disk before anywhere else.
    pub(super) fn widen_circle(&mut self) -> io::Result<()> {
        self.memory.circle = decide::circle(&self.config.name, &self.cluster, &self.memory);
        self.circle = self.present_circle();
        self.failsafe.widen(self.circle.as_ref());
        self.failsafe.keep(self.circle.as_ref())
    }

    fn present_circle(&self) -> Option<Circle> {
        let names = self.memory.circle.as_ref()?;
        let url = |name: &String| {
            let member = self.cluster.members.iter().find(|(member, _)| name.eq_ignore_ascii_case(member.as_str()));
            let before = || self.circle.as_ref()?.0.get(name).cloned();
            member.map(|(_, data)| data.api_url.clone()).or_else(before).unwrap_or_default()
        };
        Some(Circle(names.iter().map(|name| (name.clone(), url(name))).collect()))
    }

    fn order(&self, circle: Circle) -> Order {
        let (conn_url, api_url) = self.urls();
        let request = PromiseRequest { leader: self.config.name.clone(), conn_url, api_url, ttl: self.settings.ttl };
        Order { circle, request, loop_wait: self.settings.loop_wait }
    }

    /// `conn_url` and `api_url`, as published.
    pub(super) fn urls(&self) -> (String, String) {
        let conn_url = format!("postgres://{}/postgres", super::config::joined(&self.config.address));
        (conn_url, self.api_url())
    }

    /// Where a member's PostgreSQL is that we have promised to leave in the lead: the DCS forgets one that it does not hear of.
    pub(super) fn promised_address(&self, member: &crate::model::MemberName) -> Option<(String, u16)> {
        let promise = self.memory.promise.as_ref().filter(|p| p.leader.as_ref() == Some(member))?;
        MemberData { conn_url: promise.conn_url.clone(), ..MemberData::default() }.postgres_address()
    }
}
