//! Who reaches whom. The store is one more place in the network.

use crate::world::{Id, MICRO, Nanos, World};

/// A place: a member's host, or the store behind all of them.
pub type Place = usize;

/// Directions that are cut, and what the others cost.
pub struct Network {
    cut: Vec<Vec<u32>>,
    /// Least and most time of a message.
    pub delay: (Nanos, Nanos),
    /// One message in so many is late by up to `straggle`.
    pub stragglers: u32,
    pub straggle: Nanos,
}

impl Network {
    /// A whole network between `members` and a store.
    pub fn new(members: usize) -> Network {
        Network { cut: vec![vec![0; members + 1]; members + 1], delay: (100 * MICRO, 900 * MICRO), stragglers: 0, straggle: 0 }
    }

    /// The store's place.
    pub fn store(&self) -> Place {
        self.cut.len() - 1
    }

    /// Cuts one direction, once more.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cut[from][to] += 1;
    }

    /// Takes one cut back.
    pub fn mend(&mut self, from: Place, to: Place) {
        self.cut[from][to] = self.cut[from][to].saturating_sub(1);
    }

    /// Takes all cuts back.
    pub fn mend_all(&mut self) {
        for row in &mut self.cut {
            row.fill(0);
        }
    }

    /// True when messages get through in this direction.
    pub fn passes(&self, from: Place, to: Place) -> bool {
        from == to || self.cut[from][to] == 0
    }
}

impl World {
    /// How long a message takes that leaves now.
    pub fn travel(&mut self) -> Nanos {
        let (least, most) = self.net.delay;
        let late = if self.one_in(self.net.stragglers) { self.net.straggle } else { 0 };
        let late = self.between(0, late);
        self.between(least, most) + late
    }

    /// True when both hosts run and messages pass in both directions.
    pub fn connected(&self, a: Id, b: Id) -> bool {
        self.net.passes(a, b) && self.net.passes(b, a) && self.members[a].host_up && self.members[b].host_up
    }
}
