//! Jobs as commands of our own program: a process each, with the keeper's low priority, that ends with the keeper.

use std::{path::PathBuf, time::Duration};

use super::{KeeperConfig, cluster::Cluster};
use crate::{
    backup::schedule::Job,
    model::{Secret, SystemId},
    sys::process::{ProcessError, Run},
};

/// No job takes longer: what has not ended by then never will.
const LIMIT: Duration = Duration::from_secs(3 * 24 * 3600);

/// How jobs are run on this node.
#[derive(Debug, Clone)]
pub struct Commands {
    /// The options that say where the archive is.
    pub archive: Vec<String>,
    /// Directory of the server's socket, or its host.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// A role that may back up.
    pub user: String,
    /// Its password, if it has one.
    pub password: Option<Secret>,
    /// Directory of PostgreSQL's programs.
    pub bin_dir: Option<PathBuf>,
}

impl Commands {
    /// Does the job. What it finds wrong with a backup is no failure: that is in the store by then.
    ///
    /// # Errors
    /// When it could not be done.
    pub async fn run(&self, job: &Job, config: &KeeperConfig, system: SystemId, cluster: &Cluster) -> Result<(), ProcessError> {
        let mut run = Run::new("/proc/self/exe").args(self.words(job, config, system, cluster)).limit(LIMIT);
        if let (Job::Backup { .. }, Some(password)) = (job, &self.password) {
            // By a pipe: arguments and environment can be read by others.
            run = run.input(format!("{}\n", password.expose()));
        }
        match run.output().await {
            Err(ProcessError::Failed { status, output, .. }) if found_something(job, &status) => {
                tracing::warn!("{job}: {output}");
                Ok(())
            }
            ended => ended.map(|_| ()),
        }
    }

    fn words(&self, job: &Job, config: &KeeperConfig, system: SystemId, cluster: &Cluster) -> Vec<String> {
        let text = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut words: Vec<String> = Vec::new();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        let (system, port) = (system.to_string(), self.port.to_string());
        match job {
            Job::Backup { full } => {
                add(&["backup", "take", "--member", &config.member, "--data-dir", &text(&config.data_dir), "--label", "scheduled"]);
                add(&["--host", &self.host, "--port", &port, "--user", &self.user]);
                if self.password.is_some() {
                    add(&["--password-file", "/dev/stdin"]);
                }
                // The primary is asked to archive the last WAL; an idle one would keep it.
                if let Some((host, port)) = cluster.leader.as_ref().filter(|_| !cluster.is_led_by(&config.member)) {
                    add(&["--primary-host", host, "--primary-port", &port.to_string()]);
                }
                if *full {
                    add(&["--full"]);
                }
            }
            Job::Verify(id) => add(&["backup", "verify", "--backup", id.as_str(), "--deep", "--lanes", "1", "--system", &system]),
            Job::Drill(id) => {
                add(&["backup", "drill", "--backup", id.as_str(), "--system", &system]);
                if let Some(bin_dir) = &self.bin_dir {
                    add(&["--bin-dir", &text(bin_dir)]);
                }
                add(&["--user", &self.user]);
                if let Some(scratch) = &config.scratch {
                    add(&["--scratch", &text(scratch)]);
                }
            }
            Job::Expire => {
                let policy = &cluster.policy;
                let window = policy.window.map_or(0, |window| window.as_secs());
                add(&[
                    "backup",
                    "expire",
                    "--apply",
                    "--system",
                    &system,
                    "--keep",
                    &policy.keep.to_string(),
                    "--window",
                    &format!("{window}s"),
                ]);
            }
        }
        words.extend(self.archive.iter().cloned());
        words.push("--quiet".to_owned());
        words
    }
}

