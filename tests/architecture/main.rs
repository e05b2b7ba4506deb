//! Holds `src/` against the table of `docs/ARCHITECTURE.md`, so that both stay true.

mod rules;
mod source;
mod table;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use source::Source;
use table::{MayUse, Table};

/// Rooms that are functions of their input and nothing else.
const PURE_ROOMS: [&str; 2] = ["agent::decide", "provisioner::plan"];

/// One file of `src/`, read.
struct File {
    path: PathBuf,
    module: Vec<String>,
    source: Source,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> Table {
    let path = root().join("docs/ARCHITECTURE.md");
    Table::parse(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Every `.rs` file below `folder`, relative to the project's root.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut names: Vec<PathBuf> = entries.map(|entry| folder.join(entry.expect("the folder can be read").file_name())).collect();
    names.sort();
    names
        .into_iter()
        .flat_map(|path| match root().join(&path).is_dir() {
            true => rust_files(&path),
            false => Vec::from_iter((path.extension().is_some_and(|end| end == "rs")).then_some(path)),
        })
        .collect()
}

/// `src/agent/decide/mod.rs` and `src/agent/decide.rs` are both `agent::decide`.
fn module_of(path: &Path) -> Vec<String> {
    let stem = path.strip_prefix("src").expect("sources are below src").with_extension("");
    let mut module: Vec<String> = stem.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// The rooms' files: `lib.rs` and `main.rs` are the frame around them, and files that only tests compile are not asked.
fn files() -> Vec<File> {
    let paths = rust_files(Path::new("src"));
    let inside =
        paths.into_iter().filter(|path| path.parent() != Some(Path::new("src")) || !path.ends_with("lib.rs") && !path.ends_with("main.rs"));
    let files: Vec<File> = inside.map(read_file).collect();
    let test_modules: BTreeSet<Vec<String>> = files.iter().flat_map(|file| file.source.test_modules.clone()).collect();
    files.into_iter().filter(|file| !test_modules.iter().any(|module| file.module.starts_with(module))).collect()
}

fn read_file(path: PathBuf) -> File {
    let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let module = module_of(&path);
    let source = source::read(&text, &module).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    File { path, module, source }
}

fn report(title: &str, found: &[String]) {
    assert!(found.is_empty(), "{title}\n  {}\n", found.join("\n  "));
}

#[test]
fn each_room_uses_only_what_the_table_allows() {
    let (table, mut found) = (table(), Vec::new());
    for file in files() {
        let Some(room) = table.room_of(&file.module) else { continue };
        let breaches = file.source.paths.iter().filter_map(|path| rules::breach(&table, room, path).map(|why| (path.line, why)));
        found.extend(breaches.map(|(line, why)| format!("{}:{line}: {why}", file.path.display())));
    }
    report("docs/ARCHITECTURE.md does not allow this; go through a room that may, or change the table and say why:", &found);
}

#[test]
fn pure_rooms_touch_no_clock_no_io_and_no_chance() {
    let (table, mut found) = (table(), Vec::new());
    for file in files() {
        let pure = table.room_of(&file.module).is_some_and(|room| PURE_ROOMS.contains(&room.name.as_str()));
        let impure = file.source.paths.iter().filter(|_| pure).filter_map(|path| rules::impurity(path).map(|why| (path.line, why)));
        found.extend(impure.map(|(line, why)| format!("{}:{line}: {why}", file.path.display())));
    }
    report("what these rooms decide depends on their input alone; hand it in as data:", &found);
}

#[test]
fn the_table_and_the_source_tree_name_the_same_rooms() {
    let (table, files) = (table(), files());
    let strangers: BTreeSet<&str> =
        files.iter().filter(|file| table.room_of(&file.module).is_none()).map(|file| file.module[0].as_str()).collect();
    report("these rooms of src/ are missing in docs/ARCHITECTURE.md:", &strangers.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let exists = |path: &str| files.iter().any(|file| table::holds(table::module_part(path), &file.module));
    let named = table.0.iter().flat_map(|room| [&room.name].into_iter().chain(room.listed()));
    let ghosts: BTreeSet<String> = named.filter(|path| !exists(path)).cloned().collect();
    report("docs/ARCHITECTURE.md names these modules, but src/ has no such file or folder:", &Vec::from_iter(ghosts));
}

#[test]
fn only_the_command_line_may_use_everything_and_nobody_uses_it() {
    let table = table();
    for room in &table.0 {
        assert_eq!(room.may_use == MayUse::Everything, room.name == "cli", "the row of '{}'", room.name);
        assert!(!room.listed().iter().any(|path| rules::top(path) == "cli"), "'{}' may not use the command line", room.name);
    }
}

#[test]
fn no_two_rooms_use_each_other() {
    assert_eq!(rules::cycle(&table()), None);
}

#[test]
fn a_module_is_known_by_its_file() {
    assert_eq!(module_of(Path::new("src/agent/decide/mod.rs")), ["agent", "decide"]);
    assert_eq!(module_of(Path::new("src/provisioner/plan.rs")), ["provisioner", "plan"]);
}
