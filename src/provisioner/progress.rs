//! How the applier tells what it is doing.

use std::time::Duration;

/// Told about every step while a plan is applied. All methods take `&self`, because steps of one stage run at the same time.
pub trait Progress {
    /// Asked before each step; `false` ends the work there, between two steps, as if it had been interrupted.
    fn may_start(&self, _name: &str) -> bool {
        true
    }

    /// A step begins.
    fn started(&self, name: &str, title: &str);

    /// A step has something to say, such as a line of an image build.
    fn line(&self, name: &str, line: &str);

    /// A step ended; `failure` is its error as a sentence.
    fn finished(&self, name: &str, elapsed: Duration, failure: Option<&str>);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _name: &str, _title: &str) {}

    fn line(&self, _name: &str, _line: &str) {}

    fn finished(&self, _name: &str, _elapsed: Duration, _failure: Option<&str>) {}
}
