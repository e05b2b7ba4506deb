//! The objects.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::HeaderMap;

/// What the server makes of the conditions of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// Of several writers one wins.
    Honoured,
    /// Every writer wins.
    Ignored,
    /// The server looks before it writes, and others may have written in between.
    Racy,
}

/// An object.
#[derive(Debug, Clone)]
pub struct Stored {
    pub content: Bytes,
    pub version: String,
    pub written: jiff::Timestamp,
    /// The headers that come back with it.
    pub metadata: HeaderMap,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub conditions: Conditions,
    objects: BTreeMap<String, Stored>,
    written: u64,
}

impl Bucket {
    pub fn new(conditions: Conditions) -> Bucket {
        Bucket { conditions, objects: BTreeMap::new(), written: 0 }
    }

    pub fn get(&self, key: &str) -> Option<&Stored> {
        self.objects.get(key)
    }

    /// The next objects below the prefix and behind the marker, and whether there are more.
    pub fn page(&self, prefix: &str, behind: &str, length: usize) -> (Vec<(&String, &Stored)>, bool) {
        let below = self.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let mut rest = below.filter(|(key, _)| key.as_str() > behind);
        let page = rest.by_ref().take(length).collect();
        (page, rest.next().is_some())
    }

    pub fn write(&mut self, key: &str, content: Bytes, metadata: HeaderMap) -> String {
        self.written += 1;
        let version = format!("\"{:032x}\"", self.written);
        self.objects.insert(key.to_owned(), Stored { content, version: version.clone(), written: jiff::Timestamp::now(), metadata });
        version
    }

    pub fn remove(&mut self, key: &str) {
        self.objects.remove(key);
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.keys().cloned().collect()
    }

    pub fn content(&self, key: &str) -> Option<Vec<u8>> {
        self.get(key).map(|stored| stored.content.to_vec())
    }

    pub fn place(&mut self, key: &str, content: &[u8]) {
        self.write(key, Bytes::copy_from_slice(content), HeaderMap::new());
    }

    pub fn age(&mut self, part: &str, by: jiff::SignedDuration) {
        let aged = self.objects.iter_mut().filter(|(key, _)| key.contains(part));
        aged.for_each(|(_, stored)| stored.written -= by);
    }

    pub fn rot(&mut self, key: &str, byte: usize) {
        let stored = self.objects.get_mut(key).expect("there is such an object");
        stored.content = flipped(&stored.content, byte);
    }
}

/// The same, but for one bit.
pub fn flipped(content: &Bytes, byte: usize) -> Bytes {
    let mut changed = content.to_vec();
    let byte = byte.min(changed.len().saturating_sub(1));
    if let Some(byte) = changed.get_mut(byte) {
        *byte ^= 0x10;
    }
    changed.into()
}
