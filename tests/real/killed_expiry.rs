//! `spilo backup expire` killed right after each thing that it does to the store, backups and archived files likewise: what is kept can be
//! restored at each moment, and what goes is gone after the next run.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Child,
    time::Duration,
};

use jiff::SignedDuration;
use spilo::{
    backup::{Archive, catalog::Catalog, encryption::SealedStore, manifest::Header},
    model::{WalFile, WalSegment},
};

use super::{
    lone_server::{CLUSTER, Server, Stage},
    s3::{Fault, Rule, S3Double, Snapshot, Verb},
};
use crate::support::{block, run::Run, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

const EXPIRE: [&str; 9] = ["backup", "expire", "--window", "0s", "--grace", "0s", "--force", "--apply", "--keep"];

/// After so many runs everything is gone: where one was killed while it marked backups, they go one after the other, and what the first has shared
/// with the second is marked when that is gone.
const RUNS: usize = 4;

/// What writes to the store.
const WRITES: [Verb; 2] = [Verb::Put, Verb::Delete];

struct Scene<'a> {
    stage: &'a Stage,
    double: &'a S3Double,
}

impl Scene<'_> {
    fn words<'w>(&'w self, words: &[&'w str]) -> Vec<&'w str> {
        [words, &["--cluster", CLUSTER], &self.stage.store()].concat()
    }

    fn spilo(&self, words: &[&str]) -> Run {
        self.stage.spilo(&self.words(words))
    }

    /// Keeps the two newest.
    fn expire(&self) {
        self.spilo(&[&EXPIRE[..], &["2"]].concat()).exits(0);
    }

    fn begin_to_expire(&self) -> Child {
        self.stage.begin(&self.words(&[&EXPIRE[..], &["2"]].concat()))
    }

    /// What the bucket has, but for what somebody who asks for the time has left.
    fn names(&self) -> BTreeSet<String> {
        self.double.names().into_iter().filter(|name| !name.contains("/clock/")).collect()
    }

    fn names_of(&self, part: &str) -> BTreeSet<String> {
        self.names().into_iter().filter(|name| name.contains(part)).collect()
    }

    /// How many PUTs and DELETEs that takes.
    fn writes(&self, mut work: impl FnMut()) -> [u64; 2] {
        let before = WRITES.map(|verb| self.double.requests(verb));
        work();
        [0, 1].map(|at| self.double.requests(WRITES[at]) - before[at])
    }

    /// Does not answer the next such request but those, though it does what is asked for. The process that has asked waits then.
    fn hold(&self, child: &mut Child, verb: Verb, skip: u64) {
        let before = self.double.held();
        self.double.misbehave(Rule::once(Fault::Held).on(verb).after(skip));
        wait_until("the request comes", LIMIT, || {
            assert!(child.try_wait().unwrap().is_none(), "it has ended before its {verb:?} {skip}");
            self.double.held() > before
        });
    }

    fn kill(&self, mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
        self.double.behave();
    }
}

/// Backups of which the first three go: the first one whole, of the third what the fourth and fifth have taken over stays. All of it is verified.
fn make_backups(scene: &Scene, server: &Server) {
    server.sql("create table t (i int, text text)");
    for (number, full) in [(1, true), (2, false), (3, true), (4, false), (5, false)] {
        server.sql(&format!("insert into t select {number}, md5(i::text) from generate_series(1, 3000) i"));
        server.back_up_with(if full { &["--full"] } else { &[] });
    }
    server.sql("insert into t select 6, 'after all backups'");
    server.archive_all();
    scene.spilo(&["backup", "verify", "--all", "--deep"]).exits(0);
}

/// For the manifest of each backup, what has to be there as long as that is: its packs, and WAL until it is consistent.
type Needs = BTreeMap<String, Vec<String>>;

fn needs(double: &S3Double) -> Needs {
    let names = double.names();
    let system = names.iter().find_map(|name| name.strip_prefix("prod/orders/backup/")?.split('/').next()).unwrap();
    let (archive, catalog) = block(async {
        let store = SealedStore::open(&double.config("prod"), CLUSTER.parse().unwrap()).await.unwrap();
        let archive = Archive::of(store, system.parse().unwrap());
        let catalog = Catalog::read(&archive).await.unwrap();
        (archive, catalog)
    });
    let of_backup = |header: &Header| {
        let size = u64::from(header.segment_size);
        let segments = header.start.lsn.0 / size..=header.stop.lsn.0 / size;
        let segments = segments.map(|ordinal| WalFile::Segment(WalSegment::nth(header.start.timeline, ordinal, size)));
        let packs = header.packs.iter().map(|pack| archive.pack(&pack.backup, pack.number).unwrap());
        let objects = packs.chain(segments.map(|segment| archive.object(segment).unwrap()));
        (format!("prod/{}", archive.manifest(&header.id).unwrap()), objects.map(|object| format!("prod/{object}")).collect())
    };
    catalog.backups.iter().map(of_backup).collect()
}

