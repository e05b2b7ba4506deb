//! The names of objects in a store.

use std::{fmt, str::FromStr};

/// A name such as `orders/wal/7/000000010000000000000001.zst`: parts between slashes, each of letters, digits, `.`, `_` and `-`, none of
/// which begins with a dot. So a name means the same in a bucket and in a file system, leads out of nowhere, and never collides with what a
/// driver keeps beside objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

/// S3 allows 1024 bytes, of which a prefix takes some; a file system 255 for a part, of which a temporary name takes some.
const LONGEST: usize = 800;
const LONGEST_PART: usize = 200;

/// The text is no name of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' cannot name an object: parts of letters, digits, '.', '_' and '-' between slashes, none beginning with a dot")]
pub struct InvalidObjectName(String);

impl ObjectName {
    /// The name with `part` below it.
    ///
    /// # Errors
    /// When the parts together are no name.
    pub fn join(&self, part: &str) -> Result<ObjectName, InvalidObjectName> {
        format!("{}/{part}", self.0).parse()
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes after the last slash.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ObjectName {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<ObjectName, InvalidObjectName> {
        let fits = text.len() <= LONGEST && text.split('/').all(is_part);
        if fits { Ok(ObjectName(text.to_owned())) } else { Err(InvalidObjectName(text.to_owned())) }
    }
}

fn is_part(part: &str) -> bool {
    let letters = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    letters && !part.is_empty() && !part.starts_with('.') && part.len() <= LONGEST_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for text in ["", "/", "a/", "/a", "a//b", "..", "a/../b", "a/.b", "ä", "a b", "a\nb", "a\\b"] {
            let error = text.parse::<ObjectName>().expect_err(text);
            assert!(error.to_string().contains(text));
        }
        assert!("x".repeat(201).parse::<ObjectName>().is_err());
        assert!("x/".repeat(500).parse::<ObjectName>().is_err());
    }

    #[test]
    fn parts_are_put_together() {
        let name: ObjectName = "wal/7".parse().unwrap();
        let segment = name.join("000000010000000000000001.zst").unwrap();
        assert_eq!(segment.as_str(), "wal/7/000000010000000000000001.zst");
        assert_eq!(segment.last(), "000000010000000000000001.zst");
        assert!(name.join("..").is_err());
    }
}
