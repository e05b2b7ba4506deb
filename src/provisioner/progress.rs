//! How the applier tells what it is doing.

use std::time::Duration;

/// Something said on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark<'a> {
    /// Of interest while the step goes on, such as a line of an image build.
    Passing(&'a str),
    /// Worth being read afterwards too: something was done in another way than usual.
    Lasting(&'a str),
}

/// Where remarks go.
pub type Say<'a> = &'a dyn Fn(Remark<'_>);

/// Told about every step while a plan is applied. All methods take `&self`, because steps of one stage run at the same time.
pub trait Progress {
    /// Asked before each step; `false` ends the work there, between two steps, as if it had been interrupted.
    fn may_start(&self, _name: &str) -> bool {
        true
    }

    /// A step begins.
    fn started(&self, name: &str, title: &str);

    /// A step has something to say.
    fn remark(&self, name: &str, remark: Remark<'_>);

    /// A step ended; `failure` is its error as a sentence.
    fn finished(&self, name: &str, elapsed: Duration, failure: Option<&str>);
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _name: &str, _title: &str) {}

    fn remark(&self, _name: &str, _remark: Remark<'_>) {}

    fn finished(&self, _name: &str, _elapsed: Duration, _failure: Option<&str>) {}
}
