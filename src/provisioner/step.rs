//! One repeatable step of a plan.

use serde::Serialize;

/// A step: what it brings about, why that is needed, and what `A`, the platform's own instruction, does for it.
///
/// Every step ensures an end state and may be repeated: after a crash in the middle of it the same step is planned again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step<A> {
    /// Stable and unique within the plan, such as `node orders-1`.
    pub name: String,
    /// What a person reads while it runs, such as `start node orders-1`.
    pub title: String,
    /// Why it is needed: what was found that is not as it should be.
    pub why: String,
    /// Steps of the same stage run at the same time; a stage begins when the one before it is complete.
    pub stage: u8,
    /// Objects that will exist afterwards and did not before.
    pub creates: Vec<String>,
    /// Objects that will be gone afterwards.
    pub removes: Vec<String>,
    /// Whether data that no other object holds goes with it. Such a step needs the user's consent.
    pub destroys_data: bool,
    /// What the platform does.
    pub action: A,
}

impl<A> Step<A> {
    /// A step that neither creates nor removes anything yet.
    pub fn new(stage: u8, name: impl Into<String>, title: impl Into<String>, why: impl Into<String>, action: A) -> Step<A> {
        Step {
            name: name.into(),
            title: title.into(),
            why: why.into(),
            stage,
            creates: Vec::new(),
            removes: Vec::new(),
            destroys_data: false,
            action,
        }
    }

    /// Says which objects come into being.
    #[must_use]
    pub fn creating(mut self, objects: impl IntoIterator<Item = String>) -> Step<A> {
        self.creates.extend(objects);
        self
    }

    /// Says which objects go.
    #[must_use]
    pub fn removing(mut self, objects: impl IntoIterator<Item = String>) -> Step<A> {
        self.removes.extend(objects);
        self
    }

    /// Marks the step as one that destroys data.
    #[must_use]
    pub fn destroying_data(mut self) -> Step<A> {
        self.destroys_data = true;
        self
    }
}
