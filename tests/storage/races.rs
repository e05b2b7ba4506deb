//! Many writers, and a server that cannot be relied on: what a store says is true all the same.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use spilo::storage::{Claim, ObjectStore, S3Store};

use crate::{name, s3::S3Double};

/// Repeats an earlier walk when it is set.
fn seed() -> u64 {
    let seed = std::env::var("SPILO_STORAGE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SPILO_STORAGE_SEED={seed}");
    seed
}

/// Two clients with so many writers, all after the same names; how many were told for each name that they had won, and the winner's word.
async fn race(double: &S3Double, writers: usize, names: usize) -> Vec<(usize, Option<String>)> {
    let clients = [S3Store::init(&double.config("prod")).await.unwrap(), S3Store::open(&double.config("prod")).await.unwrap()];
    let clients = clients.map(|client| client.with_patience(Duration::from_secs(60)));
    let race = |number: usize| {
        let clients = &clients;
        async move {
            let object = name(&format!("wal/{number}"));
            let claims = (0..writers).map(|writer| {
                let object = &object;
                async move { (writer, clients[writer % 2].create(object, writer.to_string().into()).await.unwrap()) }
            });
            let claims = futures_util::future::join_all(claims).await;
            let winners: Vec<_> = claims.iter().filter(|(_, claim)| *claim == Claim::Won).map(|(writer, _)| writer.to_string()).collect();
            (winners.len(), winners.into_iter().next())
        }
    };
    let outcomes: Vec<_> = stream::iter(0..names).map(race).buffered(8).collect().await;
    for (number, (winners, word)) in outcomes.iter().enumerate() {
        let left = String::from_utf8(double.content(&format!("prod/wal/{number}")).unwrap()).unwrap();
        assert!(left.parse::<usize>().unwrap() < writers, "{number}: '{left}'");
        assert!(*winners <= 1 && word.as_ref().is_none_or(|word| *word == left), "{number}: {winners} {word:?} '{left}'");
    }
    outcomes
}

#[tokio::test]
async fn of_all_writers_of_thousands_of_names_one_wins_each() {
    let outcomes = race(&S3Double::start(), 2, 2_000).await;
    assert!(outcomes.iter().all(|(winners, _)| *winners == 1));
}

#[tokio::test]
async fn nobody_is_told_of_a_win_that_was_anothers_when_answers_get_lost() {
    let double = S3Double::start();
    double.chaos(0.3, seed());
    let outcomes = race(&double, 4, 300).await;
    let unknown = outcomes.iter().filter(|(winners, _)| *winners == 0).count();
    assert!((1..150).contains(&unknown), "some wins are not known of, as their answers got lost: {unknown} of 300");
}

/// What one client knows of the objects.
struct Walk {
    double: S3Double,
    store: S3Store,
    known: BTreeMap<String, Bytes>,
    chance: fastrand::Rng,
}

impl Walk {
    async fn step(&mut self, number: usize) {
        let text = format!("walk/{}", self.chance.u8(..12));
        let object = name(&text);
        let known = self.known.get(&text).cloned();
        match self.chance.u8(..7) {
            0 | 1 => self.create(number, &text, known).await,
            2 => {
                let content = self.content(number);
                self.store.replace(&object, content.clone()).await.unwrap();
                self.known.insert(text, content);
            }
            3 => assert_eq!(self.store.read(&object).await.unwrap(), known, "{number}"),
            4 => assert_eq!(self.store.size(&object).await.unwrap(), known.map(|content| content.len() as u64), "{number}"),
            5 => {
                let listed = self.store.list(&name("walk")).await.unwrap();
                let listed: Vec<_> = listed.iter().map(|object| (object.name.as_str(), object.size)).collect();
                let known: Vec<_> = self.known.iter().map(|(name, content)| (name.as_str(), content.len() as u64)).collect();
                assert_eq!(listed, known, "{number}");
            }
            _ => {
                self.store.remove(&object).await.unwrap();
                self.known.remove(&text);
            }
        }
    }

    async fn create(&mut self, number: usize, text: &str, known: Option<Bytes>) {
        let content = self.content(number);
        let claim = self.store.create(&name(text), content.clone()).await.unwrap();
        let expected = known.unwrap_or(content.clone());
        let kept = self.double.content(&format!("prod/{text}")).unwrap();
        assert!(kept == expected, "{number}: {claim:?}");
        if claim == Claim::Won {
            assert_eq!(expected, content, "{number}: a name that was taken is not won");
        }
        self.known.insert(text.to_owned(), expected);
    }

    fn content(&mut self, number: usize) -> Bytes {
        let length = self.chance.usize(..400);
        number.to_le_bytes().into_iter().cycle().take(length + 8).collect()
    }
}

#[tokio::test]
async fn no_result_is_false_when_a_third_of_all_requests_go_wrong() {
    let (double, seed) = (S3Double::start(), seed());
    let store = S3Store::init(&double.config("prod")).await.unwrap().with_patience(Duration::from_secs(60));
    double.chaos(0.3, seed);
    let mut walk = Walk { double, store, known: BTreeMap::new(), chance: fastrand::Rng::with_seed(seed) };
    for number in 0..700 {
        walk.step(number).await;
    }
}
