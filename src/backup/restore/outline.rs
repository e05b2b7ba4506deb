//! What of a backup goes where, before any of it is written: which paths belong there, and how many bytes each place gets.

use std::collections::{BTreeMap, HashSet};

use super::layout::Layout;
use crate::{
    backup::{
        chunk,
        manifest::{Entry, EntryKind},
    },
    postgres::clone::AGENTS_OWN,
};

/// Everything that belongs there, by digests of paths: those of a million files are no burden.
#[derive(Default)]
pub struct Belonging(HashSet<chunk::Digest>);

impl Belonging {
    /// That path belongs there.
    pub fn add(&mut self, path: &[u8]) {
        self.0.insert(chunk::digest(path));
    }

    /// Whether it does.
    pub fn has(&self, path: &[u8]) -> bool {
        self.0.contains(&chunk::digest(path))
    }
}

/// What goes where.
#[derive(Default)]
pub struct Outline {
    /// All paths.
    pub belonging: Belonging,
    /// Bytes of the files in the data directory.
    pub root: u64,
    /// Bytes of the files of each tablespace that lies elsewhere.
    pub spaces: BTreeMap<u32, u64>,
}

impl Outline {
    /// That of the backup with these entries, besides which files of these names are written.
    ///
    /// # Errors
    /// When an entry cannot be read.
    pub fn of<E>(layout: &Layout, entries: impl Iterator<Item = Result<Entry, E>>, written: &[&str]) -> Result<Outline, E> {
        let mut outline = Outline::default();
        for entry in entries {
            outline.add(layout, &entry?);
        }
        written.iter().for_each(|name| outline.belonging.add(name.as_bytes()));
        Ok(outline)
    }

    fn add(&mut self, layout: &Layout, entry: &Entry) {
        self.belonging.add(&entry.path);
        if let EntryKind::File { size, .. } = entry.kind {
            let bytes = match layout.space(&entry.path) {
                Some(space) => self.spaces.entry(space.oid).or_default(),
                None => &mut self.root,
            };
            *bytes = bytes.saturating_add(size);
        }
    }
}

/// The agent of another cluster's node has kept something there that would say the wrong thing here.
pub fn is_left_out(entry: &Entry) -> bool {
    entry.path == AGENTS_OWN.as_bytes()
}
