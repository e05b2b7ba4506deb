//! Programs of the user's that the agent runs at turning points, as the configuration names them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::decide::notices::Event;

/// The programs, each split into words as a shell would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Told of what has happened; nobody waits for them.
    pub callbacks: BTreeMap<Event, Vec<String>>,
    /// Has to succeed before a promotion.
    pub pre_promote: Option<Vec<String>>,
    /// Run before PostgreSQL is stopped in good order.
    pub before_stop: Option<Vec<String>>,
}

impl Hooks {
    /// Reads the section `postgresql`; what is wrong with it goes to `mistakes`.
    pub fn read(postgresql: &Value, mistakes: &mut Vec<String>) -> Hooks {
        let section = &postgresql["callbacks"];
        match section {
            Value::Null => {}
            Value::Object(map) => {
                let known = |key: &String| Event::ALL.iter().any(|event| event.name() == key);
                let names = Event::ALL.map(Event::name).join(", ");
                let unknown = map.keys().filter(|key| !known(key));
                mistakes
                    .extend(unknown.map(|key| format!("'postgresql.callbacks.{key}': there is no such callback; possible are {names}")));
            }
            other => mistakes.push(format!("'postgresql.callbacks' is {other}, a mapping of callbacks to commands is needed")),
        }
        let mut command = |value: &Value, path: String| {
            words(value, &path).unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                None
            })
        };
        let callbacks = Event::ALL.into_iter().filter_map(|event| {
            let name = event.name();
            Some((event, command(&section[name], format!("postgresql.callbacks.{name}"))?))
        });
        let callbacks = callbacks.collect();
        let pre_promote = command(&postgresql["pre_promote"], "postgresql.pre_promote".to_owned());
        let before_stop = command(&postgresql["before_stop"], "postgresql.before_stop".to_owned());
        Hooks { callbacks, pre_promote, before_stop }
    }
}

/// The words of a command. The command itself is not repeated in a mistake: it may carry a password.
fn words(value: &Value, path: &str) -> Result<Option<Vec<String>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.trim().is_empty() => Ok(None),
        Value::String(text) => match shlex::split(text) {
            Some(words) if !words.is_empty() => Ok(Some(words)),
            _ => Err(format!("'{path}' cannot be split into words: a quote is not closed")),
        },
        _ => Err(format!("'{path}' is no text, a command line is needed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_are_split_as_a_shell_would() {
        let mut mistakes = Vec::new();
        let section = json!({"callbacks": {"on_start": "/bin/move-address --to 'eth 0'"}, "pre_promote": "/bin/fence", "before_stop": ""});
        let hooks = Hooks::read(&section, &mut mistakes);
        assert_eq!(hooks.callbacks[&Event::OnStart], ["/bin/move-address", "--to", "eth 0"]);
        assert_eq!((hooks.pre_promote, hooks.before_stop), (Some(vec!["/bin/fence".to_owned()]), None));
        assert_eq!(mistakes, [""; 0]);
    }

    #[test]
    fn every_mistake_is_named_without_the_command() {
        let mut mistakes = Vec::new();
        Hooks::read(&json!({"callbacks": {"on_fire": "x", "on_stop": "tell 'secret"}, "pre_promote": 7}), &mut mistakes);
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(mistakes[0].contains("on_fire") && mistakes[0].contains("on_role_change"), "{mistakes:?}");
        assert!(mistakes[1].contains("callbacks.on_stop") && !mistakes[1].contains("secret"), "{mistakes:?}");
    }
}
