//! haproxy's command socket: what it is told when the leader changes, and how.

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use super::{Routes, RoutingError};

/// A command and its answer; haproxy answers within a millisecond unless it is stuck.
const LIMIT: Duration = Duration::from_secs(1);
/// Commands that fit one line with room to spare.
const BATCH: usize = 100;

/// The workers of a running haproxy, by process id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workers {
    /// The one that takes new connections.
    pub current: Option<u32>,
    /// Those that only carry on with the sessions they have.
    pub old: Vec<u32>,
}

/// What the current worker is told so that `routes.writer` alone takes writes. Everybody else is cut off first, sessions included: two
/// servers must not take writes at the same time.
pub fn commands(routes: &Routes, worker: u32) -> Vec<String> {
    let mut commands = Vec::new();
    for name in routes.members.keys().filter(|name| routes.writer.as_ref() != Some(name)) {
        commands.push(format!("@!{worker} set server rw/{name} state maint"));
        commands.push(format!("@!{worker} shutdown sessions server rw/{name}"));
    }
    if let Some(writer) = &routes.writer {
        commands.push(format!("@!{worker} set server rw/{writer} state ready"));
        // It has said itself that it accepts writes: no need to wait for the next check.
        commands.push(format!("@!{worker} set server rw/{writer} health up"));
    }
    commands
}

/// What an old worker is told so that it keeps no session that writes with anybody but `routes.writer`, given its answer to `show sess`.
/// An old worker's servers are out of reach for commands, its sessions are not.
pub fn cuts(routes: &Routes, worker: u32, sessions: &str) -> Vec<String> {
    let cut = |line: &str| {
        let (id, rest) = line.split_once(':')?;
        let mut fields = rest.split_whitespace();
        let server = fields.find(|f| *f == "be=rw").and_then(|_| fields.find_map(|f| f.strip_prefix("srv=")))?;
        let stays = routes.writer.as_ref().is_some_and(|writer| writer.as_str() == server);
        (!stays).then(|| format!("@!{worker} shutdown session {id}"))
    };
    sessions.lines().filter_map(cut).collect()
}

/// Reads the answer of `show proc`.
pub fn parse_workers(text: &str) -> Workers {
    let mut workers = Workers::default();
    let mut old = false;
    for line in text.lines() {
        if line.starts_with('#') {
            old = line.contains("old");
            continue;
        }
        let mut fields = line.split_whitespace();
        let (Some(Ok(pid)), Some("worker")) = (fields.next().map(str::parse), fields.next()) else { continue };
        if old { workers.old.push(pid) } else { workers.current = Some(pid) }
    }
    workers
}

/// Sends one command to the master and returns its answer.
pub async fn ask(socket: &Path, command: &str) -> Result<String, RoutingError> {
    let failed = |fault: String| RoutingError::Command { command: command.to_owned(), fault };
    let conversation = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        // The master takes the end of input for the end of the commands.
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<String, std::io::Error>(answer)
    };
    match timeout(LIMIT, conversation).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {LIMIT:?}"))),
    }
}

/// Sends a command that is silent when it succeeds.
async fn tell(socket: &Path, command: &str) -> Result<(), RoutingError> {
    let answer = ask(socket, command).await?;
    let fault = answer.trim();
    if fault.is_empty() { Ok(()) } else { Err(RoutingError::Command { command: command.to_owned(), fault: fault.to_owned() }) }
}

/// Tells every worker who takes writes.
pub async fn tell_workers(socket: &Path, routes: &Routes) -> Result<(), RoutingError> {
    let workers = parse_workers(&ask(socket, "show proc").await?);
    let no_worker = || RoutingError::Command { command: "show proc".to_owned(), fault: "it has no worker".to_owned() };
    let mut outcome = Ok(());
    for command in commands(routes, workers.current.ok_or_else(no_worker)?) {
        // A failure must not keep the others from being told: they may be the ones that cut a former primary off.
        outcome = outcome.and(tell(socket, &command).await);
    }
    for worker in workers.old {
        let sessions = ask(socket, &format!("@!{worker} show sess")).await?;
        for some in cuts(routes, worker, &sessions).chunks(BATCH) {
            // A session that ends by itself meanwhile is none to complain about.
            ask(socket, &some.join(";")).await?;
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::Member;

    const PROCESSES: &str = "#<PID>          <type>          <reloads>       <uptime>        <version>\n\
        17          master          2 [failed: 0]   0d00h00m02s     2.6.12\n# workers\n\
        23          worker          0               0d00h00m01s     2.6.12\n# old workers\n\
        19          worker          1               0d00h00m09s     2.6.12\n\
        18          worker          2               0d00h00m19s     2.6.12\n# programs\n\n";

    fn routes(names: &[&str], writer: Option<&str>) -> Routes {
        let member = Member { host: "h".into(), port: 1, api_host: "h".into(), api_port: 2 };
        Routes { members: names.iter().map(|n| (n.parse().unwrap(), member.clone())).collect(), writer: writer.map(|w| w.parse().unwrap()) }
    }

    #[test]
    fn workers_are_told_apart_by_the_sections_they_stand_in() {
        assert_eq!(parse_workers(PROCESSES), Workers { current: Some(23), old: vec![19, 18] });
        assert_eq!(parse_workers("nonsense"), Workers::default());
    }

    #[test]
    fn a_new_leader_is_enabled_after_the_old_one_was_cut_off() {
        assert_eq!(
            commands(&routes(&["a", "b"], Some("b")), 23),
            [
                "@!23 set server rw/a state maint",
                "@!23 shutdown sessions server rw/a",
                "@!23 set server rw/b state ready",
                "@!23 set server rw/b health up",
            ]
        );
    }

    #[test]
    fn without_a_leader_everybody_is_cut_off() {
        let told = commands(&routes(&["a", "b"], None), 1);
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|command| command.ends_with("state maint") || command.contains("shutdown sessions")));
    }

    #[test]
    fn an_old_workers_sessions_with_a_former_primary_are_cut_one_by_one() {
        let sessions = "0x55: proto=tcpv4 src=127.0.0.1:57222 fe=read-write be=rw srv=a ts=00\n\
            0x56: proto=tcpv4 src=127.0.0.1:57223 fe=read-only be=ro srv=a ts=00\n\
            0x57: proto=tcpv4 src=127.0.0.1:57224 fe=read-write be=rw srv=b ts=00\n\
            0x58: proto=sockpair src=unix:1 fe=GLOBAL be=<NONE> srv=<none> ts=00\n\n";
        assert_eq!(cuts(&routes(&["a", "b"], Some("b")), 9, sessions), ["@!9 shutdown session 0x55"]);
        assert_eq!(cuts(&routes(&[], None), 9, sessions).len(), 2);
    }
}
