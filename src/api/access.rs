//! Who may change something over the REST API: HTTP's basic authentication, as Patroni has it. What only reads is open to everybody.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ctutils::CtEq;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::model::Secret;

/// A name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name; without a colon.
    pub username: String,
    /// The password; not empty.
    pub password: Secret,
}

/// What is demanded of others, and what others are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Of whoever wants to change something; `None`: nothing.
    pub demanded: Option<Login>,
    /// To other members.
    pub shown: Option<Login>,
}

impl Login {
    /// Reads a section with `username` and `password` or, our addition, `password_file`. A section that is there and incomplete is a
    /// mistake: who wrote it does not want an open door.
    pub fn read(section: &Value, path: &str, mistakes: &mut Vec<String>) -> Option<Login> {
        if section.is_null() {
            return None;
        }
        if !section.is_object() {
            // It is not repeated, because it may be the password.
            mistakes.push(format!("'{path}' is no mapping with 'username' and 'password'"));
            return None;
        }
        let username = username(section, path).map_err(|mistake| mistakes.push(mistake)).ok();
        let password = password(section, path).map_err(|mistake| mistakes.push(mistake)).ok();
        Some(Login { username: username?, password: password? })
    }

    /// Whether these are the credentials of a request. How long that takes says nothing about where they differ.
    fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let shown = str::from_utf8(authorization).ok().and_then(|text| text.split_once(' '));
        let Some((_, encoded)) = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) else { return false };
        let Ok(shown) = STANDARD.decode(encoded.trim()) else { return false };
        let expected = format!("{}:{}", self.username, self.password.expose());
        // Digests are of one length, whatever was guessed.
        Sha256::digest(shown).as_slice().ct_eq(Sha256::digest(expected).as_slice()).into()
    }
}

fn username(section: &Value, path: &str) -> Result<String, String> {
    match &section["username"] {
        Value::String(name) if name.contains(':') => Err(format!("'{path}.username' has a colon, which ends a name in HTTP")),
        Value::String(name) if !name.is_empty() => Ok(name.clone()),
        Value::Null => Err(format!("'{path}.username' is missing")),
        _ => Err(format!("'{path}.username' is empty or no text: put it in quotes")),
    }
}

fn password(section: &Value, path: &str) -> Result<Secret, String> {
    match (&section["password"], &section["password_file"]) {
        (Value::String(text), _) if !text.is_empty() => Ok(Secret::new(text.as_str())),
        (Value::Null, Value::String(file)) => match std::fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim())),
            Ok(_) => Err(format!("'{path}.password_file': the file '{file}' is empty")),
            Err(error) => Err(format!("'{path}.password_file': the file '{file}' cannot be read: {error}")),
        },
        (Value::Null, Value::Null) => Err(format!("'{path}.password' is missing")),
        (Value::Null, _) => Err(format!("'{path}.password_file' is no text")),
        _ => Err(format!("'{path}.password' is empty or no text: put it in quotes")),
    }
}

impl Access {
    /// Why a request is not let in.
    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<&'static str> {
        let login = self.demanded.as_ref()?;
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return None;
        }
        match headers.get(header::AUTHORIZATION) {
            None => Some("no auth header received"),
            Some(shown) => (!login.is_shown_by(shown.as_bytes())).then_some("not authenticated"),
        }
    }
}

/// Stands before every path, so that one added later cannot be forgotten.
pub(super) async fn admit(State(access): State<watch::Receiver<Access>>, request: Request, next: Next) -> Response {
    let refusal = access.borrow().refusal(request.method(), request.headers());
    match refusal {
        Some(why) => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"Patroni\"")], why).into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub fn demanding(username: &str, password: &str) -> Access {
        Access { demanded: Some(Login { username: username.to_owned(), password: Secret::new(password) }), shown: None }
    }

    fn refusal(method: &Method, authorization: Option<&str>) -> Option<&'static str> {
        let shown = authorization.map(|text| (header::AUTHORIZATION, text.parse().unwrap()));
        demanding("admin", "s3:cret").refusal(method, &shown.into_iter().collect())
    }

    #[test]
    fn a_change_needs_the_name_and_the_password() {
        let right = format!("Basic {}", STANDARD.encode("admin:s3:cret"));
        for method in [Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            assert_eq!(refusal(&method, Some(&right)), None);
            assert_eq!(refusal(&method, Some(&right.replace("Basic", "basic"))), None);
            assert_eq!(refusal(&method, None), Some("no auth header received"));
            for wrong in ["admin:s3:cre", "admin:s3:cret ", "admin:", "Admin:s3:cret", ":", "", "s3:cret"] {
                let wrong = format!("Basic {}", STANDARD.encode(wrong));
                assert_eq!(refusal(&method, Some(&wrong)), Some("not authenticated"), "{wrong}");
            }
            for nonsense in ["Basic", "Basic ?", "admin:s3:cret", &right.replace("Basic", "Bearer"), &format!("{right}=")] {
                assert_eq!(refusal(&method, Some(nonsense)), Some("not authenticated"), "{nonsense}");
            }
        }
    }

    #[test]
    fn who_reads_needs_nothing() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
            assert_eq!(refusal(&method, None), None);
        }
    }

    #[test]
    fn half_a_login_is_a_mistake_that_shows_no_password() {
        let read = |section: Value| {
            let mut mistakes = Vec::new();
            (Login::read(&section, "restapi.authentication", &mut mistakes), mistakes.join("\n"))
        };
        assert_eq!(read(Value::Null), (None, String::new()));
        for (section, part) in [
            (json!({}), "username' is missing"),
            (json!({"username": "admin"}), "password' is missing"),
            (json!({"password": "hunter2"}), "username' is missing"),
            (json!({"username": "admin", "password": 8_675_309}), "put it in quotes"),
            (json!({"username": "admin", "password": ""}), "is empty"),
            (json!({"username": "ad:min", "password": "hunter2"}), "colon"),
            (json!({"username": "admin", "password_file": "/nonexistent"}), "cannot be read"),
            (json!("admin:hunter2"), "no mapping"),
        ] {
            let (login, said) = read(section.clone());
            assert!(login.is_none() && said.contains(part), "{section}: {said}");
            assert!(!said.contains("hunter2") && !said.contains("8675309"), "{said}");
        }
        let (login, said) = read(json!({"username": "admin", "password": "hunter2"}));
        assert!(said.is_empty() && !format!("{login:?}").contains("hunter2"), "{said} {login:?}");
    }
}
