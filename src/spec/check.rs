//! Raw values to a [`ClusterSpec`]: every mistake is collected, none hides another.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use serde_json::{Map, Value};

use super::{
    ArchiveOptions, ArchiveSpec, CloneWish, ClusterSpec, Durability, EtcdCount, HaTimings, InvalidSpec, Mistake, NodeCount,
    PostgresVersion, archive, clone,
    parameters::check_parameters,
    raw::{kind_of, parse_spec_text},
};
use crate::model::ClusterName;

const TOP_LEVEL: &[&str] = &["name", "nodes", "postgres", "ha", "archive", "clone_from", "docker"];
const POSTGRES: &[&str] = &["version", "parameters"];
const HA: &[&str] = &["durability", "ttl", "loop_wait", "retry_timeout"];
const DOCKER: &[&str] = &["etcd", "port", "image"];

/// Ports are published in a row of three, so the first one has to leave room for two more.
const HIGHEST_FIRST_PORT: u16 = u16::MAX - 2;

/// What the command line says; each value present wins over the file's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecOverrides {
    /// The cluster's name.
    pub name: Option<ClusterName>,
    /// Number of PostgreSQL nodes.
    pub nodes: Option<NodeCount>,
    /// PostgreSQL's major version.
    pub postgres: Option<PostgresVersion>,
    /// When a commit is acknowledged.
    pub durability: Option<Durability>,
    /// Number of etcd members.
    pub etcd: Option<EtcdCount>,
    /// First published port.
    pub port: Option<u16>,
    /// Finished image.
    pub image: Option<String>,
    /// Where backups and WAL are kept.
    pub archive: ArchiveOptions,
}

/// What a spec file and the command line over it come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecDocument {
    /// What the cluster should be.
    pub spec: ClusterSpec,
    /// Whose backup it is to begin with, by the file.
    pub clone_from: Option<CloneWish>,
}

/// Reads and checks a spec file's text.
pub fn parse_spec(text: &str, overrides: &SpecOverrides) -> Result<SpecDocument, InvalidSpec> {
    match parse_spec_text(text) {
        Ok(keys) => check_spec(&keys, overrides),
        Err(unreadable) => {
            let mistake = Mistake { path: ".".to_owned(), value: None, problem: unreadable.to_string() };
            Err(InvalidSpec { mistakes: vec![mistake] })
        }
    }
}

/// Checks a raw spec. The file is checked as it stands, also where the command line overrides it: a mistake in it stays a mistake.
pub fn check_spec(keys: &Map<String, Value>, overrides: &SpecOverrides) -> Result<SpecDocument, InvalidSpec> {
    let mut check = Check::default();
    check.unknown_keys("", keys, TOP_LEVEL);
    let name = check.text(keys, "name").and_then(|name| check.parsed::<ClusterName>("name", name));
    let nodes = check.number(keys, "", "nodes").and_then(|n| check.ranged("nodes", n));
    let (postgres, parameters) = check.postgres(keys);
    let (durability, timings) = check.ha(keys);
    let archive = check.archive(keys, &overrides.archive);
    let clone_from = check.clone_from(keys);
    let (etcd, port, image) = check.docker(keys);
    if !keys.contains_key("name") && overrides.name.is_none() {
        check.mistake("name", None, "a cluster needs a name, here or on the command line");
    }
    let name = overrides.name.clone().or(name);
    match (name, check.mistakes.is_empty()) {
        (Some(name), true) => {
            let spec = ClusterSpec {
                name,
                nodes: overrides.nodes.or(nodes).unwrap_or_default(),
                postgres: overrides.postgres.or(postgres).unwrap_or_default(),
                parameters,
                durability: overrides.durability.or(durability).unwrap_or_default(),
                timings,
                etcd: overrides.etcd.or(etcd).unwrap_or_default(),
                port: overrides.port.or(port),
                image: overrides.image.clone().or(image),
                archive,
                clone_of: None,
            };
            Ok(SpecDocument { spec, clone_from })
        }
        _ => Err(InvalidSpec { mistakes: check.mistakes }),
    }
}

/// Collects mistakes on the way through the raw values.
#[derive(Default)]
struct Check {
    mistakes: Vec<Mistake>,
}

