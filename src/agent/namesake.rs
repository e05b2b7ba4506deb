//! One living agent per name. The leader key bears nothing but a name: a second agent of the same name would take the first one's lease for
//! its own, and there would be two primaries.

use std::{fs, path::Path};

use serde_json::Value;

use super::{guard::EXIT_FATAL, peers, shell::Shell};
use crate::{
    dcs::snapshot::MemberData,
    sys::{clock::Moment, files},
};

/// The field of a member's key that says which node published it: a name for the disk, made once. An addition; Patroni does not read it.
const FIELD: &str = "spilo_node";

/// Which node this is, and whether its name is known to be nobody else's.
#[derive(Debug)]
pub struct Identity {
    node: String,
    /// The DCS has been read, and nobody else lived there under this name.
    checked: bool,
    said: bool,
}

/// What the key under our name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namesake {
    /// There is none, or it is from this very node.
    None,
    /// Somebody else's, or nobody knows whose.
    Another,
}

impl Identity {
    /// Reads the node's identity, which lies beside the data directory, or makes one.
    pub fn load(data: &Path) -> std::io::Result<Identity> {
        let path = files::beside(data, ".node");
        let known = fs::read_to_string(&path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let node = if known.is_empty() { make(&path)? } else { known };
        Ok(Identity { node, checked: false, said: false })
    }

    /// What this member's key carries for it.
    pub fn publish(&self) -> serde_json::Map<String, Value> {
        serde_json::Map::from_iter([(FIELD.to_owned(), Value::String(self.node.clone()))])
    }

    /// `address`: where this agent answers.
    fn namesake(&self, published: Option<&MemberData>, address: &str) -> Namesake {
        let Some(member) = published else { return Namesake::None };
        match member.other.get(FIELD).and_then(Value::as_str) {
            Some(node) if node == self.node => Namesake::None,
            // Left by an agent that knew nothing of this, on the address that is ours now.
            None if member.api_url == address => Namesake::None,
            _ => Namesake::Another,
        }
    }
}

fn make(path: &Path) -> std::io::Result<String> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let node = hex::encode(random);
    files::replace(path, format!("{node}\n").as_bytes(), 0o600)?;
    Ok(node)
}

impl Shell {
    /// Whether this agent may act under its name, by what the DCS has just said. Before that nothing is published or claimed. Ends the
    /// agent when another one lives under it.
    pub(super) async fn name_is_ours(&mut self) -> bool {
        let published = self.cluster.members.get(&self.config.name);
        if self.identity.namesake(published, &self.api_url()) == Namesake::None {
            self.identity.checked = true;
            return true;
        }
        let address = published.map(|member| member.api_url.clone()).unwrap_or_default();
        let elsewhere = address != self.api_url();
        // A key that we had overwritten, or had every right to write: its author came later, or at the same moment.
        let overwritten = self.identity.checked && self.published.is_some();
        let leads = self.lease_until.is_some_and(|until| until > Moment::now());
        if overwritten && leads {
            self.published = None;
            return true;
        }
        let name = self.config.name.clone();
        if overwritten || (elsewhere && peers::is_called(&self.http, &address, &name).await) {
            self.refuse(&format!("another member called '{name}' is alive at {address}: names are unique, give this one another"));
        } else if !self.identity.said {
            tracing::warn!(
                "the DCS has a member '{name}' from another node ({address}) that does not answer: waiting until it is forgotten"
            );
            self.identity.said = true;
        }
        false
    }

    /// Ends the agent and its guard: somebody has to change something.
    pub(super) fn refuse(&mut self, why: &str) {
        tracing::error!("{why}");
        self.ended = true;
        self.exit_code = EXIT_FATAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = Identity::load(&data).unwrap();
        assert_eq!(first.node.len(), 32);
        assert_eq!(Identity::load(&data).unwrap().node, first.node);
    }

    #[test]
    fn a_key_of_ones_own_is_known_from_one_of_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, other) = (Identity::load(&dir.path().join("a")).unwrap(), Identity::load(&dir.path().join("b")).unwrap());
        let key = |identity: &Identity| MemberData { other: identity.publish(), ..MemberData::default() };
        let namesake = |published: Option<&MemberData>| mine.namesake(published, "http://here/patroni");
        assert_eq!(namesake(None), Namesake::None);
        assert_eq!(namesake(Some(&key(&mine))), Namesake::None);
        assert_eq!(namesake(Some(&key(&other))), Namesake::Another);
        assert_eq!(namesake(Some(&MemberData::default())), Namesake::Another);
        // One that another agent left on this very address, before it was ours.
        let here = MemberData { api_url: "http://here/patroni".to_owned(), ..MemberData::default() };
        assert_eq!(namesake(Some(&here)), Namesake::None);
    }
}
