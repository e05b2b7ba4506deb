//! The write-ahead log as a tree: each time a server begins to write, what it writes is a branch of its own. PostgreSQL itself knows only
//! the numbers of timelines; whether two histories that carry the same numbers are the same can be seen here.

use std::collections::BTreeMap;

use spilo::model::{HistoryLine, Lsn, SystemId, Timeline};

/// A branch of the tree.
pub type BranchId = usize;

/// What one server writes on one timeline.
#[derive(Debug, Clone)]
pub struct Branch {
    pub system: SystemId,
    pub timeline: Timeline,
    pub parent: Option<(BranchId, Lsn)>,
}

/// A position in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub branch: BranchId,
    pub lsn: Lsn,
}

/// All branches, and how far each holds what clients were promised.
#[derive(Debug, Default)]
pub struct Wal {
    pub branches: Vec<Branch>,
    /// By branch: the end of the last commit whose loss would break a promise.
    pub promised: BTreeMap<BranchId, Lsn>,
}

impl Wal {
    /// A new database cluster.
    pub fn initialize(&mut self, system: SystemId) -> BranchId {
        self.branches.push(Branch { system, timeline: Timeline(1), parent: None });
        self.branches.len() - 1
    }

    /// What a server writes that begins at `place` on `timeline`.
    pub fn fork(&mut self, place: Place, timeline: Timeline) -> BranchId {
        let system = self.branches[place.branch].system;
        self.branches.push(Branch { system, timeline, parent: Some((place.branch, place.lsn)) });
        self.branches.len() - 1
    }

    /// How much of branch `part` belongs to the history of `whole`.
    pub fn share(&self, part: BranchId, whole: Place) -> Lsn {
        let mut at = whole;
        loop {
            if at.branch == part {
                return at.lsn;
            }
            match self.branches[at.branch].parent {
                Some((branch, lsn)) => at = Place { branch, lsn: lsn.min(at.lsn) },
                None => return Lsn(0),
            }
        }
    }

    /// True when everything up to `part` is in `whole`.
    pub fn contains(&self, whole: Place, part: Place) -> bool {
        self.share(part.branch, whole) >= part.lsn
    }

    /// The branch that holds position `lsn` in the history of `branch`.
    pub fn branch_at(&self, mut branch: BranchId, lsn: Lsn) -> BranchId {
        while let Some((parent, fork)) = self.branches[branch].parent
            && lsn <= fork
        {
            branch = parent;
        }
        branch
    }

    /// The timelines before a branch's own, as its history file has them.
    pub fn history(&self, branch: BranchId) -> Vec<HistoryLine> {
        let mut lines = Vec::new();
        let mut at = branch;
        while let Some((parent, switch)) = self.branches[at].parent {
            // A second writer of one timeline leaves no line.
            if self.branches[parent].timeline != self.branches[at].timeline {
                lines.push(HistoryLine { timeline: self.branches[parent].timeline, switch, reason: String::new() });
            }
            at = parent;
        }
        lines.reverse();
        lines
    }

    /// The first promise that `whole` does not hold.
    pub fn missing(&self, whole: Place) -> Option<Place> {
        self.promised.iter().map(|(branch, lsn)| Place { branch: *branch, lsn: *lsn }).find(|promise| !self.contains(whole, *promise))
    }
}
