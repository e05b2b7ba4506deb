//! The fence of a voter. Before this member's position counts in an election, its standby is cut off from whoever led, so that nothing which
//! is acknowledged after the vote can be missing from it; and this member promises to follow nobody before the next term. Both hold
//! without any clock: while an old primary goes on, because its agent hangs or nobody can reach it, it finds no one to acknowledge.

use std::time::Duration;

use super::{
    perform::{Failure, Flow},
    shell::Shell,
    view::View,
};
use crate::{model::Term, sys::clock::Moment};

/// How long a reload may take to reach a session.
const RELOAD: Duration = Duration::from_secs(1);

/// How long the end of the receiver is waited for before the loop looks at the rest of the world again.
const CUT: Duration = Duration::from_millis(500);

/// A reload that has not reached a session by then is not on its way.
const SOON: Duration = Duration::from_millis(150);

const PAUSE: Duration = Duration::from_millis(3);

/// The promise that a vote rests on. It lives as long as the server process, or until the member follows somebody again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Whoever led in this term or before is followed no more.
    pub term: Term,
    /// When the emptied configuration was in force. Only sessions that were begun later can tell that the receiver is gone.
    pub since: Moment,
}

impl Shell {
    /// Cuts the standby off. First on disk, so that a server which is started by whatever else comes up does not connect either; then by
    /// reload.
    pub(super) async fn fence(&mut self, view: &View) -> Result<Flow, Failure> {
        if self.server.fence().is_none_or(|fence| fence.term != view.cluster.term) {
            self.server.withdraw();
            // A comparison with a leader that is gone only ends with its time.
            self.task = None;
            self.follow(None).await?;
            self.await_emptied_conninfo().await?;
            self.server.promise(Fence { term: view.cluster.term, since: Moment::now() });
        }
        let deadline = Moment::now() + CUT;
        while !self.server.session().await?.is_cut_off().await? {
            if Moment::now() >= deadline {
                return Ok(Flow::Enough);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(Flow::LookAgain)
    }

    async fn await_emptied_conninfo(&self) -> Result<(), Failure> {
        let session = self.server.session().await?;
        let begun = Moment::now();
        let mut enforced = false;
        while !session.primary_conninfo().await?.is_empty() {
            let waited = Moment::now().since(begun);
            if waited >= RELOAD {
                return Err("PostgreSQL does not take the emptied primary_conninfo: no vote".into());
            }
            if waited >= SOON && !std::mem::replace(&mut enforced, true) {
                self.server.enforce("primary_conninfo").await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }
}
