//! The service without a process of its own: files in a directory for a server, a directory for a store.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::LocalSet,
};

use super::{Service, fetcher::Fetcher, health::Health, lane::Lanes, left_behind::LeftBehind, pusher::Pusher, vault::Vault};
use crate::{
    backup::{
        Archive,
        encryption::Sealer,
        wal_object,
        wal_wire::{Answer, Request},
    },
    model::{StoreUrl, SystemId, Timeline, WalFile, WalSegment},
    postgres::wal_segment::Segment,
    storage::{FileStore, Store, StoreConfig},
};

const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

/// A server's directory and the parts of its service.
struct Node {
    data: PathBuf,
    vault: Rc<Vault>,
    health: Rc<Health>,
    pusher: Rc<Pusher>,
}

impl Node {
    fn new(world: &tempfile::TempDir, name: &str) -> Node {
        let data = world.path().join(name);
        for folder in ["global", "pg_wal/archive_status"] {
            fs::create_dir_all(data.join(folder)).unwrap();
        }
        let node = Node::of(data, world.path().join("store"));
        node.control(6, 1);
        node
    }

    fn of(data: PathBuf, store: PathBuf) -> Node {
        let config = StoreConfig::new(StoreUrl::File(store));
        let vault = Rc::new(Vault::new(config, "orders".parse().unwrap(), data.clone()));
        let health = Rc::new(Health::new());
        let mut pusher = Pusher::alone(vault.clone(), health.clone(), Lanes::new(2, None));
        pusher.patience = Duration::from_secs(5);
        Node { data, vault, health, pusher: Rc::new(pusher) }
    }

    /// The control file: in this state, on this timeline.
    fn control(&self, state: u32, timeline: u32) {
        self.control_of(SYSTEM, state, timeline);
    }

    fn control_of(&self, system: SystemId, state: u32, timeline: u32) {
        let mut bytes = vec![0; 8192];
        bytes[..8].copy_from_slice(&system.0.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1300u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&state.to_ne_bytes());
        bytes[48..52].copy_from_slice(&timeline.to_ne_bytes());
        fs::write(self.data.join("global/pg_control"), bytes).unwrap();
    }

    /// Puts a file into `pg_wal`, with PostgreSQL's note about it.
    fn put(&self, file: WalFile, content: &[u8], note: &str) -> PathBuf {
        let path = self.data.join("pg_wal").join(file.to_string());
        fs::write(&path, content).unwrap();
        fs::write(self.data.join(format!("pg_wal/archive_status/{file}.{note}")), "").unwrap();
        path
    }

    fn put_segment(&self, segment: &Segment, note: &str) -> WalFile {
        let file = WalFile::Segment(segment.name());
        self.put(file, &segment.build(), note);
        file
    }

    /// Asks as PostgreSQL does, and notes the answer as it does.
    async fn push(&self, file: WalFile) -> Answer {
        let answer = self.pusher.push(file, self.data.join("pg_wal").join(file.to_string())).await;
        if answer == Answer::Done {
            let note = |kind: &str| self.data.join(format!("pg_wal/archive_status/{file}.{kind}"));
            fs::rename(note("ready"), note("done")).unwrap();
        }
        answer
    }

    async fn state(&self) -> Value {
        serde_json::from_str(&self.health.told(&self.vault, Value::Null).await).unwrap()
    }
}

fn world() -> tempfile::TempDir {
    world_in(&std::env::temp_dir())
}

fn world_in(place: &Path) -> tempfile::TempDir {
    let world = tempfile::tempdir_in(place).unwrap();
    fs::create_dir(world.path().join("store")).unwrap();
    FileStore::init(&world.path().join("store")).unwrap();
    world
}

fn archive(world: &tempfile::TempDir) -> Archive<FileStore> {
    Archive::new(FileStore::open(&world.path().join("store")).unwrap(), "orders".parse().unwrap(), SYSTEM)
}

async fn content(archive: &Archive<FileStore>, file: WalFile) -> Option<Vec<u8>> {
    let object = archive.store().read(&archive.object(file).unwrap()).await.unwrap()?;
    Some(wal_object::unpack(&object).unwrap())
}

