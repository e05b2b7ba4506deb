//! The table of `docs/ARCHITECTURE.md` that says which room may use which.

const HEADER: &str = "| room | what lives there | may use |";

/// What a room may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MayUse {
    /// The last column says `everything`.
    Everything,
    /// Paths of modules, or of items in them; each stands for itself and all below it.
    These(Vec<String>),
}

/// One row: a room and what it may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Its module path below the crate's root, such as `agent::decide`.
    pub name: String,
    pub may_use: MayUse,
}

impl Room {
    /// The paths it may use; none when it may use everything.
    pub fn listed(&self) -> &[String] {
        match &self.may_use {
            MayUse::Everything => &[],
            MayUse::These(paths) => paths,
        }
    }
}

/// All rooms, in the order of the table.
#[derive(Debug)]
pub struct Table(pub Vec<Room>);

impl Table {
    /// Reads the table out of the document. Panics with the offending row: the document is part of the project.
    pub fn parse(document: &str) -> Table {
        let rows = document.lines().map(str::trim).skip_while(|line| *line != HEADER).skip(2).take_while(|line| line.starts_with('|'));
        let table = Table(rows.map(parse_row).collect());
        assert!(!table.0.is_empty(), "no table with the header '{HEADER}'");
        table
    }

    /// The innermost room that holds the module or item `path`.
    pub fn room_of(&self, path: &[String]) -> Option<&Room> {
        self.0.iter().filter(|room| holds(&room.name, path)).max_by_key(|room| room.name.len())
    }
}

/// Whether `path` is `outer` or lies below it.
pub fn holds(outer: &str, path: &[String]) -> bool {
    let outer: Vec<&str> = outer.split("::").collect();
    path.len() >= outer.len() && outer.iter().zip(path).all(|(a, b)| a == b)
}

fn parse_row(row: &str) -> Room {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [name, _, may_use] = cells[..] else { panic!("this row has not three cells: {row}") };
    Room { name: bare(name, row), may_use: parse_may_use(may_use, row) }
}

fn parse_may_use(cell: &str, row: &str) -> MayUse {
    match cell {
        "everything" => MayUse::Everything,
        "nothing" => MayUse::These(Vec::new()),
        list => MayUse::These(list.split(',').map(|path| bare(path, row)).collect()),
    }
}

/// The module that holds `path` when it ends in an item, which is written `LikeThis`; else `path` itself.
pub fn module_part(path: &str) -> &str {
    match path.rsplit_once("::") {
        Some((module, item)) if item.starts_with(|c: char| c.is_ascii_uppercase()) => module,
        _ => path,
    }
}

/// A path with or without backticks.
fn bare(cell: &str, row: &str) -> String {
    let path = cell.trim().trim_matches('`');
    let is_path = path.split("::").all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    assert!(is_path, "'{path}' is no module path, in: {row}");
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "| a | b |\n| --- | --- |\n| x | y |\n\n| room | what lives there | may use |\n| --- | --- | --- |\n\
        | `model` | words | nothing |\n| `agent::decide` | rules | `model`, `dcs::snapshot` |\n| `cli` | arguments | everything |\n\n| other | t |\n";

    fn path(text: &str) -> Vec<String> {
        text.split("::").map(str::to_owned).collect()
    }

    #[test]
    fn the_table_is_found_among_others_and_ends_where_it_ends() {
        let table = Table::parse(DOCUMENT);
        assert_eq!(table.0.iter().map(|room| room.name.as_str()).collect::<Vec<_>>(), ["model", "agent::decide", "cli"]);
        assert_eq!(table.0[0].listed(), [""; 0]);
        assert_eq!(table.0[1].listed(), ["model", "dcs::snapshot"]);
        assert_eq!(table.0[2].may_use, MayUse::Everything);
    }

    #[test]
    #[should_panic(expected = "is no module path")]
    fn prose_in_the_last_column_is_an_error() {
        Table::parse("| room | what lives there | may use |\n| --- | --- | --- |\n| dcs | keys | model and its friends |\n");
    }

    #[test]
    #[should_panic(expected = "no table with the header")]
    fn a_document_without_the_table_is_an_error() {
        Table::parse("# Architecture\n");
    }

    #[test]
    fn an_item_is_looked_for_in_its_module() {
        assert_eq!(module_part("sys::clock::Moment"), "sys::clock");
        assert_eq!(module_part("sys::clock"), "sys::clock");
    }

    #[test]
    fn the_innermost_room_holds_a_path() {
        let table =
            Table::parse("| room | what lives there | may use |\n|-|-|-|\n| agent | a | nothing |\n| agent::decide | b | nothing |\n");
        assert_eq!(table.room_of(&path("agent::decide::leader")).map(|room| room.name.as_str()), Some("agent::decide"));
        assert_eq!(table.room_of(&path("agent::decided")).map(|room| room.name.as_str()), Some("agent"));
        assert_eq!(table.room_of(&path("model")), None);
    }
}
