//! Connection strings in keyword form, and the password file that keeps passwords out of them.

use std::path::Path;

use super::{Address, Credentials};
use crate::sys::files;

/// One keyword's value, quoted so that libpq reads it back unchanged.
pub fn quote(value: &str) -> String {
    let plain = !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c));
    if plain { value.to_owned() } else { format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")) }
}

/// A connection to `address` as `user`, passwords from `passfile`. `extra` keywords follow.
pub fn conninfo(address: &Address, user: &str, passfile: &Path, extra: &[(&str, &str)]) -> String {
    conninfo_to_any(std::slice::from_ref(address), user, passfile, extra)
}

/// The same to the first of these addresses that will do.
pub fn conninfo_to_any(addresses: &[Address], user: &str, passfile: &Path, extra: &[(&str, &str)]) -> String {
    let hosts: Vec<&str> = addresses.iter().map(|address| address.host.as_str()).collect();
    let ports: Vec<String> = addresses.iter().map(|address| address.port.to_string()).collect();
    let (hosts, ports, passfile) = (hosts.join(","), ports.join(","), passfile.to_string_lossy());
    let fixed = [("user", user), ("host", &hosts), ("port", &ports), ("passfile", &passfile)];
    let keywords = fixed.iter().chain(extra).map(|(keyword, value)| format!("{keyword}={}", quote(value)));
    keywords.collect::<Vec<_>>().join(" ")
}

/// Writes the password file (mode 0600) for connections of these roles to any host: members come and go, their addresses with them.
pub fn write_passfile(path: &Path, roles: &[&Credentials]) -> std::io::Result<()> {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    let mut text = String::new();
    for role in roles {
        if let Some(password) = &role.password {
            text.push_str(&format!("*:*:*:{}:{}\n", escape(&role.username), escape(password.expose())));
        }
    }
    files::replace(path, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_are_quoted() {
        let address = Address { host: "orders-1".into(), port: 5432 };
        let text = conninfo(&address, "replicator", Path::new("/run/spilo/pgpass"), &[("application_name", "it's")]);
        assert_eq!(text, r"user=replicator host=orders-1 port=5432 passfile=/run/spilo/pgpass application_name='it\'s'");
        assert_eq!(quote(""), "''");
        let text = conninfo_to_any(&[address.clone(), Address { port: 5433, ..address }], "replicator", Path::new("/pgpass"), &[]);
        assert_eq!(text, "user=replicator host='orders-1,orders-1' port='5432,5433' passfile=/pgpass");
    }
}
