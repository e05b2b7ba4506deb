//! The leader's rounds while the DCS does not answer: everybody who could take its place is asked to promise not to, and only when all have
//! done so in one round, PostgreSQL may go on. Beside the loop, which may be waiting for the DCS meanwhile.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::{lease, server::Server};
use crate::{
    api::{
        Access, Login, NodeStatus,
        failsafe::{ACCEPTED, PROMISED, PromiseRequest, url},
    },
    sys::{clock::Moment, files, timer::Timer},
};

/// The file beside the data directory.
const SUFFIX: &str = ".circle";

/// Everybody who may take the leader's place, by name, and their `api_url`s; an empty one is not known.
///
/// It is kept on disk too, because an agent that is started again while the DCS is silent has nobody else to tell it. There it never lacks
/// anybody: it is written before what adds to it leaves for the DCS, and before this member begins to write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circle(pub BTreeMap<String, String>);

/// What the rounds need to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Whom to ask.
    pub circle: Circle,
    /// For what.
    pub request: PromiseRequest,
    /// How long the loop sleeps at most between two renewals.
    pub loop_wait: Duration,
}

/// The rounds.
pub struct Failsafe {
    file: PathBuf,
    /// What the file says, once that is known: it is this agent's alone, and looked at in every turn.
    written: RefCell<Option<Option<Circle>>>,
    order: RefCell<Option<Order>>,
    /// When the last proof left that nobody else leads: a renewal of the lease, or a round.
    proved: Cell<Option<Moment>>,
    /// When the next round is to begin.
    due: Cell<Option<Moment>>,
    /// Until when everybody has promised.
    until: Cell<Option<Moment>>,
    http: reqwest::Client,
    access: watch::Receiver<Access>,
    server: Rc<Server>,
    status: Arc<watch::Sender<Arc<NodeStatus>>>,
    changed: Notify,
    wake: Rc<Notify>,
}

impl Failsafe {
    /// No rounds yet.
    pub fn new(
        data_dir: &Path,
        (http, access): (reqwest::Client, watch::Receiver<Access>),
        server: Rc<Server>,
        status: Arc<watch::Sender<Arc<NodeStatus>>>,
        wake: Rc<Notify>,
    ) -> Failsafe {
        Failsafe {
            file: files::beside(data_dir, SUFFIX),
            written: RefCell::new(None),
            order: RefCell::new(None),
            proved: Cell::new(None),
            due: Cell::new(None),
            until: Cell::new(None),
            http,
            access,
            server,
            status,
            changed: Notify::new(),
            wake,
        }
    }

    /// The circle on disk; `None`: there is none, or anybody may take over.
    pub fn kept(&self) -> Option<Circle> {
        serde_json::from_slice(&fs::read(&self.file).ok()?).ok()
    }

    /// Keeps the circle on disk, or that there is none.
    pub fn keep(&self, circle: Option<&Circle>) -> io::Result<()> {
        let known = self.written.borrow_mut().take().unwrap_or_else(|| self.kept());
        if known.as_ref() != circle {
            // Until it is done nobody knows what is there.
            self.write(circle)?;
        }
        *self.written.borrow_mut() = Some(circle.cloned());
        Ok(())
    }

    fn write(&self, circle: Option<&Circle>) -> io::Result<()> {
        match circle {
            Some(circle) => {
                let text = serde_json::to_string(circle).expect("names and texts, so JSON cannot fail");
                files::replace(&self.file, text.as_bytes(), 0o600)
            }
            None => {
                files::remove_file(&self.file)?;
                files::sync_parent(&self.file)
            }
        }
    }

    /// Until when everybody has promised.
    pub fn until(&self) -> Option<Moment> {
        self.until.get()
    }

    /// The lease was renewed: no round is needed for a while. `sent`: when the renewal left.
    pub fn renewed(&self, sent: Moment) {
        // An answer that was long on its way may be older than a round.
        if self.proved.get().is_none_or(|proved| proved < sent) {
            self.proved.set(Some(sent));
            self.until.set(None);
            self.schedule();
            // The timer is set anew instead of running out for nothing: the process is awake now and would have to wake up for that.
            self.changed.notify_one();
        }
    }

    /// More may take over than before, or others, or (`None`) anybody.
    pub fn widen(&self, circle: Option<&Circle>) {
        let order = self.order.borrow().clone();
        if let Some(order) = order {
            self.stand(circle.map(|circle| Order { circle: circle.clone(), ..order }));
        }
    }

