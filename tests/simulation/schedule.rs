//! What a seed means: how many members, how they are configured, and which faults happen when. Each seed enables a few kinds of faults only
//! (a swarm): what happens all the time hides what happens because of it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    faults::{Fault, Who},
    world::{MILLI, Nanos},
};

/// A world's circumstances.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Schedule {
    pub seed: u64,
    pub members: usize,
    /// The dynamic configuration that the cluster begins with.
    pub config: Value,
    pub slots: bool,
    /// Largest error of a clock, in parts per million.
    pub clock_error: i64,
    /// Mean pause between two commits.
    pub write_pause: Nanos,
    /// Factors and spans of slowness.
    pub slow_start: u64,
    pub slow_promote: u64,
    pub slow_reload: Nanos,
    /// Milliseconds, and what happens then.
    pub faults: Vec<(u64, Fault)>,
    /// When everything is healed, in milliseconds.
    pub heal: u64,
    /// How long healing may take, in milliseconds.
    pub patience: u64,
}

/// Before this nothing happens: the cluster forms.
const FORMED: u64 = 8_000;

impl Schedule {
    /// The schedule of a seed.
    pub fn of(seed: u64) -> Schedule {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let members = [3, 3, 3, 3, 4, 5, 2][rng.usize(0..7)];
        let (ttl, wait, retry) = [(5, 1, 2), (5, 1, 2), (3, 1, 1), (10, 2, 4), (10, 2, 4), (20, 5, 5), (30, 10, 10)][rng.usize(0..7)];
        let mode = [json!("off"), json!("on"), json!("quorum"), json!("quorum"), json!("on")][rng.usize(0..5)].clone();
        let slots = rng.u32(0..12) > 0;
        let count = if rng.u32(0..3) == 0 { rng.usize(1..members) } else { 1 };
        let config = json!({
            "ttl": ttl, "loop_wait": wait, "retry_timeout": retry,
            "synchronous_mode": mode, "synchronous_node_count": count, "synchronous_mode_strict": rng.u32(0..4) == 0,
            "maximum_lag_on_failover": if rng.u32(0..3) == 0 { 2000 } else { 1_048_576 },
            "primary_start_timeout": match rng.u32(0..3) { 0 => 3, _ if seed % 16 == 3 => 0, _ => 300 },
            "member_slots_ttl": if rng.u32(0..2) == 0 { 5 } else { 1800 },
            "postgresql": { "use_pg_rewind": rng.u32(0..4) > 0, "use_slots": slots },
        });
        let heal = FORMED + rng.u64(8_000..45_000) + if ttl >= 20 { 20_000 } else { 0 };
        let swarm: Vec<u32> = (0..crate::faults::KINDS).filter(|_| rng.u32(0..10) < 3).collect();
        let gap = rng.u64(400..9_000);
        let mut faults = Vec::new();
        let mut at = FORMED / 2 + rng.u64(0..FORMED);
        while at < heal && !swarm.is_empty() {
            faults.push((at, Fault::random(swarm[rng.usize(0..swarm.len())], members, ttl, &mut rng)));
            at += rng.u64(1..2 * gap);
        }
        Schedule {
            seed,
            members,
            config,
            slots,
            clock_error: [0, 2_000, 10_000][rng.usize(0..3)],
            write_pause: rng.u64(60..250) * MILLI,
            slow_start: [1, 1, 1, 6][rng.usize(0..4)],
            slow_promote: [1, 1, 1, 8][rng.usize(0..4)],
            slow_reload: [4, 4, 300, 3000][rng.usize(0..4)] * MILLI,
            faults,
            heal,
            patience: 45_000 + 4_000 * ttl,
        }
    }

    /// True when nothing at all is wrong in it: then nobody has a reason to change the leader.
    pub fn is_calm(&self) -> bool {
        self.faults
            .iter()
            .all(|(_, fault)| matches!(fault, Fault::Straggle { .. } | Fault::WatchLag { .. } | Fault::Crash(Who::Standby(_), _)))
            && self.slow_start == 1
    }
}
