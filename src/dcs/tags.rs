//! What the tags of a member mean. They are published as the user wrote them; here is how they are read, whoever wrote them.

use serde_json::{Map, Value};

use crate::{model::MemberName, spec::settings};

/// A member's tags.
pub type Tags = Map<String, Value>;

/// Tags that are either set or not.
const FLAGS: &[&str] = &["clonefrom", "nofailover", "noloadbalance", "nosync", "nostream"];

/// A flag and the priority that says the same by being 0 or less.
const PRIORITIES: &[(&str, &str)] = &[("nofailover", "failover_priority"), ("nosync", "sync_priority")];

/// It must not become leader.
pub fn nofailover(tags: &Tags) -> bool {
    excluded(tags, "nofailover", "failover_priority")
}

/// Who of several members with the same position goes first: the higher number.
pub fn failover_priority(tags: &Tags) -> i64 {
    if nofailover(tags) { 0 } else { priority(tags, "failover_priority") }
}

/// Commits never wait for it.
pub fn nosync(tags: &Tags) -> bool {
    excluded(tags, "nosync", "sync_priority")
}

/// Whom commits rather wait for: the higher number.
pub fn sync_priority(tags: &Tags) -> i64 {
    if nosync(tags) { 0 } else { priority(tags, "sync_priority") }
}

/// Load balancers send it no sessions that only read.
pub fn noloadbalance(tags: &Tags) -> bool {
    is_set(tags, "noloadbalance")
}

/// New members are rather copied from it than from the leader.
pub fn clonefrom(tags: &Tags) -> bool {
    is_set(tags, "clonefrom")
}

/// It never streams, and takes its WAL from the archive.
pub fn nostream(tags: &Tags) -> bool {
    is_set(tags, "nostream")
}

/// The member it streams from instead of the leader.
pub fn replicatefrom(tags: &Tags) -> Option<MemberName> {
    tags.get("replicatefrom")?.as_str()?.parse().ok()
}

/// The tags as Patroni publishes them: a flag only when it is set, or when it contradicts a priority.
pub fn published(tags: &Tags) -> Tags {
    let unset = |v: &Value| v.is_null() || settings::flag(v) == Some(false);
    let contradicts = |flag: &str| PRIORITIES.iter().any(|(f, priority)| *f == flag && tags.contains_key(*priority));
    let dropped = |k: &str, v: &Value| FLAGS.contains(&k) && unset(v) && !contradicts(k);
    tags.iter().filter(|(k, v)| !dropped(k, v)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What is wrong with the tags of the member `me`, each with what is allowed.
pub fn mistakes(value: &Value, me: Option<&MemberName>) -> Vec<String> {
    let tags = match value {
        Value::Null => return Vec::new(),
        Value::Object(tags) => tags,
        other => return vec![format!("'tags' is {other}, a mapping such as {{nofailover: true}} is needed")],
    };
    let mut mistakes = Vec::new();
    for (tag, value) in tags {
        let needed = match tag.as_str() {
            flag if FLAGS.contains(&flag) => (!value.is_null() && settings::flag(value).is_none()).then_some("true or false is needed"),
            "failover_priority" | "sync_priority" => {
                number(value).is_none().then_some("a whole number is needed, 0 to exclude this member")
            }
            "replicatefrom" => match (value.as_str().map(str::parse::<MemberName>), me) {
                (Some(Ok(name)), Some(me)) if name == *me => Some("this is the member itself; the name of another one is needed"),
                (Some(Ok(_)), _) => None,
                _ if value.is_null() => None,
                _ => Some("the name of a member is needed"),
            },
            _ => None,
        };
        if let Some(needed) = needed {
            mistakes.push(format!("'tags.{tag}' is {value}: {needed}"));
        }
    }
    mistakes
}

/// Tags that say two things at once, and which of them counts.
pub fn contradictions(tags: &Tags) -> Vec<String> {
    let contradiction = |(flag, priority): &(&str, &str)| {
        let (set, number) = (settings::flag(tags.get(*flag)?)?, number(tags.get(*priority)?)?);
        let text = format!("conflicting tags '{flag}: {set}' and '{priority}: {number}': '{flag}: {set}' counts");
        (set == (number > 0)).then_some(text)
    };
    PRIORITIES.iter().filter_map(contradiction).collect()
}

/// Set to something other than false. What cannot be read counts as set: each of the flags only keeps a member out of something.
fn is_set(tags: &Tags, tag: &str) -> bool {
    tags.get(tag).is_some_and(|v| !v.is_null() && settings::flag(v) != Some(false))
}

fn excluded(tags: &Tags, flag: &str, priority_tag: &str) -> bool {
    match tags.get(flag).filter(|v| !v.is_null()) {
        Some(_) => is_set(tags, flag),
        None => priority(tags, priority_tag) <= 0,
    }
}

fn priority(tags: &Tags, tag: &str) -> i64 {
    tags.get(tag).and_then(number).unwrap_or(1)
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tags(value: &Value) -> Tags {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_priority_of_zero_excludes_unless_the_flag_says_otherwise() {
        assert!(nofailover(&tags(&json!({"failover_priority": 0}))));
        assert!(nofailover(&tags(&json!({"nofailover": "yes", "failover_priority": 5}))));
        assert!(!nofailover(&tags(&json!({"nofailover": false, "failover_priority": 0}))));
        assert!(nosync(&tags(&json!({"sync_priority": "0"}))) && !nosync(&tags(&json!({}))));
        assert_eq!(failover_priority(&tags(&json!({"failover_priority": 3}))), 3);
        assert_eq!((failover_priority(&Tags::new()), sync_priority(&tags(&json!({"nosync": true, "sync_priority": 9})))), (1, 0));
    }

    #[test]
    fn flags_that_are_off_are_not_published() {
        let shown = published(&tags(&json!({"nofailover": false, "nosync": true, "zone": "a"})));
        assert_eq!(Value::Object(shown), json!({"nosync": true, "zone": "a"}));
        let both = json!({"nofailover": false, "failover_priority": 0});
        assert_eq!(Value::Object(published(&tags(&both))), both, "the flag is what lets it lead");
    }

    #[test]
    fn every_mistake_is_named_with_what_is_allowed() {
        let me = "n1".parse().unwrap();
        let wrong = json!({"nofailover": "perhaps", "sync_priority": "high", "replicatefrom": "n1", "zone": [1]});
        assert_eq!(
            mistakes(&wrong, Some(&me)),
            [
                "'tags.nofailover' is \"perhaps\": true or false is needed",
                "'tags.sync_priority' is \"high\": a whole number is needed, 0 to exclude this member",
                "'tags.replicatefrom' is \"n1\": this is the member itself; the name of another one is needed",
            ]
        );
        assert_eq!(mistakes(&json!({"nosync": "on", "failover_priority": 2, "replicatefrom": "n2"}), Some(&me)), [""; 0]);
        assert_eq!(mistakes(&json!(["nofailover"]), Some(&me)).len(), 1);
    }

    #[test]
    fn of_two_tags_that_contradict_each_other_the_flag_counts() {
        let said = contradictions(&tags(&json!({"nofailover": true, "failover_priority": 5, "nosync": false, "sync_priority": 2})));
        assert_eq!(said, ["conflicting tags 'nofailover: true' and 'failover_priority: 5': 'nofailover: true' counts"]);
    }
}