/// The codes of a backup with damaged pages, of a look that has found damage, and of one at a backup that was removed meanwhile: there is nothing
/// to try again.
fn found_something(job: &Job, status: &str) -> bool {
    match job {
        Job::Backup { .. } => status == "exit status: 20",
        Job::Verify(_) | Job::Drill(_) => ["exit status: 21", "exit status: 4"].contains(&status),
        Job::Expire => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        backup::{BackupId, schedule::Node},
        cli::Cli,
        spec::backup_policy::BackupPolicy,
        storage::StoreConfig,
    };

    const SYSTEM: SystemId = SystemId(7_710_753_353_203_642_389);

    fn config(password: Option<&str>) -> KeeperConfig {
        let commands = Commands {
            archive: ["--store=file:///archive", "--cluster=orders"].map(str::to_owned).to_vec(),
            host: "/run/spilo".to_owned(),
            port: 5432,
            user: "admin".to_owned(),
            password: password.map(|word| Secret::new(word.to_owned())),
            bin_dir: Some("/usr/lib/postgresql/15/bin".into()),
        };
        KeeperConfig {
            member: "orders-2".to_owned(),
            data_dir: "/data".into(),
            agent: "http://127.0.0.1:8008".to_owned(),
            store: StoreConfig::new("file:///archive".parse().unwrap()),
            root: "orders".parse().unwrap(),
            scratch: Some("/scratch".into()),
            commands,
        }
    }

    fn words(job: &Job, config: &KeeperConfig) -> String {
        let node = |name: &str, leads| Node { name: name.to_owned(), leads, streams: !leads, lag: None };
        let nodes = vec![node("orders-1", true), node("orders-2", false)];
        let cluster = Cluster { nodes, leader: Some(("10.0.0.1".to_owned(), 5433)), policy: BackupPolicy::default() };
        config.commands.words(job, config, SYSTEM, &cluster).join(" ")
    }

    #[test]
    fn a_password_is_in_no_argument() {
        let words = words(&Job::Backup { full: true }, &config(Some("geheim")));
        assert!(words.contains("--password-file /dev/stdin") && !words.contains("geheim"), "{words}");
        assert!(!format!("{:?}", config(Some("geheim"))).contains("geheim"));
    }

    #[test]
    fn each_job_is_a_command_of_ours() {
        let (config, id) = (config(None), "20261121T204500Z-1a2b3c4d");
        let end = "--store=file:///archive --cluster=orders --quiet";
        let expected = [
            (
                Job::Backup { full: false },
                "backup take --member orders-2 --data-dir /data --label scheduled --host /run/spilo --port 5432 --user admin \
                 --primary-host 10.0.0.1 --primary-port 5433"
                    .to_owned(),
            ),
            (Job::Verify(id.parse().unwrap()), format!("backup verify --backup {id} --deep --lanes 1 --system {SYSTEM}")),
            (
                Job::Drill(id.parse().unwrap()),
                format!(
                    "backup drill --backup {id} --system {SYSTEM} --bin-dir /usr/lib/postgresql/15/bin --user admin --scratch /scratch"
                ),
            ),
            (Job::Expire, format!("backup expire --apply --system {SYSTEM} --keep 2 --window 604800s")),
        ];
        for (job, begin) in expected {
            let words = words(&job, &config);
            assert_eq!(words, format!("{begin} {end}"));
            let parsed = Cli::try_parse_from(["spilo"].into_iter().chain(words.split(' ')));
            assert!(parsed.is_ok(), "{words}: {}", parsed.err().unwrap());
        }
    }

    #[test]
    fn damage_that_was_found_is_no_failure_of_the_look() {
        let id: BackupId = "20261121T204500Z-1a2b3c4d".parse().unwrap();
        assert!(["exit status: 21", "exit status: 4"].iter().all(|status| found_something(&Job::Verify(id.clone()), status)));
        assert!(found_something(&Job::Backup { full: true }, "exit status: 20"));
        assert!(!found_something(&Job::Backup { full: true }, "exit status: 1") && !found_something(&Job::Expire, "exit status: 21"));
    }
}
