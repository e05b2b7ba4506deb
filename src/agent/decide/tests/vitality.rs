//! Servers and disks that hang, and data that are gone.

use super::*;

#[test]
fn a_server_that_takes_no_connections_is_killed_whoever_leads() {
    for lock in [mine(), other(), Lock::Free, Lock::Unknown { until: None }] {
        let mut view = view(Local::Silent { since: NOW }, lock);
        view.memory.trouble = Some(Trouble::PostmasterHangs);
        let decision = decide(&view);
        assert_eq!((decision.actions, decision.reason), (vec![Action::StopServer(Stop::Kill)], Reason::PostmasterHangs));
    }
}

#[test]
fn a_leader_without_a_data_directory_is_killed_and_gives_the_key_up() {
    for local in [Local::Primary(server(false)), Local::Silent { since: NOW }] {
        let mut view = view(local, mine());
        view.memory.trouble = Some(Trouble::DataGone);
        let decision = decide(&view);
        assert_eq!((decision.actions, decision.reason), (vec![Action::StopServer(Stop::Kill)], Reason::DataGone));
    }
    assert_eq!(decide(&view(Local::Empty, mine())).actions, [Action::ReleaseLeader]);
}

#[test]
fn a_leader_on_a_bad_disk_gives_the_key_up_only_when_nothing_of_it_can_run_any_more() {
    let mut view = view(Local::Silent { since: NOW }, mine());
    view.memory.trouble = Some(Trouble::DiskFails { why: "it hangs".to_owned() });
    assert_eq!(decide(&view).actions, [Action::StopServer(Stop::Kill)]);
    view.memory.killed = true;
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader]);
    view.local = stopped(ClusterState::InProduction, false);
    assert_eq!(decide(&view).actions, [Action::ReleaseLeader], "nothing is started from it either");
}
