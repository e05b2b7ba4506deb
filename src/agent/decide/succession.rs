//! Who may succeed a leader that has just been elected, before it has acknowledged anything and before anybody is known to have what it has.

use std::collections::BTreeSet;

use crate::dcs::snapshot::SyncState;

/// What a member that takes over writes before it promotes: the voters of before and the leader of before, itself excepted, and everybody
/// else who may come (`others`), of whom `count` at most have to confirm a commit from now on.
///
/// Should it die at any point from here on, somebody can be elected without it, and has everything that was ever acknowledged:
/// * each commit of the last leader is held by that leader and by enough of its voters to meet every set that could have elected. Of these
///   holders at least `voters - quorum` are among the new voters, even without the one that takes over. As many, or fewer, have to confirm
///   from now on, so a successor's electors meet the holders of every old commit as well as those of every new one;
/// * of the electors the one that is furthest by timeline and position leads. If it is on the new timeline it has received all that the new
///   leader had at its election, and every commit that was acknowledged since and that an elector has.
///
/// A config that admits only the new leader would be as safe, and nobody could lead if it died with its first commits.
pub fn succession(last: &SyncState, me: &str, others: impl IntoIterator<Item = String>, count: u32) -> SyncState {
    if last.leader.as_deref().is_some_and(|leader| leader.eq_ignore_ascii_case(me)) {
        // Nobody else has led since: what was written then still holds.
        return last.clone();
    }
    let not_me = |name: &String| !name.eq_ignore_ascii_case(me);
    let voters: BTreeSet<String> = last.voters.iter().chain(&last.leader).cloned().chain(others).filter(not_me).collect();
    let holders = size(&last.voters).saturating_sub(last.quorum);
    let count = holders.min(count).max(1);
    SyncState { leader: Some(me.to_owned()), quorum: size(&voters).saturating_sub(count), voters }
}

fn size(names: &BTreeSet<String>) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    fn subsets(names: &BTreeSet<String>, size: usize) -> Vec<BTreeSet<String>> {
        let all: Vec<&String> = names.iter().collect();
        let chosen = |bits: usize| all.iter().enumerate().filter(move |(i, _)| bits >> i & 1 == 1).map(|(_, n)| (*n).clone()).collect();
        (0..1_usize << all.len()).map(chosen).filter(|set: &BTreeSet<String>| set.len() == size).collect()
    }

    #[test]
    fn whoever_succeeds_the_successor_has_what_both_leaders_acknowledged() {
        let mut tried = 0;
        for voters in [&["a"][..], &["a", "b"], &["a", "b", "c"], &["a", "b", "c", "d"]] {
            for quorum in 0..voters.len() {
                let last = SyncState { leader: Some("p".into()), quorum: u32::try_from(quorum).unwrap(), voters: names(voters) };
                for (others, count) in [(&[][..], 1), (&["x"], 1), (&["x", "y"], 2), (&["x"], 3)] {
                    tried += check(&last, &names(others), count);
                }
            }
        }
        assert!(tried > 1000, "{tried}");
    }

    /// `a` takes over. Fewest holders of an old commit: enough voters to meet every set that could elect, and the leader.
    fn check(last: &SyncState, others: &BTreeSet<String>, count: u32) -> usize {
        let next = succession(last, "a", others.clone(), count);
        assert!(next.voters.is_superset(others) && !next.voters.contains("a") && next.voters.contains("p"));
        let confirming = size(&next.voters) - next.quorum;
        assert!(confirming >= 1 && confirming <= count.max(1));
        let electors = subsets(&next.voters, next.quorum as usize + 1);
        let held = subsets(&last.voters, last.voters.len() - last.quorum as usize);
        let old = held.iter().map(|holders| holders.iter().cloned().chain(["p".to_owned()]).collect::<BTreeSet<String>>());
        let acknowledged: Vec<BTreeSet<String>> = old.chain(subsets(&next.voters, confirming as usize)).collect();
        for elected in &electors {
            for holders in &acknowledged {
                assert!(!elected.is_disjoint(holders), "{elected:?} lacks what {holders:?} have: {last:?} {next:?}");
            }
        }
        electors.len() * acknowledged.len()
    }

    #[test]
    fn a_leader_that_comes_back_leaves_its_voters_as_they_are() {
        let last = SyncState { leader: Some("a".into()), quorum: 1, voters: names(&["b", "c"]) };
        assert_eq!(succession(&last, "a", ["d".to_owned()], 1), last);
    }

    #[test]
    fn of_three_members_the_former_leader_takes_the_place_of_the_next() {
        let last = SyncState { leader: Some("p".into()), quorum: 1, voters: names(&["a", "b"]) };
        let next = succession(&last, "a", ["b".to_owned(), "p".to_owned()], 1);
        assert_eq!(next, SyncState { leader: Some("a".into()), quorum: 1, voters: names(&["b", "p"]) });
    }
}
