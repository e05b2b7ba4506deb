//! WAL segments of other sizes than 16 MB, all the way: archived and fetched through the service, backed up, verified, restored, replayed.

use std::{fs, process::Child};

use super::lone_server::{CLUSTER, Server, Stage};

const DIGEST: &str = "select count(*) || ' ' || md5(string_agg(i || text, ',' order by i)) from t";

/// The service that archives. It ends when this goes.
struct Service(Child);

impl Service {
    fn begin(stage: &Stage, data: &str) -> Service {
        Service(stage.begin(&[&["wal", "serve", "--cluster", CLUSTER, "--data-dir", data], &stage.store()[..]].concat()))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

/// Rows of about a kilobyte.
fn fill(server: &Server, from: u32, to: u32) {
    server.sql(&format!("insert into t select i, repeat(md5(i::text), 30) from generate_series({from}, {to}) i"));
}

/// The names of all segments that the server has archived, in order.
fn archived(server: &Server) -> Vec<String> {
    let status = fs::read_dir(server.data.join("pg_wal/archive_status")).unwrap();
    let names = status.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".done").filter(|name| name.len() == 24).map(str::to_owned)).collect();
    names.sort();
    names
}

/// A server with such segments and so many rows comes back from its archive.
fn comes_back(megabytes: u32, rows: u32, fewest: usize) {
    let Some(stage) = Stage::new() else { return };
    let (program, data) = (stage.path("spilo").display().to_string(), stage.path("source").display().to_string());
    let service = Service::begin(&stage, &data);
    let settings = format!("archive_command = '{program} wal push %p %f'\nwal_keep_size = 2GB\nfsync = off\n");
    let server = stage.create_with("source", megabytes, &settings);
    assert_eq!(server.sql("show wal_segment_size"), format!("{megabytes}MB"));
    server.sql("create table t (i int, text text)");
    fill(&server, 1, rows);
    server.back_up();
    fill(&server, rows + 1, rows + rows / 2);
    let expected = server.sql(DIGEST);
    server.sql("select pg_create_restore_point('all of them')");
    server.sql("delete from t where i % 2 = 0");
    server.archive_all();

    let in_store = |words: &[&str]| stage.spilo(&[words, &["--cluster", CLUSTER], &stage.store()[..]].concat());
    in_store(&["backup", "verify", "--all", "--deep"]).exits(0);
    in_store(&["wal", "check"]).exits(0);
    let names = archived(&server);
    assert!(names.len() >= fewest, "{names:?}");
    let target = server.data.join("pg_wal/fetched");
    for name in &names {
        stage.spilo(&["wal", "fetch", name, target.to_str().unwrap()]).exits(0);
        assert!(fs::read(&target).unwrap() == fs::read(server.data.join("pg_wal").join(name)).unwrap(), "{name}");
    }
    drop((server, service));

    stage.restore("copy", &["--restore-point", "all of them"]).exits(0);
    let copy = stage.recovered("copy");
    assert_eq!(copy.sql(DIGEST), expected);
    assert_eq!(copy.sql("show wal_segment_size"), format!("{megabytes}MB"));
    drop(copy);
    fs::remove_dir_all(stage.path("copy")).unwrap();
    stage.restore("copy", &[]).exits(0);
    assert_eq!(stage.recovered("copy").sql("select count(*) || ' ' || sum(i % 2) from t"), format!("{0} {0}", rows.div_ceil(4) * 3));
}

#[test]
fn a_server_with_segments_of_64_megabytes_comes_back() {
    comes_back(64, 80_000, 4);
}

#[test]
fn a_server_with_segments_of_one_megabyte_comes_back() {
    comes_back(1, 8_000, 12);
}
