//! `spilo switchover NAME`

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::{
    api::report::RequestAnswer,
    cli::{
        CommandError, Context, ErrorKind, Exit,
        engine::connect,
        interrupt::run_async,
        look::{Look, last_line, look},
        output::Shown,
    },
    model::{ClusterName, MemberName},
    provisioner::{ExecOutput, Platform},
};

const EXAMPLES: &str = "\
Examples:
  spilo switchover orders                  to the best synchronous replica
  spilo switchover orders --to orders-3";

/// How long to wait when the user does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Hand the leadership of a cluster to another node, without losing a commit
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The cluster
    name: ClusterName,

    /// The member that shall lead: orders-3, or its number
    #[arg(long, value_name = "MEMBER")]
    to: Option<MemberName>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Switchover {
    from: MemberName,
    to: MemberName,
    elapsed_ms: u64,
}

impl Shown for Switchover {
    const KIND: &'static str = "Switchover";

    fn text(&self, _wide: bool) -> String {
        format!("switched over from {} to {} in {:.1} s", self.from, self.to, self.elapsed_ms as f64 / 1000.0)
    }
}

/// Switches over.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let done = run_async(|_| switch_over(context, args))?;
    context.show(&done)?;
    Ok(Exit::OK)
}

async fn switch_over(context: &Context, args: &Args) -> Result<Switchover, CommandError> {
    let platform = connect().await?;
    let seen = look(&platform, &args.name).await?;
    let leader = seen.status.leader.clone().ok_or_else(|| {
        CommandError::new(ErrorKind::Refused, format!("cluster '{}' has no leader that could hand over: {}", args.name, seen.status.reason))
            .hint(format!("spilo status {}", args.name))
    })?;
    let candidate = args.to.as_ref().map(|to| candidate(&seen, &leader, to)).transpose()?;
    let container = seen.places_to_ask().next().map(|object| object.name.clone()).ok_or_else(|| {
        CommandError::new(ErrorKind::Failed, format!("no container of cluster '{}' runs", args.name))
            .hint(format!("spilo apply {}", args.name))
    })?;
    let command = request(&leader, candidate.as_ref());
    let limit = context.timeout_or(DEFAULT_TIMEOUT);
    let step = context.ui.step("switch over");
    let output = timeout(limit, platform.exec(&container, &command, None)).await.map_err(|_| timed_out(&args.name, limit))??;
    let answer = answer(&args.name, &output)?;
    step.done();
    let to = answer.leader.ok_or_else(|| CommandError::new(ErrorKind::Failed, format!("nobody leads now: {}", answer.message)))?;
    if let Some(wanted) = candidate.filter(|wanted| *wanted != to) {
        context.ui.warn(format_args!("'{to}' leads, not '{wanted}': {}", answer.message));
    }
    Ok(Switchover { from: leader, to, elapsed_ms: answer.elapsed_ms })
}

/// The member that is meant, by name or number; it has to be there and must not lead already.
fn candidate(seen: &Look, leader: &MemberName, to: &MemberName) -> Result<MemberName, CommandError> {
    let cluster = &seen.status.name;
    let numbered = format!("{cluster}-{to}");
    let meant = seen.status.nodes.iter().find(|node| node.name == *to || node.name.as_str() == numbered);
    let Some(node) = meant else {
        let names: Vec<&str> = seen.status.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(CommandError::new(ErrorKind::NotFound, format!("cluster '{cluster}' has no member '{to}'"))
            .hint(format!("its members are: {}", names.join(", "))));
    };
    if node.name == *leader {
        return Err(CommandError::new(ErrorKind::Refused, format!("'{leader}' leads cluster '{cluster}' already")));
    }
    match &node.trouble {
        Some(trouble) => Err(CommandError::new(ErrorKind::Refused, format!("'{}' cannot lead: it {trouble}", node.name))
            .hint(format!("spilo status {cluster}"))),
        None => Ok(node.name.clone()),
    }
}

fn request(leader: &MemberName, candidate: Option<&MemberName>) -> Vec<String> {
    let mut command =
        ["spilo", "request", "switchover", "--config", "/etc/spilo/router.yml", "--leader", leader.as_str()].map(str::to_owned).to_vec();
    command.extend(candidate.into_iter().flat_map(|candidate| ["--candidate".to_owned(), candidate.to_string()]));
    command
}

/// The request prints the REST API's answer, whether it was granted or not.
fn answer(cluster: &ClusterName, output: &ExecOutput) -> Result<RequestAnswer, CommandError> {
    let failed = |kind, why: &str| {
        CommandError::new(kind, format!("cluster '{cluster}' did not switch over: {why}")).hint(format!("spilo status {cluster}"))
    };
    let Ok(answer) = serde_json::from_slice::<RequestAnswer>(&output.stdout) else {
        let why = last_line(&output.stderr).unwrap_or_else(|| format!("the request ended with {}", output.exit_code));
        return Err(failed(ErrorKind::Failed, &why));
    };
    match answer.code {
        200..300 => Ok(answer),
        // 412: Patroni's word for a switchover that cannot be, such as without a good candidate.
        400..500 => Err(failed(ErrorKind::Refused, &answer.message)),
        _ => Err(failed(ErrorKind::Failed, &answer.message)),
    }
}

fn timed_out(cluster: &ClusterName, limit: Duration) -> CommandError {
    CommandError::new(ErrorKind::TimedOut, format!("the switchover of cluster '{cluster}' took longer than {} s", limit.as_secs()))
        .hint(format!("who leads now? spilo status {cluster}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stdout: &str, stderr: &str) -> ExecOutput {
        ExecOutput { exit_code: 1, stdout: stdout.into(), stderr: stderr.into() }
    }

    fn orders() -> ClusterName {
        "orders".parse().unwrap()
    }

    #[test]
    fn a_granted_request_says_who_leads_and_how_long_it_took() {
        let granted = r#"{"code":200,"message":"Successfully switched over to \"orders-2\"","leader":"orders-2","elapsed_ms":812}"#;
        let answer = answer(&orders(), &output(granted, "")).unwrap();
        let done = Switchover { from: "orders-1".parse().unwrap(), to: answer.leader.unwrap(), elapsed_ms: answer.elapsed_ms };
        assert_eq!(done.text(false), "switched over from orders-1 to orders-2 in 0.8 s");
    }

    #[test]
    fn a_refused_request_tells_the_leaders_reason() {
        let refused =
            r#"{"code":412,"message":"switchover is not possible: no good candidates have been found","leader":null,"elapsed_ms":3}"#;
        let error = answer(&orders(), &output(refused, "")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.to_string().contains("no good candidates"), "{error}");
    }

    #[test]
    fn a_request_that_broke_tells_its_last_line() {
        let error = answer(&orders(), &output("", "error: the DCS does not answer\n\n")).unwrap_err();
        assert_eq!(error.to_string(), "cluster 'orders' did not switch over: error: the DCS does not answer");
    }

    #[test]
    fn the_request_names_leader_and_candidate() {
        let (one, two) = ("orders-1".parse().unwrap(), "orders-2".parse().unwrap());
        assert_eq!(request(&one, Some(&two))[5..], ["--leader", "orders-1", "--candidate", "orders-2"]);
        assert_eq!(request(&one, None).len(), 7);
    }
}