/// A segment that is full, with its number all over it.
fn full(number: u32, size: u32) -> Segment {
    let record = vec![u8::try_from(number % 251).unwrap(); 60_000];
    Segment { size, records: vec![record; size as usize / 60_000 + 1], ..Segment::new(1, number) }
}

fn nth(timeline: u32, number: u64) -> WalFile {
    WalFile::Segment(WalSegment::nth(Timeline(timeline), number, 1 << 20))
}

async fn soon(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if ready().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within ten seconds: {what}");
}

#[tokio::test]
async fn of_two_services_with_different_contents_each_name_has_one_winner() {
    let story = async {
        // In memory, where there is that: six thousand objects are made durable one by one.
        let memory = Path::new("/dev/shm");
        let world = if memory.is_dir() { world_in(memory) } else { world() };
        let nodes = [Node::new(&world, "a"), Node::new(&world, "b")];
        // Notes on base backups: small, and named like segments.
        let file = |number: u32| WalFile::BackupNote(WalSegment::nth(Timeline(1), u64::from(number), 1 << 20), 0x28);
        let text = |node: &Node, number: u32| format!("{number} of {}", node.data.display()).into_bytes();
        let numbers = 1..=2000;
        for node in &nodes {
            numbers.clone().for_each(|number| drop(node.put(file(number), &text(node, number), "ready")));
        }
        let push = async |node: &Node| {
            let mut won = Vec::new();
            for number in numbers.clone() {
                won.push(node.push(file(number)).await == Answer::Done);
            }
            won
        };
        let (first, second) = tokio::join!(push(&nodes[0]), push(&nodes[1]));
        let archive = archive(&world);
        for ((number, first), second) in numbers.clone().zip(first).zip(second) {
            assert!(first != second, "{number} has {} winners", u8::from(first) + u8::from(second));
            let (winner, loser) = if first { (&nodes[0], &nodes[1]) } else { (&nodes[1], &nodes[0]) };
            assert_eq!(content(&archive, file(number)).await, Some(text(winner, number)));
            let head = wal_object::Head::of(&text(loser, number));
            let aside = archive.aside(file(number), &head.short(&Sealer::default())).unwrap();
            assert!(archive.store().size(&aside).await.unwrap().is_some(), "{number}: the other content is lost");
        }
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn files_are_archived_ahead_of_the_question_and_only_once() {
    let story = async {
        let world = world();
        let node = Node::new(&world, "a");
        let files: Vec<WalFile> = (1..=30).map(|number| node.put_segment(&full(number, 1 << 20), "ready")).collect();
        assert_eq!(node.push(files[0]).await, Answer::Done);
        // Nobody asks any further, and yet the others get there.
        let archive = archive(&world);
        let last = *files.last().unwrap();
        soon("the last is archived", async || content(&archive, last).await.is_some()).await;
        for (number, file) in (1..).zip(&files) {
            assert_eq!(content(&archive, *file).await.unwrap(), full(number, 1 << 20).build());
        }
        // What was archived is known: the store is not asked again.
        fs::rename(world.path().join("store"), world.path().join("away")).unwrap();
        for file in &files[1..] {
            assert_eq!(node.push(*file).await, Answer::Done, "{file}");
        }
        assert_eq!((node.state().await["archived"].as_u64(), node.state().await["failing_since"].is_null()), (Some(30), true));
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn another_file_of_a_name_that_was_archived_is_not_taken_for_it() {
    let story = async {
        let world = world();
        let node = Node::new(&world, "a");
        let file = node.put_segment(&full(1, 1 << 20), "ready");
        assert_eq!(node.push(file).await, Answer::Done);
        node.put_segment(&Segment { switched: true, ..Segment::new(1, 1) }.with(&[b"other"]), "ready");
        let Answer::Again(why) = node.push(file).await else { panic!("it was taken for the first one") };
        assert!(why.contains("another content"), "{why}");
        let state = node.state().await;
        let told = &state["conflicts"][0];
        assert_eq!((&told["file"], &state["conflicting"], &state["failures"]), (&json!(file.to_string()), &json!(1), &json!(1)));
        let (since, aside) = (told["since"].clone(), told["aside"].as_str().unwrap().parse().unwrap());
        assert!(archive(&world).store().size(&aside).await.unwrap().is_some(), "{aside}");
        // PostgreSQL asks again: it is the same conflict, since the same moment.
        assert!(matches!(node.push(file).await, Answer::Again(_)));
        let state = node.state().await;
        assert_eq!((&state["conflicts"][0]["since"], &state["conflicting"], &state["failures"]), (&since, &json!(1), &json!(2)));
        // A rewind has removed the file: nobody wants it archived any more.
        fs::remove_file(node.data.join(format!("pg_wal/archive_status/{file}.ready"))).unwrap();
        let state = node.state().await;
        assert_eq!((&state["conflicts"], &state["conflicting"]), (&json!([]), &json!(0)));
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_store_that_goes_away_loses_nothing_and_is_caught_up_with() {
    let story = async {
        let world = world();
        let mut node = Node::new(&world, "a");
        Rc::get_mut(&mut node.pusher).unwrap().patience = Duration::from_millis(300);
        let files: Vec<WalFile> = (1..=12).map(|number| node.put_segment(&full(number, 1 << 20), "ready")).collect();
        assert_eq!(node.push(files[0]).await, Answer::Done);
        let late = (13..=20).map(|number| node.put_segment(&full(number, 1 << 20), "ready")).collect::<Vec<_>>();
        fs::rename(world.path().join("store"), world.path().join("away")).unwrap();
        let Answer::Again(why) = node.push(late[0]).await else { panic!("there is no store") };
        assert!(why.contains("no store any more"), "{why}");
        let state = node.state().await;
        assert!(state["failing_since"].is_string() && state["last_error"].as_str().unwrap().contains("no store any more"), "{state}");
        assert!(state["waiting"]["files"].as_u64().unwrap() >= 19 && state["waiting"]["bytes"].as_u64().unwrap() >= 19 << 20, "{state}");
        fs::rename(world.path().join("away"), world.path().join("store")).unwrap();
        for file in files[1..].iter().chain(&late) {
            soon("it is archived", async || node.push(*file).await == Answer::Done).await;
        }
        let state = node.state().await;
        assert!(state["failing_since"].is_null() && state["waiting"]["files"] == 0 && state["archived"] == 20, "{state}");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_store_that_has_refused_is_tried_again_by_a_primary_before_postgresql_asks() {
    let story = async {
        let world = world();
        let node = Node::new(&world, "a");
        let file = node.put_segment(&full(1, 1 << 20), "ready");
        // Somebody has taken away the right to write there, or the mark of the store.
        let (mark, away) = (world.path().join("store/.spilo-store"), world.path().join("mark"));
        fs::rename(&mark, &away).unwrap();
        assert!(matches!(node.push(file).await, Answer::Again(_)));
        let failing = node.state().await["failing"].clone();
        assert!(failing["refused"] == true && failing["why"].as_str().is_some_and(|why| why.contains("store")), "{failing}");
        fs::rename(&away, &mark).unwrap();
        // A standby leaves it to the primary.
        fs::write(node.data.join("standby.signal"), "").unwrap();
        node.pusher.clone().look();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(node.state().await["failing"].is_object());
        fs::remove_file(node.data.join("standby.signal")).unwrap();
        node.pusher.clone().look();
        soon("it is archived", async || node.state().await["failing"].is_null()).await;
        assert_eq!(content(&archive(&world), file).await.unwrap(), full(1, 1 << 20).build());
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_server_that_is_stopped_while_the_store_is_away_does_not_wait_for_it() {
    let story = async {
        let world = world();
        let mut node = Node::new(&world, "a");
        Rc::get_mut(&mut node.pusher).unwrap().patience = Duration::from_secs(600);
        let file = node.put_segment(&full(1, 1 << 20), "ready");
        fs::rename(world.path().join("store"), world.path().join("away")).unwrap();
        let pusher = node.pusher.clone();
        let path = node.data.join("pg_wal").join(file.to_string());
        let first = tokio::task::spawn_local(async move { pusher.push(file, path).await });
        soon("the store is known to be away", async || node.health.why_failing().is_some()).await;
        // This would take ten minutes.
        let answer = tokio::time::timeout(Duration::from_secs(60), node.push(file)).await;
        assert!(matches!(answer, Ok(Answer::Again(_))), "{answer:?}");
        first.abort();
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn segments_of_every_size_come_back_ahead_of_the_question() {
    let story = async {
        for (size, count) in [(1 << 20, 24), (16 << 20, 6), (64 << 20, 4)] {
            let world = world();
            let (node, standby) = (Node::new(&world, "a"), Node::new(&world, "b"));
            for number in 1..=count {
                let file = node.put_segment(&full(number, size), "ready");
                assert_eq!(node.push(file).await, Answer::Done);
            }
            let fetcher = Fetcher::new(standby.vault.clone(), standby.health.clone());
            let place = standby.data.join("pg_wal/RECOVERYXLOG");
            for number in 1..=count {
                let file = WalFile::Segment(full(number, size).name());
                assert_eq!(fetcher.fetch(&file.to_string(), &place).await, Answer::Done);
                assert!(fs::read(&place).unwrap() == full(number, size).build(), "{file}");
            }
            fs::write(standby.data.join("standby.signal"), "").unwrap();
            let next = full(count + 1, size).name().to_string();
            assert_eq!(fetcher.fetch(&next, &place).await, Answer::Absent);
            // It is archived, and found: what was not there a moment ago is not believed for long.
            node.push(node.put_segment(&full(count + 1, size), "ready")).await;
            soon("it is found", async || fetcher.fetch(&next, &place).await == Answer::Done).await;
        }
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn who_walks_backwards_gets_every_segment_and_nothing_else_is_fetched() {
    let story = async {
        let world = world();
        let (node, other) = (Node::new(&world, "a"), Node::new(&world, "b"));
        for number in 1..=10 {
            let file = node.put_segment(&full(number, 1 << 20), "ready");
            assert_eq!(node.push(file).await, Answer::Done);
        }
        let fetcher = Fetcher::new(other.vault.clone(), other.health.clone());
        for number in (1..=10).rev() {
            let place = other.data.join("pg_wal").join(nth(1, number).to_string());
            assert_eq!(fetcher.fetch(&nth(1, number).to_string(), &place).await, Answer::Done);
        }
        let state = other.state().await;
        assert_eq!((&state["fetched"], &state["fetched_bytes"]), (&json!(10), &json!(10 << 20)));
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn what_was_fetched_ahead_of_one_system_is_not_handed_to_another() {
    let story = async {
        let world = world();
        let other = SystemId(7_300_000_000_000_000_002);
        let nodes = [(Node::new(&world, "a"), SYSTEM), (Node::new(&world, "b"), other)];
        for (node, system) in &nodes {
            node.control_of(*system, 6, 1);
            for number in 1..=8 {
                let file = node.put_segment(&Segment { system: *system, ..full(number, 1 << 20) }, "ready");
                assert_eq!(node.push(file).await, Answer::Done);
            }
        }
        let standby = Node::new(&world, "c");
        let fetcher = Fetcher::new(standby.vault.clone(), standby.health.clone());
        let place = standby.data.join("pg_wal/RECOVERYXLOG");
        for number in 1..=2 {
            assert_eq!(fetcher.fetch(&nth(1, number).to_string(), &place).await, Answer::Done);
        }
        // The next ones are here, or on their way.
        soon("they are here", async || standby.state().await["fetched"].as_u64() >= Some(4)).await;
        standby.control_of(other, 6, 1);
        for number in 3..=8 {
            assert_eq!(fetcher.fetch(&nth(1, u64::from(number)).to_string(), &place).await, Answer::Done);
            assert!(fs::read(&place).unwrap() == Segment { system: other, ..full(number, 1 << 20) }.build(), "{number}");
        }
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_no_answer() {
    let story = async {
        let world = world();
        let node = Node::new(&world, "a");
        fs::write(node.data.join("standby.signal"), "").unwrap();
        fs::rename(world.path().join("store"), world.path().join("away")).unwrap();
        let fetcher = Fetcher::new(node.vault.clone(), node.health.clone());
        let place = node.data.join("pg_wal/RECOVERYHISTORY");
        assert_eq!(fetcher.fetch("00000001.history", &place).await, Answer::Absent, "the first timeline comes from nowhere");
        for name in [nth(1, 5).to_string(), "00000002.history".to_owned()] {
            let answer = fetcher.fetch(&name, &node.data.join("pg_wal/RECOVERYXLOG")).await;
            assert!(matches!(&answer, Answer::Again(why) if why.contains("there is no store")), "{answer:?}");
        }
        // The second time a standby, which may be about to be promoted, does not wait.
        let begun = std::time::Instant::now();
        assert_ne!(fetcher.fetch(&nth(1, 5).to_string(), &node.data.join("pg_wal/RECOVERYXLOG")).await, Answer::Absent);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(node.state().await["fetch_error"]["error"].as_str().unwrap().contains("there is no store"));
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_store_that_is_slower_than_a_standby_can_wait_is_heard_to_answer() {
    let story = async {
        let world = world();
        let (node, standby) = (Node::new(&world, "a"), Node::new(&world, "b"));
        let history = WalFile::History(Timeline(2));
        node.put(history, b"1\t0/500000\tx\n", "ready");
        assert_eq!(node.push(history).await, Answer::Done);
        // Whoever reads from a pipe waits until somebody writes into it.
        let archive = archive(&world);
        let object = world.path().join("store").join(archive.object(history).unwrap().as_str());
        let content = fs::read(&object).unwrap();
        fs::remove_file(&object).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &object, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        let fetcher = Fetcher::new(standby.vault.clone(), standby.health.clone());
        let place = standby.data.join("pg_wal/RECOVERYHISTORY");
        // With the first question it finds out whose data directory it is.
        assert_eq!(fetcher.fetch("00000001.history", &place).await, Answer::Absent);
        let soon_enough = std::time::Instant::now() + Duration::from_millis(50);
        assert!(matches!(fetcher.other(history, &place, true, soon_enough).await, Answer::Again(_)));
        assert!(standby.state().await["fetch_error"].is_object());
        tokio::task::spawn_blocking({
            let (object, content) = (object.clone(), content.clone());
            move || fs::write(object, content).unwrap()
        })
        .await
        .unwrap();
        soon("it is heard", async || standby.state().await["fetch_error"].is_null()).await;
        assert!(!place.exists(), "nobody waits for it any more");
        fs::remove_file(&object).unwrap();
        fs::write(&object, content).unwrap();
        assert_eq!(fetcher.fetch(&history.to_string(), &place).await, Answer::Done);
        assert_eq!(fs::read(&place).unwrap(), b"1\t0/500000\tx\n");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn what_a_client_that_is_gone_has_asked_for_is_put_nowhere() {
    let story = async {
        let world = world();
        let (node, other) = (Node::new(&world, "a"), Node::new(&world, "b"));
        let file = node.put_segment(&full(1, 1 << 20), "ready");
        assert_eq!(node.push(file).await, Answer::Done);
        let service = Rc::new(Service {
            fetcher: Fetcher::new(other.vault.clone(), other.health.clone()),
            left_behind: LeftBehind::new(other.vault.clone(), other.pusher.clone()),
            vault: other.vault.clone(),
            health: other.health.clone(),
            pusher: other.pusher.clone(),
        });
        let place = other.data.join("pg_wal/RECOVERYXLOG");
        let question = Request::Fetch(file.to_string(), place.clone()).line().unwrap();
        let ask = async || {
            let (mut client, server) = UnixStream::pair().unwrap();
            let answering = tokio::task::spawn_local(service.clone().answer(server));
            client.write_all(&question).await.unwrap();
            (client, answering)
        };
        // Somebody who is not a standby is waited for, for a minute.
        fs::rename(world.path().join("store"), world.path().join("away")).unwrap();
        let (client, answering) = ask().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!answering.is_finished());
        drop(client);
        fs::rename(world.path().join("away"), world.path().join("store")).unwrap();
        answering.await.unwrap();
        assert!(!place.exists());
        let (mut client, answering) = ask().await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answering.await.unwrap();
        assert!(answer == Answer::Done.line() && place.exists(), "{answer}");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn a_new_primary_archives_what_the_last_one_left() {
    let story = async {
        let world = world();
        let (old, new) = (Node::new(&world, "old"), Node::new(&world, "new"));
        for number in 1..=3 {
            let file = old.put_segment(&full(number, 1 << 20), "ready");
            assert_eq!(old.push(file).await, Answer::Done);
        }
        // The old one had more, and the new one has streamed it; it forked off in segment 7.
        for number in 2..=7 {
            new.put_segment(&full(number, 1 << 20), "done");
        }
        let history = WalFile::History(Timeline(2));
        new.put(history, b"1\t0/740000\tno recovery target specified\n", "ready");
        let left_behind = LeftBehind::new(new.vault.clone(), new.pusher.clone());
        left_behind.heard(history);
        soon("all is archived", async || left_behind.told()["state"] == "done").await;
        let archive = archive(&world);
        for number in 1..=6 {
            assert_eq!(content(&archive, nth(1, number)).await.unwrap(), full(u32::try_from(number).unwrap(), 1 << 20).build());
        }
        assert_eq!(content(&archive, nth(1, 7)).await, None, "it is no whole segment of that timeline");
        let told = left_behind.told();
        assert!(told["archived"] == 3 && told["missing"] == json!([]) && told["timeline"] == 2, "{told}");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn what_neither_the_archive_nor_the_new_primary_has_is_told() {
    let story = async {
        let world = world();
        let (old, new) = (Node::new(&world, "old"), Node::new(&world, "new"));
        let file = old.put_segment(&full(2, 1 << 20), "ready");
        assert_eq!(old.push(file).await, Answer::Done);
        new.put_segment(&full(5, 1 << 20), "done");
        new.put(WalFile::History(Timeline(2)), b"1\t0/600000\tx\n", "ready");
        let left_behind = LeftBehind::new(new.vault.clone(), new.pusher.clone());
        // A standby leaves that to the primary.
        fs::write(new.data.join("standby.signal"), "").unwrap();
        left_behind.heard(WalFile::History(Timeline(2)));
        assert_eq!(left_behind.told()["state"], "not primary");
        fs::remove_file(new.data.join("standby.signal")).unwrap();
        left_behind.look();
        soon("all is archived", async || left_behind.told()["state"] == "done").await;
        assert_eq!(left_behind.told()["missing"], json!([nth(1, 3).to_string(), nth(1, 4).to_string()]));
        assert!(matches!(new.vault.archive().await.unwrap().store().bare(), Store::File(_)));
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn what_the_new_primary_has_removed_of_the_old_timeline_is_told() {
    let story = async {
        let world = world();
        let (old, new) = (Node::new(&world, "old"), Node::new(&world, "new"));
        for number in 1..=3 {
            let file = old.put_segment(&full(number, 1 << 20), "ready");
            assert_eq!(old.push(file).await, Answer::Done);
        }
        // It forked off in segment 6, and has written so much since that it has nothing of timeline 1 any more.
        for number in 6..=9 {
            new.put_segment(&Segment { timeline: 2, ..full(number, 1 << 20) }, "ready");
        }
        new.put(WalFile::History(Timeline(2)), b"1\t0/640000\tx\n", "ready");
        let left_behind = LeftBehind::new(new.vault.clone(), new.pusher.clone());
        left_behind.heard(WalFile::History(Timeline(2)));
        soon("it has looked", async || left_behind.told()["state"] == "done").await;
        assert_eq!(left_behind.told()["missing"], json!([nth(1, 4).to_string(), nth(1, 5).to_string()]));
    };
    LocalSet::new().run_until(story).await;
}
