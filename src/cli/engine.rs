//! The platform that commands work on.

use super::{CommandError, Context, ErrorKind};
use crate::provisioner::{Check, DockerPlatform, Platform, Verdict};

/// Connects to this machine's Docker engine.
pub async fn connect() -> Result<DockerPlatform, CommandError> {
    Ok(DockerPlatform::connect().await?)
}

/// Looks at the machine before anything is changed: warnings are said, anything bad ends the command.
pub async fn expect_fit_machine<P: Platform>(context: &Context, platform: &P) -> Result<(), CommandError> {
    let step = context.ui.step("check this machine");
    let checks = platform.check_machine().await;
    let bad: Vec<&Check> = checks.iter().filter(|check| check.verdict == Verdict::Bad).collect();
    if bad.is_empty() {
        step.done();
    } else {
        step.failed();
    }
    for warning in checks.iter().filter(|check| check.verdict == Verdict::Warning) {
        context.ui.warn(format_args!("{}: {}", warning.subject, warning.finding));
    }
    if bad.is_empty() {
        return Ok(());
    }
    let findings: Vec<String> = bad.iter().map(|check| format!("{}: {}", check.subject, check.finding)).collect();
    let mut error = CommandError::new(ErrorKind::Refused, format!("this machine cannot hold a cluster: {}", findings.join("; ")));
    error.hints = bad.into_iter().filter_map(|check| check.hint.clone()).collect();
    Err(error.hint("everything that was looked at: spilo doctor"))
}
