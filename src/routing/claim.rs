//! A member's own word whether it leads, for the time in which the DCS names nobody.

use std::time::Duration;

use serde_json::Value;

use super::{Member, haproxy::authority};
use crate::model::MemberName;

/// An agent answers this question from memory.
const LIMIT: Duration = Duration::from_millis(400);

/// What a member says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It leads: its lease holds, or everybody who could take its place has promised not to.
    Leads,
    /// It does not, or somebody else is at its address.
    Denied,
    /// It does not say.
    Silent,
}

/// Asks members.
#[derive(Debug)]
pub struct Asker {
    http: reqwest::Client,
    scope: String,
}

impl Asker {
    /// One that asks members of the cluster `scope`.
    pub fn new(scope: &str) -> Result<Asker, reqwest::Error> {
        let http = reqwest::Client::builder().timeout(LIMIT).no_proxy().build()?;
        Ok(Asker { http, scope: scope.to_owned() })
    }

    /// Asks one of them whether it leads.
    pub async fn ask(&self, name: &MemberName, member: &Member) -> Claim {
        let url = format!("http://{}/primary", authority(&member.api_host, member.api_port));
        let Ok(answer) = self.http.get(url).send().await else { return Claim::Silent };
        let code = answer.status().as_u16();
        match answer.bytes().await {
            Ok(body) => judge(code, &body, name, &self.scope),
            Err(_) => Claim::Silent,
        }
    }
}

/// The member that was asked has to be named in the answer: by now its address may belong to somebody else, of another cluster even.
fn judge(code: u16, body: &[u8], name: &MemberName, scope: &str) -> Claim {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_it = body["patroni"]["name"] == name.as_str() && body["patroni"]["scope"] == scope;
    if code == 200 && is_it { Claim::Leads } else { Claim::Denied }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_member_that_was_asked_can_say_that_it_leads() {
        let said = |code, patroni: Value| {
            judge(code, json!({"role": "primary", "patroni": patroni}).to_string().as_bytes(), &"a".parse().unwrap(), "orders")
        };
        assert_eq!(said(200, json!({"version": "4.1.5", "scope": "orders", "name": "a"})), Claim::Leads);
        assert_eq!(said(503, json!({"scope": "orders", "name": "a"})), Claim::Denied);
        assert_eq!(said(200, json!({"scope": "orders", "name": "b"})), Claim::Denied);
        assert_eq!(said(200, json!({"scope": "invoices", "name": "a"})), Claim::Denied);
        assert_eq!(said(200, json!(null)), Claim::Denied);
        assert_eq!(judge(200, b"nonsense", &"a".parse().unwrap(), "orders"), Claim::Denied);
    }

    #[test]
    fn where_nobody_listens_nobody_says_anything() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let nowhere = Member { host: "127.0.0.1".into(), port: 1, api_host: "127.0.0.1".into(), api_port: 1 };
        let asker = Asker::new("orders").unwrap();
        assert_eq!(runtime.block_on(asker.ask(&"a".parse().unwrap(), &nowhere)), Claim::Silent);
    }
}
