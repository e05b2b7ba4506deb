//! `spilo doctor`

use serde::Serialize;

use crate::{
    cli::{
        CommandError, Context, Exit,
        interrupt::run_async,
        output::{Shown, table},
        spec_arguments::ImageArgs,
    },
    provisioner::{Check, ClusterSummary, DockerPlatform, Inventory, Platform, Surroundings, Verdict, Wish},
    spec::ClusterSpec,
};

/// Check whether this machine can hold clusters, and whether something was left behind
#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Checks(Vec<Check>);

impl Shown for Checks {
    const KIND: &'static str = "CheckList";

    fn text(&self, _wide: bool) -> String {
        let rows = self.0.iter().map(|check| [word(check.verdict).to_owned(), check.subject.clone(), check.finding.clone()]);
        let mut text = table(["RESULT", "CHECK", "FINDING"], rows);
        for check in self.0.iter().filter(|check| check.verdict != Verdict::Good) {
            if let Some(hint) = &check.hint {
                text += &format!("\n{}: {hint}", check.subject);
            }
        }
        text
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Warning => "warn",
        Verdict::Bad => "fail",
    }
}

/// Checks; 1 when something is bad.
pub fn run(context: &Context, _args: &Args) -> Result<Exit, CommandError> {
    let checks = run_async(|_| async { Ok(Checks(examine().await)) })?;
    context.show(&checks)?;
    let bad = checks.0.iter().any(|check| check.verdict == Verdict::Bad);
    Ok(if bad { Exit(1) } else { Exit::OK })
}

async fn examine() -> Vec<Check> {
    let platform = match DockerPlatform::connect().await {
        Ok(platform) => platform,
        Err(error) => return vec![DockerPlatform::check_of_failure(&error)],
    };
    let mut checks = platform.check_machine().await;
    checks.extend(surroundings(&platform).await);
    checks.push(leftovers(&platform).await);
    checks
}

/// What a new cluster with every default would find: its image, and free ports.
async fn surroundings<P: Platform>(platform: &P) -> Vec<Check> {
    let spec = ClusterSpec::named("doctor".parse().expect("a valid name"));
    let source = match ImageArgs::default().source(&spec) {
        Ok(source) => source,
        Err(error) => return vec![bad("image", &error, error.hints.first().cloned())],
    };
    let nothing = Inventory { cluster: spec.name.clone(), stored: None, objects: Vec::new(), foreign: Vec::new() };
    let wish = Wish::Create { spec, image: source.clone() };
    match platform.survey(&wish, &nothing).await {
        Ok(surroundings) => vec![image_check(&source.reference(), &surroundings), ports_check(&surroundings)],
        Err(error) => vec![bad("surroundings", &error, error.hint())],
    }
}

/// A missing image is no fault: it is built when it is first needed, and its base is made or pulled then.
fn image_check(reference: &str, surroundings: &Surroundings) -> Check {
    let there = surroundings.images.contains(reference);
    let finding = if there { "is here" } else { "will be built by the first command that needs it" };
    Check { subject: "image".to_owned(), verdict: Verdict::Good, finding: format!("'{reference}' {finding}"), hint: None }
}

fn ports_check(surroundings: &Surroundings) -> Check {
    let subject = "ports".to_owned();
    match surroundings.free_port {
        Some(port) => {
            let finding = format!("{port}, {} and {} are free on 127.0.0.1 for the next cluster", port + 1, port + 2);
            Check { subject, verdict: Verdict::Good, finding, hint: None }
        }
        None => {
            let hint = Some("stop what listens there, or name a port: spilo create cluster NAME --port PORT".to_owned());
            Check { subject, verdict: Verdict::Bad, finding: "no three free ports in a row on 127.0.0.1".to_owned(), hint }
        }
    }
}

/// Objects with our label whose cluster has no spec, or one that says it is being deleted: an interrupted command left them.
async fn leftovers<P: Platform>(platform: &P) -> Check {
    match platform.clusters().await {
        Ok(clusters) => leftovers_check(&clusters),
        Err(error) => bad("leftovers", &error, error.hint()),
    }
}

fn leftovers_check(clusters: &[ClusterSummary]) -> Check {
    // One that cannot be read is of another version, and nothing that is to be removed; nor are backups that a deletion has kept.
    let known = clusters.iter().filter(|cluster| cluster.unreadable.is_none() && !cluster.only_backups);
    let left = known.filter(|cluster| cluster.stored.as_ref().is_none_or(|stored| stored.deleting));
    let names: Vec<String> = left.map(|cluster| cluster.name.to_string()).collect();
    let (verdict, finding, hint) = match names.first() {
        None => (Verdict::Good, "none".to_owned(), None),
        Some(first) => (
            Verdict::Warning,
            format!("cluster {}: a creation or deletion was interrupted, or is still going on", names.join(", ")),
            Some(format!("to remove them: spilo delete cluster {first}")),
        ),
    };
    Check { subject: "leftovers".to_owned(), verdict, finding, hint }
}

fn bad(subject: &str, error: &dyn std::error::Error, hint: Option<String>) -> Check {
    Check { subject: subject.to_owned(), verdict: Verdict::Bad, finding: error.to_string(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let check = |subject: &str, verdict, hint: &str| Check {
            subject: subject.to_owned(),
            verdict,
            finding: "found".to_owned(),
            hint: Some(hint.to_owned()),
        };
        let checks = Checks(vec![check("engine", Verdict::Good, "not shown"), check("disk", Verdict::Bad, "make room")]);
        assert_eq!(checks.text(false), "RESULT  CHECK   FINDING\nok      engine  found\nfail    disk    found\n\ndisk: make room");
    }

    #[test]
    fn backups_that_a_deletion_has_kept_are_no_leftovers() {
        let summary = |name: &str, only_backups| ClusterSummary {
            name: name.parse().unwrap(),
            stored: None,
            unreadable: None,
            running: 0,
            containers: 0,
            created: None,
            only_backups,
        };
        assert_eq!(leftovers_check(&[summary("kept", true)]).verdict, Verdict::Good);
        let check = leftovers_check(&[summary("kept", true), summary("half", false)]);
        assert!(check.verdict == Verdict::Warning && check.finding.starts_with("cluster half:"), "{}", check.finding);
    }

    #[test]
    fn an_image_that_is_not_built_yet_is_no_fault() {
        let mut surroundings = Surroundings::default();
        let missing = image_check("spilo:x", &surroundings);
        assert_eq!(
            (missing.verdict, missing.finding.as_str()),
            (Verdict::Good, "'spilo:x' will be built by the first command that needs it")
        );
        surroundings.images.insert("spilo:x".to_owned());
        assert_eq!(image_check("spilo:x", &surroundings).finding, "'spilo:x' is here");
    }

    #[test]
    fn without_free_ports_no_cluster_can_be_made() {
        assert_eq!(ports_check(&Surroundings::default()).verdict, Verdict::Bad);
        let free = ports_check(&Surroundings { free_port: Some(5432), ..Surroundings::default() });
        assert_eq!(free.finding, "5432, 5433 and 5434 are free on 127.0.0.1 for the next cluster");
    }
}
