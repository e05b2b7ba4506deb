//! A watchdog device that is required and that does not work.

use super::*;

fn without(mut view: View) -> View {
    view.memory.no_watchdog = Some("'/dev/watchdog' cannot be opened".to_owned());
    view
}

#[test]
fn a_leader_without_the_watchdog_it_requires_hands_over() {
    let leader = without(leading(&["b", "c"], 1000));
    assert_eq!(decide(&leader).actions, [Action::HandOver]);
    assert!(decide(&leader).reason.to_string().contains("a watchdog is required, and '/dev/watchdog' cannot be opened"));
    let mut paused = leader;
    paused.settings.pause = true;
    assert!(!decide(&paused).actions.contains(&Action::HandOver), "in a pause nobody hands over by itself");
}

#[test]
fn who_holds_the_key_without_the_watchdog_it_requires_gives_it_up_before_it_promotes() {
    let standby = without(view(Local::Standby(server(true)), mine()));
    assert_eq!(decide(&standby).actions, [Action::ReleaseLeader]);
    let silent = without(view(Local::Silent { since: NOW }, mine()));
    assert_eq!(decide(&silent).actions, [Action::StopServer(Stop::Immediate)]);
    let empty = without(view(Local::Empty, Lock::Free));
    assert_eq!(decide(&empty).actions, []);
}

#[test]
fn a_standby_without_the_watchdog_it_requires_does_not_race() {
    let racer = racing(&[("b", Peer::Silent), ("c", Peer::Silent)]);
    assert_eq!(decide(&racer).actions, [Action::ClaimLeader]);
    assert!(!decide(&without(racer)).actions.contains(&Action::ClaimLeader));
}
