//! Something that is wrong with a backup, and what of the database it touches.

use std::fmt;

use serde::Serialize;

use super::manifest::Header;
use crate::model::ObjectName;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The object that is damaged or missing.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
    /// What of the database is in it.
    pub part: Option<Part>,
}

/// Bytes of a file of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The file, from the data directory.
    pub file: String,
    /// The first byte.
    pub begin: u64,
    /// The first one behind it.
    pub end: u64,
    /// The first and the last page, where the file is a relation's.
    pub pages: Option<(u64, u64)>,
}

/// So many problems are kept; the others are counted. A store that lost everything has one for each file.
const KEPT: usize = 1000;

/// Everything that one look has found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Findings {
    /// The first thousand problems.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub count: u64,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, problem: Problem) {
        self.count += 1;
        if self.problems.len() < KEPT {
            self.problems.push(problem);
        }
    }

    /// Adds all of another look.
    pub fn append(&mut self, other: Findings) {
        let unkept = other.count - other.problems.len() as u64;
        other.problems.into_iter().for_each(|problem| self.add(problem));
        self.count += unkept;
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl From<Problem> for Findings {
    fn from(problem: Problem) -> Findings {
        Findings { problems: vec![problem], count: 1 }
    }
}

impl Problem {
    /// With the whole object.
    pub fn new(object: &ObjectName, why: impl Into<String>) -> Problem {
        Problem { object: object.to_string(), why: why.into(), part: None }
    }
}

impl Part {
    /// These bytes of the file at `path` of a backup.
    pub fn new(header: &Header, path: &[u8], begin: u64, end: u64) -> Part {
        let page = u64::from(header.page_size.max(1));
        let pages = (is_relation(path) && end > begin).then(|| (begin / page, (end - 1) / page));
        Part { file: path.escape_ascii().to_string(), begin, end, pages }
    }
}

/// `16384`, `16384.1`, `16384_vm`: the files that have pages.
fn is_relation(path: &[u8]) -> bool {
    let of_database = [&b"base/"[..], b"global/", b"pg_tblspc/"].iter().any(|folder| path.starts_with(folder));
    of_database && path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.first().is_some_and(u8::is_ascii_digit))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}': {}", self.object, self.why)?;
        match &self.part {
            Some(part) => write!(f, " (lost: {part})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { file, begin, end, pages } = self;
        match pages {
            Some((first, last)) if first == last => write!(f, "'{file}', page {first}"),
            Some((first, last)) => write!(f, "'{file}', pages {first} to {last}"),
            None => write!(f, "'{file}', bytes {begin} to {end}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_relations_files_have_pages() {
        for path in ["base/5/16384", "base/5/16384.12", "base/5/16384_vm", "global/1262", "pg_tblspc/16400/PG_15_202209061/5/16401"] {
            assert!(is_relation(path.as_bytes()), "{path}");
        }
        for path in ["base/5/PG_VERSION", "base/5/pg_filenode.map", "global/pg_control", "pg_xact/0000", "postgresql.conf"] {
            assert!(!is_relation(path.as_bytes()), "{path}");
        }
    }
}
