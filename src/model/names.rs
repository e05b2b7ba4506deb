//! Names of clusters and members.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest cluster name: with `-router` and the like appended it must still fit a DNS label (63) and AWS's 32-character names.
const LONGEST_CLUSTER_NAME: usize = 24;

/// Name of a cluster: the scope in the DCS and the stem of every object's name.
/// Lower-case letters, digits and single dashes, starting with a letter, at most 24 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// Name of a member: unique within its cluster, the key below `members/` in the DCS and the standby's `application_name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberName(String);

/// A name that breaks the rules, with the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} name '{name}': {rule}")]
pub struct InvalidName {
    what: &'static str,
    name: String,
    rule: String,
}

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl MemberName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The replication slot of this member, by Patroni's rule: lower case, `-` and `.` become `_`, anything else outside `[a-z0-9_]`
    /// becomes `u` and its code point in at least four digits, cut to 63 characters.
    pub fn slot_name(&self) -> String {
        let mut slot = String::new();
        for c in self.0.to_lowercase().chars() {
            match c {
                'a'..='z' | '0'..='9' | '_' => slot.push(c),
                '-' | '.' => slot.push('_'),
                other => slot.push_str(&format!("u{:04}", u32::from(other))),
            }
        }
        slot.truncate(63);
        slot
    }
}

impl FromStr for ClusterName {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<ClusterName, InvalidName> {
        let fault = if name.is_empty() {
            Some("it is empty".to_owned())
        } else if name.len() > LONGEST_CLUSTER_NAME {
            Some(format!("it has {} characters, at most {LONGEST_CLUSTER_NAME} are possible", name.len()))
        } else if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            Some("it must start with a lower-case letter".to_owned())
        } else if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            Some("only lower-case letters, digits and dashes are possible".to_owned())
        } else if name.ends_with('-') || name.contains("--") {
            Some("a dash must stand between letters or digits".to_owned())
        } else {
            None
        };
        match fault {
            None => Ok(ClusterName(name.to_owned())),
            Some(rule) => Err(InvalidName { what: "cluster", name: name.to_owned(), rule }),
        }
    }
}

impl FromStr for MemberName {
    type Err = InvalidName;

    /// Wider than our own names, because an adopted Patroni cluster may hold any name that works as a DCS key.
    fn from_str(name: &str) -> Result<MemberName, InvalidName> {
        let fault = if name.is_empty() {
            Some("it is empty")
        } else if name.len() > 255 {
            Some("at most 255 bytes are possible")
        } else if name.contains('/') || name.chars().any(char::is_control) {
            Some("slashes and control characters are not possible")
        } else {
            None
        };
        match fault {
            None => Ok(MemberName(name.to_owned())),
            Some(rule) => Err(InvalidName { what: "member", name: name.to_owned(), rule: rule.to_owned() }),
        }
    }
}

macro_rules! text_like {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<$name, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

text_like!(ClusterName);
text_like!(MemberName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_not_fit_later_are_refused_with_the_rule() {
        for (name, rule) in [
            ("", "empty"),
            ("Orders", "lower-case letter"),
            ("1orders", "start with a lower-case letter"),
            ("or_ders", "digits and dashes"),
            ("orders-", "between letters"),
            ("a--b", "between letters"),
            ("a234567890123456789012345", "at most 24"),
        ] {
            let error = name.parse::<ClusterName>().expect_err(name).to_string();
            assert!(error.contains(rule), "{error}");
        }
        assert_eq!("orders-2".parse::<ClusterName>().unwrap().as_str(), "orders-2");
    }

    #[test]
    fn slot_names_follow_patronis_rule() {
        let slot = |name: &str| name.parse::<MemberName>().unwrap().slot_name();
        assert_eq!(slot("Orders-1.eu"), "orders_1_eu");
        assert_eq!(slot("a b"), "au0032b");
    }
}
