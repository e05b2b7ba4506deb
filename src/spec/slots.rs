//! Replication slots that the dynamic configuration asks for, and those that it wants left alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Mistake,
    settings::{flag, parameters},
    standby_cluster,
};

/// The first version of PostgreSQL whose logical slots survive a failover: standbys take them over from their primary. Earlier ones would have to be
/// made anew, and their consumers would miss changes without a word.
pub const FAILOVER_SLOTS: u32 = 17;

/// Under which keys Patroni looks for permanent slots; the first that is there counts.
const SECTIONS: [&str; 3] = ["permanent_replication_slots", "permanent_slots", "slots"];

/// A permanent logical slot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogicalSlot {
    /// Whose changes it has.
    pub database: String,
    /// What decodes them.
    pub plugin: String,
}

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
    let here = if standby_cluster::read(config).is_some() { "standby" } else { "primary" };
    let wanted_here = |slot: &Value| slot["cluster_type"].as_str().is_none_or(|kind| kind == here);
    let kept = slots.filter(|(name, slot)| !is_logical(slot) && problem(name, slot).is_none() && wanted_here(slot));
    kept.map(|(name, _)| name.clone()).collect()
}

/// The permanent logical slots. What cannot be kept is left out.
pub fn logical(config: &Value) -> BTreeMap<String, LogicalSlot> {
    let text = |slot: &Value, key: &str| slot[key].as_str().unwrap_or_default().to_owned();
    let slots = section(config).and_then(|(_, section)| section.as_object()).into_iter().flatten();
    let kept = slots.filter(|(name, slot)| is_logical(slot) && problem(name, slot).is_none() && slot["cluster_type"] != "standby");
    kept.map(|(name, slot)| (name.clone(), LogicalSlot { database: text(slot, "database"), plugin: text(slot, "plugin") })).collect()
}

fn is_logical(slot: &Value) -> bool {
    slot["type"] == "logical" || !slot["database"].is_null() || !slot["plugin"].is_null()
}

/// What else the configuration has to say for logical slots to be kept.
pub fn conditions(config: &Value) -> Vec<Mistake> {
    let Some((section, _)) = section(config) else { return Vec::new() };
    let postgresql = &config["postgresql"];
    let decodes = parameters(&postgresql["parameters"]).get("wal_level").is_some_and(|level| level == "logical");
    let problem = if !decodes {
        "a logical slot needs 'postgresql.parameters.wal_level: logical', and a restart of every member with it"
    } else if flag(&postgresql["use_slots"]) == Some(false) {
        "a logical slot is taken over by standbys that stream through slots: 'postgresql.use_slots' is off"
    } else if standby_cluster::read(config).is_some() {
        "a standby cluster keeps no logical slots: they are on the primary of the other cluster"
    } else {
        return Vec::new();
    };
    let mistake = |name: &String| Mistake { path: format!("{section}.{name}"), value: None, problem: problem.to_owned() };
    logical(config).keys().map(mistake).collect()
}

/// Logical slots that PostgreSQL of this major version does not keep over a failover.
pub fn too_old(config: &Value, major: u32) -> Vec<Mistake> {
    let Some((section, _)) = section(config).filter(|_| major < FAILOVER_SLOTS) else { return Vec::new() };
    let mistake = |name: &String| Mistake {
        path: format!("{section}.{name}"),
        value: None,
        problem: format!(
            "logical slots survive a failover from PostgreSQL {FAILOVER_SLOTS} on, this is {major}: made anew after one, the slot would hide from \
             its consumer what it has missed"
        ),
    };
    logical(config).keys().map(mistake).collect()
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
        Value::Object(keys) if keys.keys().any(|key| !known(key)) => Some("possible are: type, cluster_type, database, plugin".to_owned()),
        Value::Object(keys) if keys.get("cluster_type").is_some_and(|kind| kind != "primary" && kind != "standby") => {
            Some("the 'cluster_type' of a slot is primary or standby: it is kept only while the cluster is one".to_owned())
        }
        Value::Object(_) if is_logical(slot) => logical_problem(slot),
        Value::Object(keys) if keys.get("type").is_some_and(|kind| kind != "physical") => {
            Some("the type of a slot is physical or logical".to_owned())
        }
        Value::Object(_) => None,
        _ => Some("expected a mapping such as {type: physical}".to_owned()),
    }
}

