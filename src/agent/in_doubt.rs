//! Writes to the DCS of which it is not known whether they happened.

use serde::{Deserialize, Serialize};

/// What a key may hold by now, besides what was last seen there. A write that was not answered may take effect at any time as long as the
/// version that it replaces is the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubt<T> {
    seen: Option<i64>,
    values: Vec<T>,
}

impl<T> Default for InDoubt<T> {
    fn default() -> InDoubt<T> {
        InDoubt { seen: None, values: Vec::new() }
    }
}

impl<T: PartialEq> InDoubt<T> {
    /// A write of `value` is about to leave, over version `seen`.
    pub fn written(&mut self, seen: Option<i64>, value: T) {
        self.look(seen);
        self.seen = seen;
        if !self.values.contains(&value) {
            self.values.push(value);
        }
    }

    /// The DCS has been read, and the key has this version: everything that was to replace another has happened or never will.
    pub fn look(&mut self, version: Option<i64>) {
        if version != self.seen {
            self.values.clear();
        }
    }

    /// What may be there.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    /// True when what was seen is what is there.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_in_doubt_until_its_version_is_gone() {
        let mut writes = InDoubt::default();
        writes.written(Some(1), 'a');
        writes.written(Some(1), 'b');
        writes.look(Some(1));
        assert_eq!(writes.values().collect::<String>(), "ab");
        writes.look(Some(2));
        assert!(writes.is_empty());
        writes.written(Some(2), 'c');
        writes.written(None, 'd');
        assert_eq!(writes.values().collect::<String>(), "d", "the key is gone, and with it what could replace it");
    }
}
