//! Replication slots that the dynamic configuration asks for, and those that it wants left alone.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Mistake;

/// Under which keys Patroni looks for permanent slots; the first that is there counts.
const SECTIONS: [&str; 3] = ["permanent_replication_slots", "permanent_slots", "slots"];

/// Slots of somebody else's: all that is given has to be equal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredSlot {
    /// Its name.
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub kind: Option<String>,
    /// It has to be of a database or of a plugin: no physical slot is.
    pub is_of_database: bool,
}

impl IgnoredSlot {
    /// True for this physical slot.
    pub fn covers(&self, physical: &str) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        !self.is_of_database && fits(&self.name, physical) && fits(&self.kind, "physical")
    }
}

/// The names of permanent physical slots. What cannot be kept is left out.
pub fn permanent(config: &Value) -> BTreeSet<String> {
    let slots = section(config).and_then(|(_, section)| section.as_object()).into_iter().flatten();
    slots.filter(|(name, slot)| problem(name, slot).is_none()).map(|(name, _)| name.clone()).collect()
}

/// What `ignore_slots` lists.
pub fn ignored(config: &Value) -> Vec<IgnoredSlot> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let items = config["ignore_slots"].as_array().into_iter().flatten().filter(|item| item.is_object());
    let ignored = items.map(|item| IgnoredSlot {
        name: text(&item["name"]),
        kind: text(&item["type"]),
        is_of_database: !item["database"].is_null() || !item["plugin"].is_null(),
    });
    // One that says nothing would cover everything.
    ignored.filter(|slot| *slot != IgnoredSlot::default()).collect()
}

/// What is wrong with the permanent slots of a dynamic configuration.
pub fn mistakes_in(config: &Value) -> Vec<Mistake> {
    section(config).map(|(path, section)| mistakes(path, section)).unwrap_or_default()
}

fn section(config: &Value) -> Option<(&'static str, &Value)> {
    SECTIONS.iter().map(|key| (*key, &config[*key])).find(|(_, section)| !section.is_null())
}

/// What is wrong with the permanent slots in the section at `path`.
pub fn mistakes(path: &str, section: &Value) -> Vec<Mistake> {
    let slots = section.as_object().into_iter().flatten();
    let mistake = |(name, slot): (&String, &Value)| {
        let (path, value) = (format!("{path}.{name}"), Some(slot.to_string()));
        problem(name, slot).map(|problem| Mistake { path, value, problem })
    };
    slots.filter_map(mistake).collect()
}

fn problem(name: &str, slot: &Value) -> Option<String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return Some("names of slots are 1 to 63 lower case letters, digits and underscores".to_owned());
    }
    let known = |key: &str| ["type", "cluster_type", "database", "plugin"].contains(&key);
    match slot {
        Value::Null | Value::Bool(false) => None,
        Value::Object(slot) if slot.keys().any(|key| !known(key)) => Some("possible are: type, cluster_type".to_owned()),
        Value::Object(slot) if slot.get("type").is_some_and(|kind| kind == "logical") || slot.contains_key("plugin") => Some(
            "logical slots are not kept over a failover: a consumer would miss changes without a word; let PostgreSQL 17 and later keep them \
             ('failover' slots and 'sync_replication_slots')"
                .to_owned(),
        ),
        Value::Object(slot) if slot.get("type").is_some_and(|kind| kind != "physical") => Some("the type of a slot is physical".to_owned()),
        Value::Object(_) => None,
        _ => Some("expected a mapping such as {type: physical}".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn physical_slots_are_kept_and_the_rest_is_a_mistake() {
        let slots = json!({"backup": {"type": "physical"}, "plain": null, "other": {}, "Odd": {}, "feed": {"type": "logical", "database": "d", "plugin": "p"}});
        let config = json!({ "slots": slots });
        assert_eq!(permanent(&config), ["backup", "other", "plain"].map(str::to_owned).into());
        let mistakes = mistakes("slots", &config["slots"]);
        assert_eq!(mistakes.iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["slots.Odd", "slots.feed"]);
        assert!(mistakes[1].problem.contains("PostgreSQL 17"), "{mistakes:?}");
    }

    #[test]
    fn a_matcher_covers_what_equals_all_that_it_says() {
        let ignored = ignored(&json!({"ignore_slots": [{"name": "mine", "type": "physical"}, {"name": "feed", "plugin": "p"}, {}]}));
        assert_eq!(ignored.len(), 2);
        assert!(ignored.iter().any(|slot| slot.covers("mine")));
        assert!(!ignored.iter().any(|slot| slot.covers("feed") || slot.covers("another")));
    }
}
