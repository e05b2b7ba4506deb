//! Where each key lives, as Patroni has it.

use crate::model::MemberName;

/// The keys of one cluster: `/namespace/scope/…`.
#[derive(Debug, Clone)]
pub struct Keys {
    base: String,
}

impl Keys {
    /// The keys of `scope` in `namespace`; slashes around and within the namespace may be doubled or missing.
    pub fn new(namespace: &str, scope: &str) -> Keys {
        let mut base = String::new();
        for part in namespace.split('/').filter(|p| !p.is_empty()).chain([scope]) {
            base.push('/');
            base.push_str(part);
        }
        base.push('/');
        Keys { base }
    }

    /// Everything of the cluster lies below this, which ends with a slash.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A key by its name: `initialize`, `config`, `leader`, `status`, `history`, `sync`, `failsafe`, `failover`, and ours: `timeline`, `term`.
    pub fn of(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    /// The key of a member.
    pub fn member(&self, name: &MemberName) -> String {
        format!("{}members/{name}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_written_in_many_ways_and_mean_one() {
        for namespace in ["service", "/service", "/service/", "//service//"] {
            assert_eq!(Keys::new(namespace, "orders").of("leader"), "/service/orders/leader");
        }
        assert_eq!(Keys::new("/a/b", "c").base(), "/a/b/c/");
    }
}
