//! Lines of pg_hba.conf and pg_ident.conf.

use serde_json::Value;

use crate::spec::raw::kind_of;

/// What is wrong with a line of pg_hba.conf or pg_ident.conf: with one that PostgreSQL cannot read it would not start.
pub fn fault(file: &str, line: &Value) -> Option<String> {
    let Some(text) = line.as_str() else { return Some(format!("it is {}, expected a text", kind_of(line))) };
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Some("line breaks and control characters are not possible".to_owned());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || words[0].starts_with('#') {
        return None;
    }
    if file == "pg_ident" {
        return (words.len() < 3).then(|| "expected a map, a system user and a database user".to_owned());
    }
    let (least, method) = match words[0] {
        "local" => (4, words.get(3)),
        "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => {
            let masked = words.get(4).is_some_and(|word| word.parse::<std::net::IpAddr>().is_ok());
            if masked { (6, words.get(5)) } else { (5, words.get(4)) }
        }
        _ => return Some("expected a line that begins with local, host, hostssl, hostnossl, hostgssenc or hostnogssenc".to_owned()),
    };
    if words.len() < least {
        return Some(format!("expected at least {least} words: type, databases, users, address (not for local) and method"));
    }
    let known = METHODS.contains(method.unwrap_or(&""));
    (!known && !text.contains('"')).then(|| format!("the method is none of: {}", METHODS.join(", ")))
}

const METHODS: &[&str] =
    &["trust", "reject", "scram-sha-256", "md5", "password", "gss", "ident", "peer", "ldap", "radius", "cert", "pam", "oauth"];
