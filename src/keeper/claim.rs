//! One job at a time in a cluster, by objects in the store. Each claim is an object with the next number, and of any number of nodes that create
//! it one wins. Its holder says again and again that it is at work; whose object has not changed for long, by the watcher's own clock, holds
//! nothing any more, and the next number is free. So no two clocks are compared, and a holder that was taken for dead finds a higher number.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    backup::{Archive, ArchiveError, schedule::Job},
    model::ObjectName,
    storage::{self, ObjectStore},
};

/// A holder that says nothing for so long is not at work any more.
const STALE: Duration = Duration::from_secs(300);

/// What a claim says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    node: String,
    job: Job,
    begun: Timestamp,
    /// Grows as long as it is at work.
    beat: u64,
    ended: bool,
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// This node is to do it.
    Won(Claim),
    /// Another one is at work.
    Held {
        /// Which.
        node: String,
        /// On what, in words.
        job: String,
    },
}

/// The one claim that holds.
#[derive(Debug)]
pub struct Claim {
    number: u64,
    record: Record,
}

/// What this node has seen of others' claims.
#[derive(Debug, Default)]
pub struct Claims {
    /// Number and content of the last one, and since when it is that.
    seen: Option<(u64, Bytes, Instant)>,
}

impl Claims {
    /// Claims the job for this node; `at` is `now` by a clock that never jumps.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn claim<S: ObjectStore>(
        &mut self,
        archive: &Archive<S>,
        node: &str,
        job: &Job,
        now: Timestamp,
        at: Instant,
    ) -> Result<Claimed, ArchiveError> {
        let last = last_number(archive).await?;
        if let Some(number) = last
            && let Some(holder) = self.holder(archive, number, node, at).await?
        {
            return Ok(holder);
        }
        let record = Record { node: node.to_owned(), job: job.clone(), begun: now, beat: 0, ended: false };
        Claim { number: last.unwrap_or(0).saturating_add(1), record }.take(archive).await
    }

    /// Who is at work under this number, if anybody may be. A record that cannot be read, of another version or broken, is somebody's too.
    async fn holder<S: ObjectStore>(
        &mut self,
        archive: &Archive<S>,
        number: u64,
        me: &str,
        at: Instant,
    ) -> Result<Option<Claimed>, ArchiveError> {
        let unreadable =
            |why: String| Claimed::Held { node: "an unknown node".to_owned(), job: format!("job of a claim that cannot be read ({why})") };
        let content = match archive.store().read(&object(archive, number)?).await {
            Ok(Some(content)) => content,
            Ok(None) => return Ok(None),
            // Nothing of it can be compared with what is there later but that it is the same.
            Err(ArchiveError::Damaged { why, .. }) => Bytes::from(why),
            Err(error) => return Err(error),
        };
        let held = match serde_json::from_slice::<Record>(&content) {
            // What this node has claimed before it was started again has ended with it.
            Ok(record) if record.ended || record.node == me => return Ok(None),
            Ok(record) => Claimed::Held { job: record.job.to_string(), node: record.node },
            Err(error) => unreadable(error.to_string()),
        };
        match &self.seen {
            Some((seen, before, since)) if (*seen, before) == (number, &content) => Ok((at.duration_since(*since) < STALE).then_some(held)),
            _ => {
                self.seen = Some((number, content, at));
                Ok(Some(held))
            }
        }
    }
}

impl Claim {
    async fn take<S: ObjectStore>(mut self, archive: &Archive<S>) -> Result<Claimed, ArchiveError> {
        let won = archive.store().create(&object(archive, self.number)?, self.content()).await? == storage::Claim::Won;
        // Who was slow may have taken a number that others have used and removed since: then there is a higher one.
        if won && self.renew(archive).await? {
            return Ok(Claimed::Won(self));
        }
        Ok(Claimed::Held { node: "another node".to_owned(), job: "next job".to_owned() })
    }

    /// Says that the work goes on. `false`: another node has taken over, and it has to end.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn renew<S: ObjectStore>(&mut self, archive: &Archive<S>) -> Result<bool, ArchiveError> {
        if last_number(archive).await? != Some(self.number) {
            return Ok(false);
        }
        self.record.beat = self.record.beat.saturating_add(1);
        archive.store().replace(&object(archive, self.number)?, self.content()).await?;
        Ok(true)
    }

    /// Says that the work has ended, and removes what earlier claims have left. The last one stays, so that no number is used twice.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn end<S: ObjectStore>(mut self, archive: &Archive<S>) -> Result<(), ArchiveError> {
        if !self.renew(archive).await? {
            return Ok(());
        }
        self.record.ended = true;
        archive.store().replace(&object(archive, self.number)?, self.content()).await?;
        for number in numbers(archive).await?.into_iter().filter(|number| *number < self.number) {
            archive.store().remove(&object(archive, number)?).await?;
        }
        Ok(())
    }

    fn content(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(&self.record).expect("it has only texts and numbers"))
    }
}

fn folder<S>(archive: &Archive<S>) -> Result<ObjectName, ArchiveError> {
    Ok(archive.root().join("job")?.join(&archive.system().to_string())?)
}

fn object<S>(archive: &Archive<S>, number: u64) -> Result<ObjectName, ArchiveError> {
    Ok(folder(archive)?.join(&format!("{number:012}"))?)
}