fn logical_problem(slot: &Value) -> Option<String> {
    if slot["type"] == "physical" {
        return Some("a physical slot has neither 'database' nor 'plugin'".to_owned());
    }
    let named = |key: &str| slot[key].as_str().is_some_and(|text| !text.is_empty() && text.len() <= 63 && !text.contains(char::is_control));
    let missing = ["database", "plugin"].into_iter().find(|key| !named(key))?;
    Some(format!("a logical slot needs a '{missing}', such as {{type: logical, database: app, plugin: pgoutput}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn physical_slots_are_kept_and_the_rest_is_a_mistake() {
        let slots =
            json!({"backup": {"type": "physical"}, "plain": null, "other": {}, "Odd": {}, "feed": {"type": "logical", "database": "d"}});
        let config = json!({ "slots": slots });
        assert_eq!(permanent(&config), ["backup", "other", "plain"].map(str::to_owned).into());
        let mistakes = mistakes("slots", &config["slots"]);
        assert_eq!(mistakes.iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["slots.Odd", "slots.feed"]);
        assert!(mistakes[1].problem.contains("needs a 'plugin'"), "{mistakes:?}");
    }

    #[test]
    fn logical_slots_are_kept_where_postgresql_can_and_refused_with_its_version_elsewhere() {
        let mut config = json!({"slots": {"feed": {"type": "logical", "database": "app", "plugin": "pgoutput"}, "plain": null}});
        let kept = LogicalSlot { database: "app".into(), plugin: "pgoutput".into() };
        assert_eq!(logical(&config), [("feed".to_owned(), kept)].into());
        assert_eq!(permanent(&config), ["plain".to_owned()].into());
        assert_eq!((mistakes("slots", &config["slots"]), too_old(&config, 17)), (vec![], vec![]));
        let refused = too_old(&config, 16);
        assert!(refused.len() == 1 && refused[0].path == "slots.feed" && refused[0].problem.contains("this is 16"), "{refused:?}");
        let said = |config: &Value| conditions(config).iter().map(|mistake| mistake.problem.clone()).collect::<Vec<_>>().join("\n");
        assert!(said(&config).contains("wal_level: logical"));
        config["postgresql"] = json!({"parameters": {"wal_level": "logical"}});
        assert_eq!(said(&config), "");
        config["postgresql"]["use_slots"] = json!(false);
        assert!(said(&config).contains("use_slots"));
        config["postgresql"]["use_slots"] = json!(true);
        config["standby_cluster"] = json!({"host": "elsewhere"});
        assert!(said(&config).contains("the other cluster"));
    }

    #[test]
    fn a_slot_may_be_wanted_only_in_a_standby_cluster_or_only_in_another() {
        let mut config = json!({"slots": {"down": {"cluster_type": "standby"}, "up": {"cluster_type": "primary"}, "both": null, "odd": {"cluster_type": "x"}}});
        assert_eq!(permanent(&config), ["both", "up"].map(str::to_owned).into());
        config["standby_cluster"] = json!({"host": "elsewhere"});
        assert_eq!(permanent(&config), ["both", "down"].map(str::to_owned).into());
        assert_eq!(mistakes("slots", &config["slots"]).iter().map(|m| m.path.as_str()).collect::<Vec<_>>(), ["slots.odd"]);
    }

    #[test]
    fn a_matcher_covers_what_equals_all_that_it_says() {
        let ignored = ignored(&json!({"ignore_slots": [{"name": "mine", "type": "physical"}, {"name": "feed", "plugin": "p"}, {}]}));
        assert_eq!(ignored.len(), 2);
        assert!(ignored.iter().any(|slot| slot.covers("mine")));
        assert!(!ignored.iter().any(|slot| slot.covers("feed") || slot.covers("another")));
    }
}
