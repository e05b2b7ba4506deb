//! Reading values of a configuration file, with all mistakes at once.

use std::fs;

use serde_json::Value;

use crate::{
    model::Secret,
    postgres::{Address, Credentials},
};

/// Collects mistakes while reading.
pub struct Reader<'a> {
    pub root: &'a Value,
    pub mistakes: Vec<String>,
}

impl Reader<'_> {
    pub fn at(&self, path: &str) -> &Value {
        path.split('.').fold(self.root, |value, key| &value[key])
    }

    pub fn text(&mut self, path: &str) -> Option<String> {
        match self.at(path) {
            Value::String(s) if !s.is_empty() => Some(s.clone()),
            Value::Null => None,
            other => {
                let found = other.to_string();
                self.mistakes.push(format!("'{path}' is {found}, a text is needed"));
                None
            }
        }
    }

    pub fn required(&mut self, path: &str) -> String {
        let before = self.mistakes.len();
        let found = self.text(path);
        if found.is_none() && self.mistakes.len() == before {
            self.mistakes.push(format!("'{path}' is missing"));
        }
        found.unwrap_or_default()
    }

    pub fn host_port(&mut self, path: &str, text: &str) -> Address {
        match text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) if !host.is_empty() && port > 0 => Address { host: host.trim_matches(['[', ']']).to_owned(), port },
            _ => {
                if !text.is_empty() {
                    self.mistakes.push(format!("'{path}' is '{text}', something like '10.0.0.1:5432' is needed"));
                }
                Address { host: String::new(), port: 0 }
            }
        }
    }

    /// A role with `username` and `password` or, our addition, `password_file`.
    pub fn role(&mut self, path: &str, default_name: &str) -> Credentials {
        let username = self.text(&format!("{path}.username")).unwrap_or_else(|| default_name.to_owned());
        let inline = self.password(&format!("{path}.password"));
        let password = inline.or_else(|| {
            let file = self.text(&format!("{path}.password_file"))?;
            self.secret_file(&format!("{path}.password_file"), &file)
        });
        Credentials { username, password }
    }

    /// A password; what it is instead of a text is not repeated, because it may be one without quotes.
    pub fn password(&mut self, path: &str) -> Option<Secret> {
        match self.at(path) {
            Value::String(text) if !text.is_empty() => Some(Secret::new(text.as_str())),
            Value::String(_) | Value::Null => None,
            _ => {
                self.mistakes.push(format!("'{path}' is no text: put it in quotes"));
                None
            }
        }
    }

    pub fn secret_file(&mut self, path: &str, file: &str) -> Option<Secret> {
        match fs::read_to_string(file) {
            Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
            Ok(_) => {
                self.mistakes.push(format!("'{path}': the file '{file}' is empty"));
                None
            }
            Err(error) => {
                self.mistakes.push(format!("'{path}': the file '{file}' cannot be read: {error}"));
                None
            }
        }
    }
}