async fn numbers<S: ObjectStore>(archive: &Archive<S>) -> Result<Vec<u64>, ArchiveError> {
    let objects = archive.store().list(&folder(archive)?).await?;
    Ok(objects.iter().filter_map(|object| object.name.last().parse().ok()).collect())
}

async fn last_number<S: ObjectStore>(archive: &Archive<S>) -> Result<Option<u64>, ArchiveError> {
    Ok(numbers(archive).await?.into_iter().max())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::SystemId, storage::FileStore};

    struct Place {
        _directory: tempfile::TempDir,
        archive: Archive<FileStore>,
        begun: Instant,
    }

    impl Place {
        fn new() -> Place {
            let directory = tempfile::tempdir().unwrap();
            let store = FileStore::init(directory.path()).unwrap();
            let archive = Archive::new(store, "orders".parse().unwrap(), SystemId(7));
            Place { _directory: directory, archive, begun: Instant::now() }
        }

        async fn claim(&self, claims: &mut Claims, node: &str, seconds: u64) -> Option<Claim> {
            let at = self.begun + Duration::from_secs(seconds);
            match claims.claim(&self.archive, node, &Job::Backup { full: true }, Timestamp::now(), at).await.unwrap() {
                Claimed::Won(claim) => Some(claim),
                Claimed::Held { .. } => None,
            }
        }

        async fn left(&self) -> Vec<u64> {
            numbers(&self.archive).await.unwrap()
        }
    }

    #[tokio::test]
    async fn one_node_at_a_time_is_at_work() {
        let (place, mut mine, mut theirs) = (Place::new(), Claims::default(), Claims::default());
        let claim = place.claim(&mut mine, "a", 0).await.unwrap();
        assert!(place.claim(&mut theirs, "b", 0).await.is_none());
        claim.end(&place.archive).await.unwrap();
        let second = place.claim(&mut theirs, "b", 1).await.unwrap();
        assert!(place.claim(&mut mine, "a", 1).await.is_none());
        second.end(&place.archive).await.unwrap();
        assert_eq!(place.left().await, [2], "numbers go on");
    }

    #[tokio::test]
    async fn who_says_nothing_for_long_is_followed_and_finds_out() {
        let (place, mut mine, mut theirs) = (Place::new(), Claims::default(), Claims::default());
        let mut old = place.claim(&mut mine, "a", 0).await.unwrap();
        assert!(place.claim(&mut theirs, "b", 10).await.is_none());
        assert!(place.claim(&mut theirs, "b", 309).await.is_none(), "first seen at 10");
        assert!(old.renew(&place.archive).await.unwrap());
        assert!(place.claim(&mut theirs, "b", 400).await.is_none(), "it has said something since");
        let new = place.claim(&mut theirs, "b", 700).await.unwrap();
        assert!(!old.renew(&place.archive).await.unwrap());
        old.end(&place.archive).await.unwrap();
        assert!(place.claim(&mut mine, "a", 0).await.is_none(), "the old one's end is not the new one's");
        new.end(&place.archive).await.unwrap();
        assert_eq!(place.left().await, [2]);
    }

    #[tokio::test]
    async fn a_node_that_was_started_again_goes_on_at_once() {
        let place = Place::new();
        place.claim(&mut Claims::default(), "a", 0).await.unwrap();
        assert!(place.claim(&mut Claims::default(), "b", 0).await.is_none());
        assert!(place.claim(&mut Claims::default(), "a", 0).await.is_some());
    }

    #[tokio::test]
    async fn who_takes_a_number_that_others_have_used_and_removed_is_not_at_work() {
        let place = Place::new();
        for node in ["a", "b"] {
            place.claim(&mut Claims::default(), node, 0).await.unwrap().end(&place.archive).await.unwrap();
        }
        let record = Record { node: "c".to_owned(), job: Job::Expire, begun: Timestamp::now(), beat: 0, ended: false };
        let slow = Claim { number: 1, record }.take(&place.archive).await.unwrap();
        assert!(matches!(slow, Claimed::Held { .. }), "{slow:?}");
        place.claim(&mut Claims::default(), "a", 0).await.unwrap().end(&place.archive).await.unwrap();
        assert_eq!(place.left().await, [3]);
    }

    #[tokio::test]
    async fn a_claim_that_cannot_be_read_holds_as_long_as_it_changes() {
        let (place, mut claims) = (Place::new(), Claims::default());
        let put = async |text: &'static str| place.archive.store().replace(&object(&place.archive, 7).unwrap(), text.into()).await.unwrap();
        put("of the next version, 1").await;
        assert!(place.claim(&mut claims, "a", 0).await.is_none());
        put("of the next version, 2").await;
        assert!(place.claim(&mut claims, "a", 400).await.is_none(), "it has said something since");
        assert!(place.claim(&mut claims, "a", 699).await.is_none());
        assert!(place.claim(&mut claims, "a", 700).await.is_some());
    }

    #[tokio::test]
    async fn of_many_that_find_it_free_one_wins() {
        let place = Place::new();
        place.claim(&mut Claims::default(), "a", 0).await.unwrap().end(&place.archive).await.unwrap();
        let nodes: Vec<String> = (0..20).map(|n| format!("node-{n}")).collect();
        let tries = nodes.iter().map(async |node| place.claim(&mut Claims::default(), node, 0).await.is_some());
        let won = futures_util::future::join_all(tries).await;
        assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
    }
}