/// Whoever has a manifest, also one that is to go, has all that it needs.
fn is_sound(names: &BTreeSet<String>, needs: &Needs, told: &str) {
    for (manifest, needed) in needs.iter().filter(|(manifest, _)| names.contains(*manifest)) {
        let missing: Vec<_> = needed.iter().filter(|name| !names.contains(*name)).collect();
        assert!(missing.is_empty(), "{told}: '{manifest}' lacks {missing:?}");
    }
}

/// Expiry from this state on, killed after each of its writes.
fn kill_everywhere(scene: &Scene, state: &Snapshot, writes: [u64; 2], needs: &Needs, end: &BTreeSet<String>) {
    for (verb, count) in WRITES.into_iter().zip(writes) {
        for moment in 0..count {
            let told = format!("killed after {verb:?} {moment} of {count}");
            scene.double.put_back(state);
            let mut child = scene.begin_to_expire();
            scene.hold(&mut child, verb, moment);
            scene.kill(child);
            let missing: Vec<_> = end.difference(&scene.names()).cloned().collect();
            assert!(missing.is_empty(), "{told}: {missing:?}");
            is_sound(&scene.names(), needs, &told);
            for _ in 0..RUNS {
                if scene.names() != *end {
                    scene.expire();
                }
            }
            assert_eq!(scene.names(), *end, "{told}");
        }
    }
}

/// Two at once, of which one is killed at this of its removals, and the other one waits at that of its own meanwhile.
fn kill_one_of_two(scene: &Scene, condemned: &Snapshot, moments: (u64, u64), end: &BTreeSet<String>) {
    let told = format!("{moments:?}");
    scene.double.put_back(condemned);
    let mut killed = scene.begin_to_expire();
    scene.hold(&mut killed, Verb::Delete, moments.0);
    let mut other = scene.begin_to_expire();
    scene.hold(&mut other, Verb::Delete, moments.1);
    scene.kill(killed);
    scene.double.release();
    assert!(other.wait().unwrap().success(), "{told}");
    assert_eq!(scene.names(), *end, "{told}");
    // One that goes on after another one has done all of it.
    scene.double.put_back(condemned);
    let mut slow = scene.begin_to_expire();
    scene.hold(&mut slow, Verb::Delete, moments.0);
    scene.expire();
    assert_eq!(scene.names(), *end, "{told}");
    scene.double.release();
    assert!(slow.wait().unwrap().success(), "{told}");
    assert_eq!(scene.names(), *end, "{told}");
    scene.double.behave();
}

#[test]
fn an_expiry_that_is_killed_anywhere_takes_nothing_that_is_kept_and_leaves_nothing_that_goes() {
    let double = S3Double::start();
    let Some(stage) = Stage::with_bucket(&double) else { return };
    let scene = Scene { stage: &stage, double: &double };
    let server = stage.create("source");
    make_backups(&scene, &server);
    let (before, needs) = (double.snapshot(), needs(&double));
    assert!(needs.len() == 5 && needs.values().all(|needed| needed.len() > 1), "{needs:?}");
    is_sound(&scene.names(), &needs, "at first");
    let marking = scene.writes(|| scene.expire());
    let (condemned, marked) = (double.snapshot(), scene.names());
    let removing = scene.writes(|| scene.expire());
    let end = scene.names();
    assert!(marking[0] >= 4 && removing[1] > 15, "{marking:?} {removing:?}");
    let gone = marked.difference(&end).count();
    assert!(gone > 15 && scene.names_of("/tomb/").is_empty() && scene.names_of("/manifest").len() == 2, "{gone} of {marked:?}");
    assert_eq!(scene.writes(|| scene.expire()), [1, 1], "nothing is left to do but to ask for the time");

    kill_everywhere(&scene, &before, marking, &needs, &end);
    kill_everywhere(&scene, &condemned, removing, &needs, &end);
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    for _ in 0..3 {
        kill_one_of_two(&scene, &condemned, (chance.u64(..removing[1] - 4), chance.u64(..4)), &end);
    }
    let mut asking = scene.begin_to_expire();
    scene.hold(&mut asking, Verb::Put, 0);
    scene.kill(asking);
    assert!(double.names().iter().any(|name| name.contains("/clock/")), "killed while it asked for the time");
    double.age("/clock/", SignedDuration::from_hours(2));
    scene.expire();
    assert_eq!(double.names().into_iter().collect::<BTreeSet<_>>(), end);

    scene.spilo(&["backup", "verify", "--all", "--deep"]).exits(0);
    scene.spilo(&["wal", "check"]).exits(0);
    let oldest = scene.names_of("/manifest").into_iter().next().unwrap();
    let oldest = oldest.rsplit('/').nth(1).unwrap();
    stage.restore("copy", &["--backup", oldest]).exits(0);
    assert_eq!(stage.recovered("copy").sql("select count(*) from t"), "15001", "all that came after the oldest backup is there too");
    fetch_and_push(&scene, &server);
    back_up(&scene, &server);
}

