//! Promises as this member keeps them: in memory for the loop, and on disk, because an agent that is started again is bound by what the one
//! before it promised.

use std::{
    cell::{Cell, RefCell},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::promise::{Promise, Stance, judge};
use crate::{
    api::failsafe::PromiseRequest,
    dcs::snapshot::Snapshot,
    sys::{clock::Moment, files},
};

/// The file beside the data directory.
const SUFFIX: &str = ".promise";

/// What is on disk. The clock starts anew with the machine, so it is only good for the boot that it names.
#[derive(Serialize, Deserialize)]
struct Record {
    promise: Promise,
    /// For how long it was given, in milliseconds.
    span_ms: u64,
    boot: String,
}

/// The promises of this member: at most one binds at a time.
pub struct PromiseBook {
    file: PathBuf,
    boot: String,
    present: RefCell<Option<Promise>>,
    stance: RefCell<Stance>,
    /// Set before anything leaves that may end in leading, and cleared by a look that shows that it has not.
    leading: Cell<bool>,
    writing: Mutex<()>,
}

impl PromiseBook {
    /// Opens the book beside this data directory. What was promised before the machine started again, or cannot be read, binds for as long
    /// as it can have been meant to, counted from now; `ttl` where even that is not known.
    pub fn open(data_dir: &Path, ttl: Duration, now: Moment) -> PromiseBook {
        let file = files::beside(data_dir, SUFFIX);
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let present = read(&file, &boot, ttl, now);
        let book = PromiseBook {
            file,
            boot,
            present: RefCell::new(present.clone()),
            stance: RefCell::new(Stance::default()),
            leading: Cell::new(false),
            writing: Mutex::new(()),
        };
        if let Some(promise) = present {
            // Under this boot's clock from now on: one start after the other must not put its end off.
            if let Err(error) = book.keep(&promise, promise.until.since(now)) {
                tracing::warn!("'{}' could not be written: {error}", book.file.display());
            }
        }
        book
    }

    /// The promise that binds.
    pub fn binding(&self, now: Moment) -> Option<Promise> {
        self.present.borrow().clone().filter(|p| p.binds(now))
    }

    /// Takes in how this member stands, as of a look at the DCS that was asked for at `asked`; `None`: it did not answer.
    pub fn look(&self, stance: Stance, seen: Option<(&Snapshot, Moment)>) {
        if seen.is_some() {
            self.leading.set(stance.leads);
        }
        *self.stance.borrow_mut() = Stance { leads: stance.leads || self.leading.get(), ..stance };
        let mut present = self.present.borrow_mut();
        if seen.is_some_and(|(cluster, asked)| present.as_ref().is_some_and(|p| p.is_released(cluster, asked))) {
            *present = None;
        }
    }

    /// Marks that something leaves now that may end in leading, so that nothing is promised any more. False when a promise forbids it: then
    /// it must not leave.
    pub fn begin_to_lead(&self, now: Moment) -> bool {
        if self.binding(now).is_some() {
            return false;
        }
        self.leading.set(true);
        self.stance.borrow_mut().leads = true;
        true
    }

    /// Gives the promise that is asked for, or says why not. It binds before it is written, and is written before it is given.
    pub async fn give(&self, request: &PromiseRequest) -> Result<Promise, String> {
        let now = Moment::now();
        let promise = judge(&self.stance.borrow(), self.present.borrow().as_ref(), request, now).map_err(|refusal| refusal.to_string())?;
        *self.present.borrow_mut() = Some(promise.clone());
        let _one_at_a_time = self.writing.lock().await;
        let (file, text) = (self.file.clone(), self.record(&promise, promise.until.since(now)));
        // Beside the loop: a disk may take its time.
        let written = tokio::task::spawn_blocking(move || files::replace(&file, text.as_bytes(), 0o600)).await;
        match written {
            Ok(Ok(())) => Ok(promise),
            Ok(Err(error)) => Err(format!("the promise cannot be kept in '{}': {error}", self.file.display())),
            Err(error) => Err(format!("the promise cannot be kept: {error}")),
        }
    }

    fn keep(&self, promise: &Promise, span: Duration) -> io::Result<()> {
        files::replace(&self.file, self.record(promise, span).as_bytes(), 0o600)
    }

    fn record(&self, promise: &Promise, span: Duration) -> String {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let record = Record { promise: promise.clone(), span_ms, boot: self.boot.clone() };
        serde_json::to_string(&record).expect("names and numbers, so JSON cannot fail")
    }
}

fn read(file: &Path, boot: &str, ttl: Duration, now: Moment) -> Option<Promise> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("'{}' cannot be read: {error}; keeping quiet for {ttl:?}", file.display());
            return Some(quiet(now + ttl, now));
        }
    };
    let Ok(record) = serde_json::from_slice::<Record>(&text) else {
        tracing::warn!("'{}' is no record of a promise; keeping quiet for {ttl:?}", file.display());
        return Some(quiet(now + ttl, now));
    };
    let span = Duration::from_millis(record.span_ms);
    if record.boot == boot && !boot.is_empty() {
        // Nothing that was given before now can end later than its whole length from now.
        return Some(Promise { until: record.promise.until.min(now + span), ..record.promise }).filter(|p| p.binds(now));
    }
    Some(Promise { given: now, until: now + span, ..record.promise })
}

