//! What the server is told to do wrong.

use std::time::Duration;

use super::{Refusal, Verb};

/// A way to misbehave.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Says no, and does nothing.
    Says(Refusal),
    /// Closes the connection, and does nothing.
    Hangup,
    /// Does it, and closes the connection before it says so.
    LostAnswer,
    /// The body of the answer ends with the connection after so many bytes.
    CutAfter(usize),
    /// The body ends so too, and the object is this one from then on.
    ReplacedAfter(usize, &'static [u8]),
    /// After so many bytes of the body nothing comes any more.
    StallAfter(usize),
    /// One bit of the body is another, in this byte.
    Flip(usize),
    /// The answer takes so much longer.
    Late(Duration),
    /// Does it, and does not say so before the test lets all that are held go on.
    Held,
}

/// When it does so.
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    verb: Option<Verb>,
    key: String,
    skip: u64,
    times: u64,
}

impl Rule {
    /// Always.
    pub fn always(fault: impl Into<Fault>) -> Rule {
        Rule { fault: fault.into(), verb: None, key: String::new(), skip: 0, times: u64::MAX }
    }

    /// With the next request.
    pub fn once(fault: impl Into<Fault>) -> Rule {
        Rule::always(fault).times(1)
    }

    /// With so many requests.
    pub fn times(self, times: u64) -> Rule {
        Rule { times, ..self }
    }

    /// Only with requests of this verb.
    pub fn on(self, verb: Verb) -> Rule {
        Rule { verb: Some(verb), ..self }
    }

    /// Only with objects whose name has this in it.
    pub fn of(self, key: &str) -> Rule {
        Rule { key: key.to_owned(), ..self }
    }

    /// Not with the first such requests.
    pub fn after(self, skip: u64) -> Rule {
        Rule { skip, ..self }
    }

    fn applies(&mut self, verb: Verb, key: &str) -> bool {
        let fits = self.times > 0 && self.verb.is_none_or(|wanted| wanted == verb) && key.contains(&self.key);
        if fits && self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if fits {
            self.times -= 1;
        }
        fits
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Says(refusal)
    }
}

/// All that is wrong with the server.
#[derive(Debug, Default)]
pub struct Faults {
    pub rules: Vec<Rule>,
    chaos: Option<(f64, fastrand::Rng)>,
}

impl Faults {
    pub fn chaos(&mut self, share: f64, seed: u64) {
        self.chaos = Some((share, fastrand::Rng::with_seed(seed)));
    }

    /// How often the rules that end still apply.
    pub fn unspent(&self) -> u64 {
        self.rules.iter().map(|rule| rule.times).filter(|times| *times < u64::MAX / 2).sum()
    }

    /// What goes wrong with this request.
    pub fn next(&mut self, verb: Verb, key: &str) -> Option<Fault> {
        if let Some(rule) = self.rules.iter_mut().find_map(|rule| rule.applies(verb, key).then(|| rule.fault.clone())) {
            return Some(rule);
        }
        let (share, chance) = self.chaos.as_mut()?;
        (chance.f64() < *share).then(|| any(verb, chance))
    }
}

/// Anything that passes by itself. No bit flips: three of them in one read are told as an object that is damaged where it is kept.
fn any(verb: Verb, chance: &mut fastrand::Rng) -> Fault {
    match chance.u8(..10) {
        0 | 1 => Refusal::slow_down().into(),
        2 => Refusal::internal_error().into(),
        3 => Refusal::timed_out().into(),
        4 => Fault::Hangup,
        5 | 6 => Fault::LostAnswer,
        7 => Fault::Late(Duration::from_millis(chance.u64(..30))),
        _ if verb == Verb::Put => Refusal::conflict().into(),
        8 => Fault::Hangup,
        _ => Fault::CutAfter(chance.usize(..100)),
    }
}