/// Goes on with the server and the archive of before, as to make them takes longer than this.
fn fetch_and_push(scene: &Scene, server: &Server) {
    server.sql("alter system set archive_command = 'false'");
    server.sql("select pg_reload_conf()");
    server.sql("insert into t select 7, 'not archived'");
    let name = server.sql("select pg_walfile_name(pg_switch_wal())");
    let file = server.data.join("pg_wal").join(&name);
    let push = scene.words(&["wal", "push", file.to_str().unwrap(), &name]);
    let mut child = scene.stage.begin(&push);
    scene.hold(&mut child, Verb::Put, 0);
    scene.kill(child);
    assert_eq!(scene.names_of(&name).len(), 1, "it was stored, and nobody was told");
    scene.stage.spilo(&push).exits(0);
    assert!(scene.names_of("/conflict/").is_empty());

    let target = server.data.join("pg_wal/fetched");
    let fetch = scene.words(&["wal", "fetch", &name, target.to_str().unwrap()]);
    let stored = scene.double.content(scene.names_of(&name).first().unwrap()).unwrap();
    for received in [0, stored.len() / 2, stored.len() - 1] {
        scene.double.misbehave(Rule::once(Fault::StallAfter(received)).on(Verb::Get).of(&name));
        let child = scene.stage.begin(&fetch);
        wait_until("it has begun to read", LIMIT, || scene.double.unspent() == 0);
        std::thread::sleep(Duration::from_millis(20));
        scene.kill(child);
        assert!(!target.exists(), "of {} bytes {received} came", stored.len());
    }
    scene.stage.spilo(&fetch).exits(0);
    assert!(std::fs::read(&target).unwrap() == std::fs::read(&file).unwrap());
}

/// Backups that are killed after each of their writes, and what is left of them.
fn back_up(scene: &Scene, server: &Server) {
    server.sql("alter system reset archive_command");
    server.sql("select pg_reload_conf()");
    server.sql("insert into t select 8, md5(i::text) from generate_series(1, 3000) i");
    let manifests = scene.names_of("/manifest");
    for moment in 0.. {
        let mut child = server.begin_to_back_up(&["--full"]);
        let before = scene.double.held();
        scene.double.misbehave(Rule::once(Fault::Held).on(Verb::Put).of("/backup/").after(moment));
        wait_until("it stores something", LIMIT, || scene.double.held() > before || child.try_wait().unwrap().is_some());
        let ended = child.try_wait().unwrap();
        scene.kill(child);
        if scene.names_of("/manifest") != manifests {
            assert!(moment > 0 && ended.is_none(), "the manifest is written last: {moment}");
            break;
        }
        assert!(ended.is_none(), "it ended without a manifest");
        scene.spilo(&["backup", "verify", "--all"]).exits(0);
    }
    let told = server.back_up();
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    scene.spilo(&["backup", "verify", "--all", "--deep"]).exits(0);
    for _ in 0..RUNS {
        scene.spilo(&[&EXPIRE[..], &["1"]].concat()).exits(0);
    }
    scene.spilo(&["backup", "verify", "--all", "--deep"]).exits(0);
    let left = scene.names_of("/manifest");
    assert!(left.len() == 1 && left.first().unwrap().contains(told["id"].as_str().unwrap()), "{left:?}");
    assert!(scene.names_of("/tomb/").is_empty(), "{:?}", scene.names_of("/tomb/"));
}
