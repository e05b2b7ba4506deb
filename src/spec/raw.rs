//! Raw spec text: YAML into plain JSON values, nothing judged yet.

use serde_json::{Map, Value};

/// A spec file that is not a YAML mapping at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableSpec {
    /// The YAML itself is broken, or a key stands twice.
    #[error("not valid YAML: {0}")]
    NotYaml(String),
    /// Valid YAML of the wrong form.
    #[error("the document is {found}, expected a mapping such as 'name: orders'")]
    NotAMapping {
        /// What the document is instead.
        found: &'static str,
    },
}

/// Reads one YAML document (JSON is YAML too) whose top level is a mapping. Keys keep their order, so that mistakes are reported in the
/// order in which they were written.
pub fn parse_spec_text(text: &str) -> Result<Map<String, Value>, UnreadableSpec> {
    // An empty file would read as an empty mapping; say instead that there is nothing in it.
    let document: Value = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false })
        .map_err(|error| UnreadableSpec::NotYaml(error.to_string()))?;
    match document {
        Value::Object(keys) => Ok(keys),
        other => Err(UnreadableSpec::NotAMapping { found: kind_of(&other) }),
    }
}

/// What a value is, in words for a message.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_the_file() {
        let keys = parse_spec_text("nodes: 3\nname: orders\n").unwrap();
        assert_eq!(keys.keys().collect::<Vec<_>>(), ["nodes", "name"]);
    }

    #[test]
    fn a_document_that_is_no_mapping_is_named_for_what_it_is() {
        for (text, found) in [("", "empty"), ("- a\n- b\n", "a list"), ("orders", "a text"), ("3", "a number")] {
            assert_eq!(parse_spec_text(text), Err(UnreadableSpec::NotAMapping { found }), "{text:?}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        let error = parse_spec_text("name: a\nname: b\n").unwrap_err().to_string();
        assert!(error.contains("duplicate") && error.contains("name"), "{error}");
    }

    #[test]
    fn broken_yaml_is_refused_with_its_line() {
        let error = parse_spec_text("name: orders\nnodes: [1\n").unwrap_err().to_string();
        assert!(error.starts_with("not valid YAML") && error.contains("line"), "{error}");
    }
}
