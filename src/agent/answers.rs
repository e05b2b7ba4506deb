//! Carries out what the API asks for, beside the loop: a DCS or a PostgreSQL that does not answer must not delay a peer's question.

use std::{rc::Rc, sync::Arc};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    configure,
    promise_book::PromiseBook,
    publish,
    server::{Process, Server},
    view::ServerFacts,
};
use crate::{
    api::{ApiRequest, NodeStatus, failsafe::PromiseRequest},
    dcs::{Dcs, Etcd, snapshot::FailoverKey},
    model::Term,
    postgres::sql::Session,
};

/// Whoever asks what PostgreSQL says at this moment.
type Observer = oneshot::Sender<Arc<NodeStatus>>;

/// What the answers are made from.
#[derive(Clone)]
pub struct Answers {
    /// The local server.
    pub server: Rc<Server>,
    /// The DCS.
    pub dcs: Rc<Etcd>,
    /// What is published.
    pub status: Arc<watch::Sender<Arc<NodeStatus>>>,
    /// What is promised.
    pub promises: Rc<PromiseBook>,
    /// What only the loop can decide upon.
    pub to_the_loop: mpsc::UnboundedSender<ApiRequest>,
    /// Wakes the loop.
    pub wake: Rc<Notify>,
}

impl Answers {
    /// Answers as long as there is an API.
    pub async fn run(self, mut asked: mpsc::Receiver<ApiRequest>) {
        let (observers, waiting) = mpsc::channel(64);
        tokio::task::spawn_local(self.clone().observe(waiting));
        while let Some(request) = asked.recv().await {
            let me = self.clone();
            match request {
                ApiRequest::Handover { key, answer } => drop(tokio::task::spawn_local(async move {
                    let written = me.dcs.put_failover(&key, None).await.map(drop).map_err(|e| e.to_string());
                    me.wake.notify_one();
                    let _ = answer.send(written);
                })),
                ApiRequest::Withdraw { seen, answer } => drop(tokio::task::spawn_local(async move {
                    let withdrawn = me.dcs.put_failover(&FailoverKey::default(), Some(seen)).await.map_err(|e| e.to_string());
                    me.wake.notify_one();
                    let _ = answer.send(withdrawn);
                })),
                ApiRequest::Configure { change, answer } => drop(tokio::task::spawn_local(async move {
                    let changed = configure::configure(me.dcs.as_ref(), me.server.installation(), me.server.replication(), change).await;
                    me.wake.notify_one();
                    let _ = answer.send(changed);
                })),
                ApiRequest::Promise { request, answer } => drop(tokio::task::spawn_local(async move {
                    let _ = answer.send(me.promise(&request).await);
                })),
                for_the_loop @ (ApiRequest::Ask { .. }
                | ApiRequest::Schedule { .. }
                | ApiRequest::Unschedule { .. }
                | ApiRequest::Reload) => {
                    let _ = self.to_the_loop.send(for_the_loop);
                }
                // Dropped when too many wait: their askers are told that PostgreSQL does not answer.
                ApiRequest::Observe { answer } => drop(observers.try_send(answer)),
            }
        }
    }

    async fn promise(&self, request: &PromiseRequest) -> Result<(), String> {
        let given = self.promises.give(request).await;
        match &given {
            Ok(promise) => tracing::debug!("promised '{}' to leave it in the lead until {:?}", request.leader, promise.until),
            Err(why) => tracing::info!("'{}' is not promised to be left in the lead: {why}", request.leader),
        }
        // Whoever was about to race has to know.
        self.wake.notify_one();
        given.map(drop)
    }

    async fn observe(self, mut waiting: mpsc::Receiver<Observer>) {
        let mut session: Option<Session> = None;
        while let Some(answer) = waiting.recv().await {
            let observed = observe_for_peers(&self.server, &mut session).await;
            let (facts, vote) = observed.map_or((None, None), |(facts, vote)| (Some(facts), vote));
            let present = NodeStatus { vote, ..self.status.borrow().as_ref().clone() };
            let _ = answer.send(Arc::new(publish::with_facts(present, facts.as_ref())));
        }
    }
}

async fn observe_for_peers(server: &Server, session: &mut Option<Session>) -> Option<(ServerFacts, Option<Term>)> {
    if server.process() == Process::None {
        *session = None;
        return None;
    }
    if !session.as_ref().is_some_and(|session| server.is_current(session)) {
        *session = server.new_session("Patroni restapi").await.ok();
    }
    let observed = server.observe_through(session.as_ref()?).await.ok();
    if observed.is_none() {
        *session = None;
    }
    observed
}
