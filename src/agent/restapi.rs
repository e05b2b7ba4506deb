//! The sections `restapi` and `ctl` of the configuration, as far as they say who may do what.

use serde_json::Value;

use super::keys::is_set;
use crate::api::{Access, Login};

/// Whoever sets one of these counts on a protection, and would not get it.
const NOT_PROTECTED_BY: [&str; 7] =
    ["certfile", "keyfile", "keyfile_password", "cafile", "ciphers", "allowlist", "allowlist_include_members"];

/// What is demanded of others, and what they are shown: `ctl.authentication`, or else what we demand ourselves.
pub fn access(root: &Value, mistakes: &mut Vec<String>) -> Access {
    let restapi = &root["restapi"];
    for key in NOT_PROTECTED_BY {
        if is_set(&restapi[key]) {
            let instead = "the REST API speaks HTTP with 'restapi.authentication', to every address; remove it";
            mistakes.push(format!("'restapi.{key}' is not supported: {instead}"));
        }
    }
    if restapi["verify_client"].as_str().is_some_and(|text| text != "none") {
        mistakes.push("'restapi.verify_client' is not supported: clients show a password, no certificate; remove it".to_owned());
    }
    let demanded = Login::read(&restapi["authentication"], "restapi.authentication", mistakes);
    let shown = Login::read(&root["ctl"]["authentication"], "ctl.authentication", mistakes);
    Access { shown: shown.or_else(|| demanded.clone()), demanded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_protection_that_there_is_not_is_a_mistake() {
        for (key, value) in [
            ("certfile", json!("/etc/tls/api.pem")),
            ("cafile", json!("/etc/tls/ca.pem")),
            ("verify_client", json!("required")),
            ("allowlist", json!(["10.0.0.0/8"])),
            ("allowlist_include_members", json!(true)),
        ] {
            let mut mistakes = Vec::new();
            access(&json!({"restapi": {key: value}}), &mut mistakes);
            assert!(mistakes.len() == 1 && mistakes[0].contains(&format!("'restapi.{key}' is not supported")), "{mistakes:?}");
        }
        let mut mistakes = Vec::new();
        let harmless = json!({"certfile": null, "verify_client": "none", "allowlist": [], "allowlist_include_members": false});
        assert_eq!(access(&json!({"restapi": harmless}), &mut mistakes), Access::default());
        assert_eq!(mistakes, Vec::<String>::new());
    }

    #[test]
    fn members_are_shown_what_ctl_has_or_what_we_demand() {
        let mut mistakes = Vec::new();
        let login = |name: &str| json!({"authentication": {"username": name, "password": "x"}});
        let only_ours = access(&json!({"restapi": login("a")}), &mut mistakes);
        assert!(only_ours.demanded.is_some() && only_ours.demanded == only_ours.shown);
        let both = access(&json!({"restapi": login("a"), "ctl": login("b")}), &mut mistakes);
        assert_eq!([both.demanded, both.shown].map(|l| l.unwrap().username), ["a", "b"]);
        assert_eq!(mistakes, Vec::<String>::new());
    }
}