impl Check {
    fn mistake(&mut self, path: &str, value: Option<&Value>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { path: path.to_owned(), value: value.map(Value::to_string), problem: problem.into() });
    }

    fn unknown_keys(&mut self, section: &str, keys: &Map<String, Value>, allowed: &[&str]) {
        for key in keys.keys().filter(|key| !allowed.contains(&key.as_str())) {
            let path = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
            let problem = match nearest(key, allowed) {
                Some(near) => format!("unknown key, did you mean '{near}'?"),
                None => format!("unknown key, possible are: {}", allowed.join(", ")),
            };
            self.mistake(&path, None, problem);
        }
    }

    /// A section that is absent or empty has no keys; anything else but a mapping is a mistake.
    fn section<'v>(&mut self, keys: &'v Map<String, Value>, name: &str, allowed: &[&str]) -> Option<&'v Map<String, Value>> {
        match keys.get(name)? {
            Value::Object(inner) => {
                self.unknown_keys(name, inner, allowed);
                Some(inner)
            }
            Value::Null => None,
            other => {
                let problem = format!("it is {}, expected a mapping with: {}", kind_of(other), allowed.join(", "));
                self.mistake(name, Some(other), problem);
                None
            }
        }
    }

    fn postgres(&mut self, keys: &Map<String, Value>) -> (Option<PostgresVersion>, BTreeMap<String, String>) {
        let Some(section) = self.section(keys, "postgres", POSTGRES) else { return (None, BTreeMap::new()) };
        let version = self.number(section, "postgres", "version").and_then(|n| self.ranged("postgres.version", n));
        let parameters = match section.get("parameters") {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(parameters)) => check_parameters(parameters, &mut self.mistakes),
            Some(other) => {
                let problem = format!("it is {}, expected a mapping such as {{max_connections: 200}}", kind_of(other));
                self.mistake("postgres.parameters", Some(other), problem);
                BTreeMap::new()
            }
        };
        (version, parameters)
    }

    fn ha(&mut self, keys: &Map<String, Value>) -> (Option<Durability>, HaTimings) {
        let Some(section) = self.section(keys, "ha", HA) else { return (None, HaTimings::default()) };
        let durability = match section.get("durability") {
            None | Some(Value::Null) => None,
            Some(Value::String(word)) if word == "quorum" => Some(Durability::Quorum),
            Some(Value::String(word)) if word == "async" => Some(Durability::Async),
            Some(other) => {
                self.mistake("ha.durability", Some(other), "possible are: quorum, async");
                None
            }
        };
        let before = self.mistakes.len();
        let defaults = HaTimings::default();
        let ttl = self.seconds(section, "ttl").unwrap_or(defaults.ttl);
        let loop_wait = self.seconds(section, "loop_wait").unwrap_or(defaults.loop_wait);
        let retry_timeout = self.seconds(section, "retry_timeout").unwrap_or(defaults.retry_timeout);
        // The rule that ties the three together can only be judged when each of them was readable.
        let timings = match HaTimings::new(ttl, loop_wait, retry_timeout) {
            Ok(timings) => timings,
            Err(_) if self.mistakes.len() > before => defaults,
            Err(problem) => {
                self.mistake("ha", None, problem);
                defaults
            }
        };
        (durability, timings)
    }

    fn archive(&mut self, keys: &Map<String, Value>, overrides: &ArchiveOptions) -> Option<ArchiveSpec> {
        let before = self.mistakes.len();
        let file = match self.section(keys, "archive", archive::KEYS) {
            Some(section) => archive::read(section, &mut self.mistakes),
            None => ArchiveOptions::default(),
        };
        overrides.clone().over(file).archive().unwrap_or_else(|key| {
            // Whether they fit each other can only be judged when each was readable.
            if self.mistakes.len() == before {
                self.mistake(&format!("archive.{key}"), None, "it is for a store in S3 only: store: s3://BUCKET/PREFIX");
            }
            None
        })
    }

    fn clone_from(&mut self, keys: &Map<String, Value>) -> Option<CloneWish> {
        let section = self.section(keys, "clone_from", &clone::keys())?;
        clone::read(section, &mut self.mistakes)
    }

    fn docker(&mut self, keys: &Map<String, Value>) -> (Option<EtcdCount>, Option<u16>, Option<String>) {
        let Some(section) = self.section(keys, "docker", DOCKER) else { return (None, None, None) };
        let etcd = self.number(section, "docker", "etcd").and_then(|n| self.ranged("docker.etcd", n));
        let port = self.number(section, "docker", "port").and_then(|n| self.first_port(n));
        let image = match section.get("image") {
            None | Some(Value::Null) => None,
            Some(Value::String(image)) if !image.trim().is_empty() => Some(image.clone()),
            Some(other) => {
                self.mistake("docker.image", Some(other), "expected the reference of an image, such as registry.example.com/spilo:17");
                None
            }
        };
        (etcd, port, image)
    }

    fn first_port(&mut self, number: u64) -> Option<u16> {
        match check_first_port(number) {
            Ok(port) => Some(port),
            Err(problem) => {
                self.mistake("docker.port", Some(&number.into()), problem);
                None
            }
        }
    }

    fn seconds(&mut self, section: &Map<String, Value>, key: &str) -> Option<u16> {
        let number = self.number(section, "ha", key)?;
        match u16::try_from(number) {
            Ok(seconds) if seconds > 0 => Some(seconds),
            _ => {
                self.mistake(&format!("ha.{key}"), Some(&number.into()), "expected whole seconds from 1 to 65535");
                None
            }
        }
    }

    fn text<'v>(&mut self, keys: &'v Map<String, Value>, key: &str) -> Option<&'v str> {
        match keys.get(key)? {
            Value::String(text) => Some(text),
            other => {
                self.mistake(key, Some(other), format!("it is {}, expected a text", kind_of(other)));
                None
            }
        }
    }

    fn number(&mut self, keys: &Map<String, Value>, section: &str, key: &str) -> Option<u64> {
        let value = keys.get(key).filter(|value| !value.is_null())?;
        let number = value.as_u64();
        if number.is_none() {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            self.mistake(&path, Some(value), format!("it is {}, expected a whole number", describe_number(value)));
        }
        number
    }

    fn ranged<T: TryFrom<u8, Error: Display>>(&mut self, path: &str, number: u64) -> Option<T> {
        // Everything past 255 is out of every range; 255 itself is too, and gives the range's own words.
        match T::try_from(u8::try_from(number).unwrap_or(u8::MAX)) {
            Ok(value) => Some(value),
            Err(problem) => {
                let words = problem.to_string();
                let allowed = words.split_once(": ").map_or(words.as_str(), |(_, allowed)| allowed);
                self.mistake(path, Some(&number.into()), allowed);
                None
            }
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, path: &str, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistake(path, Some(&text.into()), problem.to_string());
                None
            }
        }
    }
}

