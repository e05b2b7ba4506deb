//! What the other members say of themselves, over their REST API.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::view::Peer;
use crate::{
    dcs::tags,
    model::{Lsn, MemberName, Term, Timeline},
};

/// Time for one member's answer: a dead one must not hold up the race.
const LIMIT: Duration = Duration::from_millis(1500);

/// Asks these members at the same time.
pub async fn ask(client: &reqwest::Client, urls: BTreeMap<MemberName, String>) -> BTreeMap<MemberName, Peer> {
    let questions = urls.into_iter().map(|(name, url)| async move { (name, ask_one(client, &url).await) });
    futures_util::future::join_all(questions).await.into_iter().collect()
}

/// Whether an agent of this name answers there.
pub async fn is_called(client: &reqwest::Client, url: &str, name: &MemberName) -> bool {
    let answer = async { client.get(url).timeout(LIMIT).send().await?.json::<Value>().await };
    answer.await.is_ok_and(|body| body["patroni"]["name"] == name.as_str())
}

async fn ask_one(client: &reqwest::Client, url: &str) -> Peer {
    let answer = async { client.get(url).timeout(LIMIT).send().await?.json::<Value>().await };
    answer.await.map_or(Peer::Silent, |body| read(&body))
}

/// Reads `/patroni`. Without a position a member counts as silent: it cannot vouch for anything.
fn read(body: &Value) -> Peer {
    let xlog = if body["xlog"].is_object() { &body["xlog"] } else { &body["wal"] };
    if xlog["location"].is_u64() || matches!(body["role"].as_str(), Some("primary" | "master")) && xlog.is_object() {
        return Peer::Primary;
    }
    let received = xlog["received_location"].as_u64().unwrap_or_default();
    let replayed = xlog["replayed_location"].as_u64().unwrap_or_default();
    let position = Lsn(received.max(replayed));
    let timeline = body["timeline"].as_u64().and_then(|t| u32::try_from(t).ok()).map(Timeline);
    match timeline {
        Some(timeline) if position > Lsn(0) => {
            Peer::Standby { timeline, position, nofailover: must_not_lead(&body["tags"]), vote: vote(body) }
        }
        _ => Peer::Silent,
    }
}

/// Both words are needed: what says neither, or only one, has promised nothing.
fn vote(body: &Value) -> Option<Term> {
    (body["fenced"] == true).then(|| body["term"].as_u64().map(Term)).flatten()
}

fn must_not_lead(tags: &Value) -> bool {
    tags.as_object().is_some_and(tags::nofailover)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_standby_vouches_for_the_further_of_its_positions() {
        let body = json!({"role": "replica", "timeline": 2, "xlog": {"received_location": 7, "replayed_location": 9}});
        assert_eq!(read(&body), Peer::Standby { timeline: Timeline(2), position: Lsn(9), nofailover: false, vote: None });
    }

    #[test]
    fn only_who_is_fenced_under_a_term_votes() {
        let vote = |more: &Value| {
            let mut body = json!({"role": "replica", "timeline": 2, "xlog": {"received_location": 7}});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            match read(&body) {
                Peer::Standby { vote, .. } => vote,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(vote(&json!({"fenced": true, "term": 3})), Some(Term(3)));
        for no_vote in [
            json!({}),
            json!({"fenced": true}),
            json!({"term": 3}),
            json!({"fenced": false, "term": 3}),
            json!({"fenced": true, "term": "3"}),
        ] {
            assert_eq!(vote(&no_vote), None, "{no_vote}");
        }
    }

    #[test]
    fn whoever_writes_is_a_primary() {
        assert_eq!(read(&json!({"role": "primary", "timeline": 2, "xlog": {"location": 7}})), Peer::Primary);
    }

    #[test]
    fn a_server_that_does_not_answer_vouches_for_nothing() {
        for body in [json!({}), json!({"role": "replica"}), json!({"role": "primary", "state": "stopped"}), json!("x")] {
            assert_eq!(read(&body), Peer::Silent);
        }
    }
}