    /// What the rounds need to know from now on; `None`: this member does not lead.
    pub fn stand(&self, order: Option<Order>) {
        if order.is_none() {
            self.proved.set(None);
            self.until.set(None);
        }
        if *self.order.borrow() == order {
            return;
        }
        let begins = self.order.borrow().is_none();
        *self.order.borrow_mut() = order;
        if begins {
            self.schedule();
        }
        self.changed.notify_one();
    }

    /// The renewal has failed: the next round is now.
    pub fn hurry(&self) {
        let now = Moment::now();
        let fresh = self.proved.get().is_some_and(|proved| self.until.get().is_some() && now < proved + self.cadence());
        if !fresh && self.due.get().is_some_and(|due| due > now) {
            self.due.set(Some(now));
            self.changed.notify_one();
        }
    }

    fn cadence(&self) -> Duration {
        self.order.borrow().as_ref().map_or(Duration::MAX, |order| lease::round_cadence(order.request.ttl))
    }

    fn schedule(&self) {
        let due = self
            .order
            .borrow()
            .as_ref()
            .map(|order| lease::first_round(self.proved.get(), Moment::now(), order.request.ttl, order.loop_wait));
        self.due.set(due);
    }

    /// Holds rounds whenever they are due.
    pub async fn run(self: Rc<Failsafe>, mut timer: Timer) {
        loop {
            let pause = self.due.get().map(|due| due.since(Moment::now()));
            match pause {
                None => self.changed.notified().await,
                Some(Duration::ZERO) => self.hold_round().await,
                Some(pause) => tokio::select! {
                    () = timer.pause(pause) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    async fn hold_round(&self) {
        let Some(order) = self.order.borrow().clone() else {
            self.due.set(None);
            return;
        };
        let sent = Moment::now();
        let refusals = self.ask(&order).await;
        let (proved, now) = (self.proved.get(), Moment::now());
        if proved.is_some_and(|proved| proved > sent) {
            // The DCS has answered meanwhile.
            return;
        }
        let until = lease::deadline(sent, order.request.ttl);
        if !refusals.is_empty() || until <= now || !self.still_asked(&order) {
            for refusal in refusals {
                tracing::warn!("{refusal}");
            }
            self.due.set(Some(now + lease::round_pause(order.request.ttl)));
            return;
        }
        self.proved.set(Some(sent));
        self.until.set(Some(until));
        self.due.set(Some(sent + lease::round_cadence(order.request.ttl)));
        // Whoever asks over REST is answered from this, however long the loop waits for the DCS.
        self.status.send_modify(|status| {
            let status = Arc::make_mut(status);
            status.leader_until = status.leader_until.max(Some(until));
        });
        if let Err(error) = self.server.arm(Some(until), lease::margin(order.request.ttl) / 2).await {
            tracing::error!("the guard does not listen: {error}");
        }
        self.wake.notify_one();
    }

    /// Whoever was asked is still everybody who has to be.
    fn still_asked(&self, asked: &Order) -> bool {
        let order = self.order.borrow();
        order.as_ref().is_some_and(|order| order.circle.0.keys().all(|name| asked.circle.0.contains_key(name)))
    }

    /// Asks everybody at the same time. Returns why it is not promised.
    async fn ask(&self, order: &Order) -> Vec<String> {
        let body = order.request.to_json();
        let limit = lease::round_limit(order.request.ttl);
        let login = self.access.borrow().shown.clone();
        let questions = order.circle.0.iter().map(|(name, api_url)| {
            let (body, login) = (&body, login.as_ref());
            async move {
                let answer = tokio::time::timeout(limit, ask_one(&self.http, api_url, login, body, order.request.ttl)).await;
                let why = answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))).err()?;
                Some(format!("'{name}' does not promise to leave this member in the lead: {why}"))
            }
        });
        futures_util::future::join_all(questions).await.into_iter().flatten().collect()
    }
}

async fn ask_one(
    http: &reqwest::Client,
    api_url: &str,
    login: Option<&Login>,
    body: &serde_json::Value,
    ttl: Duration,
) -> Result<(), String> {
    if api_url.is_empty() {
        return Err("its REST API is not known".to_owned());
    }
    let mut question = http.post(url(api_url)).json(body);
    if let Some(login) = login {
        question = question.basic_auth(&login.username, Some(login.password.expose()));
    }
    let answer = question.send().await.map_err(|error| innermost(&error))?;
    let (code, promised) = (answer.status(), answer.headers().get(PROMISED).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()));
    let text = answer.text().await.map_err(|error| innermost(&error))?;
    match promised {
        _ if !code.is_success() || text != ACCEPTED => Err(format!("{} {text}", code.as_u16())),
        Some(promised) if promised >= ttl.as_secs() => Ok(()),
        // Patroni's answer: one that is forgotten when its agent is started again.
        _ => Err("it does not say for how long".to_owned()),
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