/// A promise to nobody in particular.
fn quiet(until: Moment, now: Moment) -> Promise {
    Promise { leader: None, given: now, until, conn_url: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MemberName;

    const TTL: Duration = Duration::from_secs(10);

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn request(leader: &str) -> PromiseRequest {
        let conn_url = "postgres://h:5432/postgres".to_owned();
        PromiseRequest { leader: leader.parse().unwrap(), conn_url, api_url: String::new(), ttl: TTL }
    }

    fn follower(book: &PromiseBook) {
        book.look(Stance { leader: Some("a".parse::<MemberName>().unwrap()), ..Stance::default() }, None);
    }

    #[test]
    fn a_promise_outlives_the_agent_that_gave_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let book = PromiseBook::open(&data, TTL, Moment::now());
        follower(&book);
        let given = block(book.give(&request("a"))).unwrap();
        let next = PromiseBook::open(&data, TTL, Moment::now());
        assert_eq!(next.binding(Moment::now()), Some(given.clone()));
        assert!(!next.begin_to_lead(Moment::now()));
        assert!(block(next.give(&request("a"))).unwrap().until > given.until, "and can be renewed");
        assert!(block(next.give(&request("b"))).is_err());
        let after = given.until + TTL * 2;
        assert!(PromiseBook::open(&data, TTL, after).begin_to_lead(after));
    }

    #[test]
    fn a_machine_that_started_again_keeps_quiet_for_as_long_as_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let book = PromiseBook { boot: "an earlier one".into(), ..PromiseBook::open(&data, TTL, Moment::now()) };
        follower(&book);
        block(book.give(&request("a"))).unwrap();
        // The clock of the new boot has only begun.
        let start = Moment(1_000_000_000);
        let next = PromiseBook::open(&data, TTL, start);
        let until = next.binding(start).unwrap().until;
        assert!(until <= start + TTL && until > start + TTL / 2, "{until:?}");
        let again = start + TTL / 2;
        assert_eq!(PromiseBook::open(&data, TTL, again).binding(again).unwrap().until, until, "another start does not begin it anew");
    }

    #[test]
    fn an_unreadable_promise_keeps_its_giver_quiet_for_a_ttl() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::write(dir.path().join("data.promise"), "{").unwrap();
        let now = Moment::now();
        let book = PromiseBook::open(&data, TTL, now);
        assert!(!book.begin_to_lead(now) && book.begin_to_lead(now + TTL));
    }

    #[test]
    fn nothing_is_promised_between_a_claim_and_the_look_that_shows_what_came_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let book = PromiseBook::open(&dir.path().join("data"), TTL, Moment::now());
        follower(&book);
        assert!(book.begin_to_lead(Moment::now()));
        follower(&book);
        assert!(block(book.give(&request("a"))).is_err(), "the DCS has not answered: the claim may have been won");
        book.look(Stance { leader: Some("a".parse().unwrap()), ..Stance::default() }, Some((&Snapshot::default(), Moment::now())));
        assert!(block(book.give(&request("a"))).is_ok());
        assert!(!book.begin_to_lead(Moment::now()));
    }

    #[test]
    fn a_promise_that_cannot_be_written_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let book = PromiseBook::open(&dir.path().join("nowhere/data"), TTL, Moment::now());
        follower(&book);
        let refusal = block(book.give(&request("a"))).unwrap_err();
        assert!(refusal.contains("nowhere/data.promise"), "{refusal}");
    }
}
