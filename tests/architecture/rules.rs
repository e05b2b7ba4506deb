//! The rules that the sources are held against.

use crate::{
    source::Path,
    table::{MayUse, Room, Table, holds},
};

/// Words that a pure room has no use for: clocks, I/O, waiting, logs, chance, and maps whose order is chance.
const IMPURE_WORDS: [&str; 13] = [
    "tokio",
    "tracing",
    "rand",
    "getrandom",
    "reqwest",
    "bollard",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "async",
    "await",
    "println",
];

/// Modules of `std` that reach outside the process or depend on when and where it runs.
const IMPURE_STD: [&str; 6] = ["fs", "net", "io", "process", "thread", "env"];

/// Why `path`, written in `room`, breaks the table; `None` when it does not.
pub fn breach(table: &Table, room: &Room, path: &Path) -> Option<String> {
    let target = path.within_crate()?;
    let used = table.room_of(&target)?;
    let allowed = used.name == room.name || room.may_use == MayUse::Everything || room.listed().iter().any(|listed| holds(listed, &target));
    (!allowed).then(|| format!("room '{}' may not use '{}' of room '{}'", room.name, target.join("::"), used.name))
}

/// Why `path` has no place in a pure room; `None` when it has.
pub fn impurity(path: &Path) -> Option<String> {
    let words: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    let impure = match words[..] {
        ["std", module, ..] if IMPURE_STD.contains(&module) => true,
        // Some type's clock, as in `Timestamp::now`: what time it is comes with the input.
        [_, .., "now"] => true,
        _ => words.iter().any(|word| IMPURE_WORDS.contains(word)),
    };
    impure.then(|| format!("'{}' has no place in a pure room", words.join("::")))
}

/// Rooms at the top level that use each other, directly or by way of others, as `a -> b -> a`.
pub fn cycle(table: &Table) -> Option<String> {
    table.0.iter().find_map(|room| cycle_from(table, &mut vec![top(&room.name)]))
}

fn cycle_from<'t>(table: &'t Table, trail: &mut Vec<&'t str>) -> Option<String> {
    let here = *trail.last()?;
    let rows = table.0.iter().filter(|room| top(&room.name) == here);
    for next in rows.flat_map(Room::listed).map(|path| top(path)).filter(|next| *next != here) {
        let met = trail.contains(&next);
        trail.push(next);
        if met {
            return Some(trail.join(" -> "));
        }
        if let Some(found) = cycle_from(table, trail) {
            return Some(found);
        }
        trail.pop();
    }
    None
}

/// The first word of a module path.
pub fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source;

    const TABLE: &str = "| room | what lives there | may use |\n| --- | --- | --- |\n| model | w | nothing |\n| dcs | k | model |\n\
        | agent::decide | r | model, agent::view, dcs::snapshot |\n| agent | s | agent::decide, model, dcs |\n| cli | a | everything |\n";

    fn breaches(text: &str, module: &str) -> Vec<String> {
        let table = Table::parse(TABLE);
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        let room = table.room_of(&module).expect("the module is in a room");
        let source = source::read(text, &module).expect("the text is Rust");
        source.paths.iter().filter_map(|path| breach(&table, room, path).map(|why| format!("{}: {why}", path.line))).collect()
    }

    fn impurities(text: &str) -> usize {
        let source = source::read(text, &["agent".to_owned()]).expect("the text is Rust");
        source.paths.iter().filter(|path| impurity(path).is_some()).count()
    }

    #[test]
    fn a_planted_breach_is_found_with_its_line_and_both_rooms() {
        let planted = "use crate::model::Lsn;\n\nfn f() { crate::cli::main(); }";
        assert_eq!(breaches(planted, "dcs::etcd"), ["3: room 'dcs' may not use 'cli::main' of room 'cli'"]);
    }

    #[test]
    fn a_room_may_use_itself_and_what_is_listed() {
        assert_eq!(breaches("use crate::dcs::keys;\nuse super::snapshot;\nuse crate::model;\nfn f(self) {}", "dcs::etcd"), [""; 0]);
        assert_eq!(breaches("use crate::agent::decide::decide;\nuse crate::dcs::etcd::Etcd;", "agent::shell"), [""; 0]);
        assert_eq!(breaches("use crate::{agent, dcs, model};", "cli::commands"), [""; 0]);
    }

    #[test]
    fn an_inner_room_is_stricter_than_the_room_around_it() {
        let text = "use super::super::view::View;\nuse crate::dcs::snapshot::Snapshot;\nuse crate::dcs::Dcs;\nuse crate::agent::shell;\nuse crate::dcs;";
        assert_eq!(
            breaches(text, "agent::decide::leader"),
            [
                "3: room 'agent::decide' may not use 'dcs::Dcs' of room 'dcs'",
                "4: room 'agent::decide' may not use 'agent::shell' of room 'agent'",
                "5: room 'agent::decide' may not use 'dcs' of room 'dcs'",
            ]
        );
    }

    #[test]
    fn clocks_io_logs_and_chance_are_impure() {
        for planted in [
            "use std::time::Instant;",
            "use std::{time::{Duration, SystemTime}};",
            "use std::{fmt, fs};",
            "fn f() { std::net::TcpStream::connect(a); }",
            "fn f() { tracing::info!(\"x\"); }",
            "use std::collections::{BTreeMap, HashMap};",
            "async fn f() {}",
            "fn f() -> Timestamp { Timestamp::now() }",
            "fn f() { tokio::spawn(x) }",
        ] {
            assert_eq!(impurities(planted), 1, "{planted}");
        }
    }

    #[test]
    fn plain_data_is_pure() {
        assert_eq!(
            impurities("use std::{collections::BTreeMap, time::Duration};\n// tokio, HashMap\nfn f(v: &View) -> Duration { v.now }"),
            0
        );
    }

    #[test]
    fn a_cycle_is_found_by_way_of_others() {
        let header = "| room | what lives there | may use |\n|-|-|-|\n";
        let table = Table::parse(&format!("{header}| a | x | b::one |\n| b | x | c |\n| c | x | a |\n"));
        assert_eq!(cycle(&table).as_deref(), Some("a -> b -> c -> a"));
        assert_eq!(cycle(&Table::parse(TABLE)), None);
    }
}
