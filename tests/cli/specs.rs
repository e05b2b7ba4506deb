//! Spec files: every example and every valid one reads, every invalid one tells all that is wrong with it.

use std::{fs, path::PathBuf};

use spilo::spec::{ClusterSpec, Durability, SpecOverrides, parse_spec};

use crate::spilo::{repository, spilo};

/// The files of a directory, of which there has to be at least one.
fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository(directory)).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry of a directory just listed").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no spec in {directory}");
    files
}

fn spec(path: &str) -> ClusterSpec {
    let text = fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    parse_spec(&text, &SpecOverrides::default()).unwrap_or_else(|error| panic!("{path}: {error}")).spec
}

#[test]
fn every_example_and_every_valid_spec_reads() {
    for path in files("examples").into_iter().chain(files("tests/fixtures/specs/valid")) {
        let text = fs::read_to_string(&path).unwrap();
        parse_spec(&text, &SpecOverrides::default()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn a_spec_reads_as_what_it_says() {
    let spec = spec("tests/fixtures/specs/valid/everything.yaml");
    assert_eq!((spec.nodes.get(), spec.etcd.get(), spec.port, spec.durability), (3, 3, Some(5432), Durability::Async));
    assert_eq!(spec.timings.ttl().as_secs(), 20);
    let parameters: Vec<_> = spec.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(parameters, ["log_checkpoints=off", "max_connections=200", "work_mem=8MB"]);
}

#[test]
fn empty_sections_take_the_defaults() {
    assert_eq!(spec("tests/fixtures/specs/valid/empty-sections.yaml"), ClusterSpec::named("orders".parse().unwrap()));
}

/// Each invalid file begins with `# expect:` lines: what has to be said about it, all in one run.
#[test]
fn every_invalid_spec_tells_all_its_mistakes_at_once() {
    for path in files("tests/fixtures/specs/invalid") {
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        let run = spilo(&["create", "cluster", "-f", path.to_str().unwrap(), "--plan"]).exits(2);
        for mistake in expected {
            assert!(run.stderr.contains(mistake), "{}: expected '{mistake}' in:\n{}", path.display(), run.stderr);
        }
    }
}

#[test]
fn three_mistakes_are_counted_and_listed() {
    let path = repository("tests/fixtures/specs/invalid/three-mistakes.yaml");
    let run =
        spilo(&["create", "cluster", "-f", path.to_str().unwrap()]).exits(2).says("the spec has 3 mistakes:").says("hint: spilo help spec");
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with("  '")).count(), 3, "{}", run.stderr);
}

#[test]
fn a_spec_that_is_not_there_is_named() {
    for command in [&["create", "cluster"][..], &["apply"], &["plan"]] {
        spilo(&[command, &["-f", "/nowhere/orders.yaml"]].concat()).exits(2).says("cannot read the spec '/nowhere/orders.yaml'");
    }
}

#[test]
fn a_mistake_is_told_before_the_engine_is_asked() {
    spilo(&["create", "cluster", "Orders"]).exits(2).says("invalid cluster name 'Orders': it must start with a lower-case letter");
    spilo(&["create", "cluster", "orders", "--nodes", "12"]).exits(2).says("a cluster has 1 to 9 nodes");
    spilo(&["create", "cluster", "orders", "--pg", "14"]).exits(2).says("PostgreSQL 15, 16, 17 and 18 are supported");
    spilo(&["create", "cluster", "orders", "--port", "80"]).exits(2).says("expected a port from 1024 to 65533");
    spilo(&["create", "cluster"]).exits(2).says("a cluster needs a name").says("hint: spilo create cluster NAME");
}