/// Checks the first of the three published ports.
pub fn check_first_port(number: u64) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if (1024..=HIGHEST_FIRST_PORT).contains(&port) => Ok(port),
        _ => Err(format!("expected a port from 1024 to {HIGHEST_FIRST_PORT}: it and the two after it are published")),
    }
}

/// The known name that a misspelt one most likely stands for.
pub fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    let likeness = |name: &&str| strsim::jaro_winkler(word, name);
    names.iter().copied().filter(|name| likeness(name) > 0.8).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The known name of which this is a slip of the pen: closer than [`nearest`], for where a name of somebody's own may stand too.
pub fn misspelt<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    nearest(word, names).filter(|name| strsim::jaro_winkler(word, name) > 0.92)
}

fn describe_number(value: &Value) -> &'static str {
    match value {
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "negative",
        other => kind_of(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(text: &str) -> Vec<String> {
        let invalid = parse_spec(text, &SpecOverrides::default()).expect_err(text);
        invalid.mistakes.iter().map(Mistake::to_string).collect()
    }

    #[test]
    fn a_name_alone_takes_every_default() {
        let SpecDocument { spec, clone_from: None } = parse_spec("name: orders", &SpecOverrides::default()).unwrap() else {
            panic!("nobody's")
        };
        assert_eq!(spec, ClusterSpec::named("orders".parse().unwrap()));
    }

    #[test]
    fn every_mistake_is_reported_in_one_go() {
        let found = mistakes("name: Orders\nnodez: 5\npostgres: {version: 12}\nha: {ttl: 4}\n");
        assert_eq!(found.len(), 4, "{found:#?}");
        assert_eq!(found[0], "'nodez': unknown key, did you mean 'nodes'?");
        assert!(found[1].contains("must start with a lower-case letter"), "{}", found[1]);
        assert_eq!(found[2], "'postgres.version: 12': PostgreSQL 15, 16, 17 and 18 are supported");
        assert!(found[3].starts_with("'ha': ttl 4 is too short"), "{}", found[3]);
    }

    #[test]
    fn a_key_like_no_other_gets_the_list_of_possible_ones() {
        assert_eq!(mistakes("name: a\ndocker: {zzz: 1}"), ["'docker.zzz': unknown key, possible are: etcd, port, image"]);
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let overrides =
            SpecOverrides { name: "new".parse().ok(), nodes: NodeCount::try_from(5).ok(), port: Some(6000), ..Default::default() };
        let spec = parse_spec("name: old\nnodes: 2\ndocker: {port: 5000}", &overrides).unwrap().spec;
        assert_eq!((spec.name.as_str(), spec.nodes.get(), spec.port), ("new", 5, Some(6000)));
    }

    #[test]
    fn a_mistake_in_the_file_stays_one_when_the_command_line_overrides_it() {
        let overrides = SpecOverrides { nodes: NodeCount::try_from(5).ok(), ..Default::default() };
        let invalid = parse_spec("name: a\nnodes: 99", &overrides).unwrap_err();
        assert_eq!(invalid.to_string(), "the spec has a mistake: 'nodes: 99': a cluster has 1 to 9 nodes");
    }

    #[test]
    fn wrong_kinds_say_what_they_are() {
        assert_eq!(mistakes("name: a\nnodes: many"), ["'nodes: \"many\"': it is a text, expected a whole number"]);
        assert_eq!(mistakes("name: a\nnodes: 2.5"), ["'nodes: 2.5': it is a fraction, expected a whole number"]);
        assert_eq!(mistakes("name: a\nnodes: -1"), ["'nodes: -1': it is negative, expected a whole number"]);
        assert_eq!(
            mistakes("name: a\nha: 3"),
            ["'ha: 3': it is a number, expected a mapping with: durability, ttl, loop_wait, retry_timeout"]
        );
    }

    #[test]
    fn ports_leave_room_for_the_two_after_the_first() {
        assert_eq!(check_first_port(65533), Ok(65533));
        assert!(check_first_port(65534).is_err());
        assert!(check_first_port(80).is_err());
    }
}
