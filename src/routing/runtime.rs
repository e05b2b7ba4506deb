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

/// The workers of a running haproxy, by process id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workers {
    /// The one that takes new connections.
    pub current: Option<u32>,
    /// Those that only carry on with the sessions they have.
    pub old: Vec<u32>,
}

/// What the workers are told so that `routes.writer` alone takes writes. First, in every worker, everybody else is cut off, sessions
/// included; then the current worker is told of the writer. The order keeps two servers from taking writes at the same time.
pub fn commands(routes: &Routes, workers: &Workers) -> Vec<String> {
    let mut commands = Vec::new();
    let others = || routes.members.keys().filter(|name| routes.writer.as_ref() != Some(name));
    for pid in workers.current.iter().chain(&workers.old) {
        for name in others() {
            commands.push(format!("@!{pid} set server rw/{name} state maint"));
            commands.push(format!("@!{pid} shutdown sessions server rw/{name}"));
        }
    }
    if let (Some(pid), Some(writer)) = (workers.current, &routes.writer) {
        commands.push(format!("@!{pid} set server rw/{writer} state ready"));
        // It has said itself that it accepts writes: no need to wait for the next check.
        commands.push(format!("@!{pid} set server rw/{writer} health up"));
    }
    commands
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

/// Tells every worker who takes writes. Old workers may end, or never have known a member; the current one must do as it is told.
pub async fn tell_workers(socket: &Path, routes: &Routes) -> Result<(), RoutingError> {
    let workers = parse_workers(&ask(socket, "show proc").await?);
    let mut outcome = match workers.current {
        Some(_) => Ok(()),
        None => Err(RoutingError::Command { command: "show proc".to_owned(), fault: "it has no worker".to_owned() }),
    };
    for command in commands(routes, &workers) {
        // A failure must not keep the others from being told: they may be the ones that cut a former primary off.
        if let Err(error) = tell(socket, &command).await
            && !workers.old.iter().any(|pid| command.starts_with(&format!("@!{pid} ")))
            && outcome.is_ok()
        {
            outcome = Err(error);
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
    fn a_new_leader_is_enabled_after_the_old_one_was_cut_off_everywhere() {
        let workers = Workers { current: Some(23), old: vec![19] };
        assert_eq!(
            commands(&routes(&["a", "b"], Some("b")), &workers),
            [
                "@!23 set server rw/a state maint",
                "@!23 shutdown sessions server rw/a",
                "@!19 set server rw/a state maint",
                "@!19 shutdown sessions server rw/a",
                "@!23 set server rw/b state ready",
                "@!23 set server rw/b health up",
            ]
        );
    }

    #[test]
    fn without_a_leader_everybody_is_cut_off() {
        let told = commands(&routes(&["a", "b"], None), &Workers { current: Some(1), old: vec![] });
        assert_eq!(told.len(), 4);
        assert!(told.iter().all(|command| command.ends_with("state maint") || command.contains("shutdown sessions")));
    }
}
