//! Patroni's dynamic settings that have no effect here.

use serde_json::Value;

const KEPT_ASIDE: &str = "data that cannot be rewound are replaced by a copy, and stay beside it until it streams";
const NO_WAIT: &str = "a server that may write no longer is not waited for, and a clean end gets a minute";

/// Where they are, and what is done instead.
const IDLE: [(&str, &str); 6] = [
    ("/check_timeline", "members compare where their timelines parted, always"),
    ("/primary_stop_timeout", NO_WAIT),
    ("/master_stop_timeout", NO_WAIT),
    ("/postgresql/pg_ctl_timeout", "how long a start may take is 'primary_start_timeout'"),
    ("/postgresql/remove_data_directory_on_rewind_failure", KEPT_ASIDE),
    ("/postgresql/remove_data_directory_on_diverged_timelines", KEPT_ASIDE),
];

/// What a dynamic configuration says without effect, and why it has none.
pub fn idle(config: &Value) -> Vec<String> {
    let is_there = |pointer: &str| config.pointer(pointer).is_some_and(|value| !value.is_null());
    let said = |(pointer, why): &(&str, &str)| format!("'{}' has no effect: {why}", pointer.trim_start_matches('/').replace('/', "."));
    IDLE.iter().filter(|(pointer, _)| is_there(pointer)).map(said).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::dynamic;

    #[test]
    fn what_has_no_effect_is_named_and_no_mistake() {
        let config = json!({"check_timeline": true, "primary_stop_timeout": null, "postgresql": {"pg_ctl_timeout": 60, "use_slots": true}});
        let said = idle(&config);
        assert!(said.len() == 2 && said[0].starts_with("'check_timeline' has no effect"), "{said:?}");
        assert!(said[1].starts_with("'postgresql.pg_ctl_timeout' has no effect"), "{said:?}");
        assert_eq!(dynamic::mistakes_of_file(&config), []);
    }
}
