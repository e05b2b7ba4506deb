//! Changes of the dynamic configuration: what is asked for, and how its outcome is told.

use serde_json::{Value, json};

use super::Answer;
use crate::spec::Mistake;

/// A change of the dynamic configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Merge this into it: `null` deletes, mappings merge, everything else replaces.
    Merge(Value),
    /// Put this in its place.
    Replace(Value),
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    /// The configuration is now this.
    To(Value),
    /// It has mistakes, and nothing was written.
    Mistaken(Vec<Mistake>),
    /// There is no configuration that could be changed.
    Missing,
    /// Somebody else changed it meanwhile, more than once: nothing was written.
    Overtaken,
    /// It could not be judged or written, and nothing was.
    Impossible(String),
    /// The DCS did not say whether it was written.
    Unknown(String),
}

impl Changed {
    /// The answer to whoever asked.
    pub fn told(self) -> Answer {
        match self {
            Changed::To(config) => Answer::json(200, config),
            Changed::Mistaken(mistakes) => {
                let sentences: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                let error = format!("the configuration was not changed: {}", sentences.join("; "));
                Answer::json(422, json!({"error": error, "mistakes": mistakes}))
            }
            Changed::Missing => Answer::text(
                503,
                "there is no dynamic configuration: the cluster is not initialised yet, or the DCS has lost its content; nothing was written",
            ),
            Changed::Overtaken => Answer::text(409, "the configuration is being changed by somebody else: nothing was written, try again"),
            Changed::Impossible(why) => Answer::text(503, format!("{why}; nothing was written")),
            Changed::Unknown(why) => {
                Answer::text(503, format!("it is not known whether the configuration was changed: {why}; read it again with GET /config"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Body, *};

    #[test]
    fn mistakes_are_told_as_a_sentence_and_one_by_one() {
        let mistake = Mistake { path: "ttl".into(), value: Some("1".into()), problem: "expected at least 3".into() };
        let Answer { code, body: Body::Json(document) } = Changed::Mistaken(vec![mistake]).told() else { panic!("no document") };
        assert_eq!(code, 422);
        assert_eq!(document["error"], "the configuration was not changed: 'ttl: 1': expected at least 3");
        assert_eq!(document["mistakes"], json!([{"path": "ttl", "value": "1", "problem": "expected at least 3"}]));
    }

    #[test]
    fn whoever_asked_learns_whether_something_was_written() {
        for (changed, code, part) in [
            (Changed::Missing, 503, "nothing was written"),
            (Changed::Overtaken, 409, "nothing was written"),
            (Changed::Impossible("x".into()), 503, "nothing was written"),
            (Changed::Unknown("x".into()), 503, "not known whether"),
        ] {
            let answer = changed.told();
            assert!(matches!(&answer.body, Body::Text(text) if answer.code == code && text.contains(part)), "{answer:?}");
        }
    }
}
