//! What clusters need of the machine.

use std::path::Path;

use bollard::{Docker, models::SystemInfo};

use super::{engine, engine::failed, images};
use crate::provisioner::{
    error::ProvisionError,
    image::BASE_IMAGE,
    platform::{Check, Verdict},
};

/// Below this nothing is begun.
const LEAST_FREE_MIB: u64 = 1024;

/// Below this somebody should know.
const LITTLE_FREE_MIB: u64 = 5 * 1024;

/// The oldest engine that clusters are tested with, by its API.
const OLDEST_API: (usize, usize) = (1, 41);

/// Everything about the machine that clusters depend on.
pub(super) async fn check(docker: &Docker) -> Vec<Check> {
    let info = match docker.info().await.map_err(failed("describe itself")) {
        Ok(info) => info,
        Err(error) => return vec![unreachable(&error)],
    };
    let mut checks = vec![engine_check(docker, &info), kind_check(&info)];
    checks.extend(free_space(&info).map(|(path, free_mib)| disk_check(&path, free_mib)));
    let present = images::is_present(docker, BASE_IMAGE).await.unwrap_or(false);
    checks.push(base_check(present, is_installed("mmdebstrap")));
    checks
}

/// Where the base image will come from.
fn base_check(present: bool, can_be_made: bool) -> Check {
    let finding = match (present, can_be_made) {
        (true, _) => format!("'{BASE_IMAGE}' is here"),
        (false, true) => format!("'{BASE_IMAGE}' will be pulled, or made by mmdebstrap where no registry answers"),
        (false, false) => format!("'{BASE_IMAGE}' has to be pulled: mmdebstrap, which could make it, is not installed"),
    };
    let good = present || can_be_made;
    Check {
        subject: "base image".to_owned(),
        verdict: if good { Verdict::Good } else { Verdict::Warning },
        finding,
        hint: (!good).then(|| "where no registry can be reached: apt-get install mmdebstrap".to_owned()),
    }
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Refuses to begin when the disk is nearly full.
pub(super) async fn refuse_full_disk(docker: &Docker) -> Result<(), ProvisionError> {
    let info = docker.info().await.map_err(failed("describe itself"))?;
    match free_space(&info) {
        Some((path, free_mib)) if free_mib < LEAST_FREE_MIB => Err(ProvisionError::DiskFull { path, free_mib, needed_mib: LEAST_FREE_MIB }),
        _ => Ok(()),
    }
}

/// The check that stands for an engine that cannot be used at all.
pub(super) fn unreachable(error: &ProvisionError) -> Check {
    Check { subject: "docker engine".to_owned(), verdict: Verdict::Bad, finding: error.to_string(), hint: error.hint() }
}

fn engine_check(docker: &Docker, info: &SystemInfo) -> Check {
    let version = docker.client_version();
    let api = (version.major_version, version.minor_version);
    let server = info.server_version.as_deref().unwrap_or("of unknown version");
    let old = api < OLDEST_API;
    Check {
        subject: "docker engine".to_owned(),
        verdict: if old { Verdict::Warning } else { Verdict::Good },
        finding: format!("{server} at '{}', API {}.{}", engine::address(), api.0, api.1),
        hint: old.then(|| "engines from 20.10 on are tested".to_owned()),
    }
}

/// The images are Linux ones.
fn kind_check(info: &SystemInfo) -> Check {
    let kind = info.os_type.as_deref().unwrap_or("unknown");
    let good = kind == "linux";
    Check {
        subject: "containers".to_owned(),
        verdict: if good { Verdict::Good } else { Verdict::Bad },
        finding: format!("{kind} containers on {} processors", info.ncpu.unwrap_or_default()),
        hint: (!good).then(|| "switch the engine to Linux containers".to_owned()),
    }
}

fn disk_check(path: &str, free_mib: u64) -> Check {
    let verdict = match free_mib {
        0..LEAST_FREE_MIB => Verdict::Bad,
        LEAST_FREE_MIB..LITTLE_FREE_MIB => Verdict::Warning,
        _ => Verdict::Good,
    };
    Check {
        subject: "disk".to_owned(),
        verdict,
        finding: format!("{:.1} GiB free in '{path}'", free_mib as f64 / 1024.0),
        hint: (verdict != Verdict::Good).then(|| "make room, for example: docker image prune".to_owned()),
    }
}

/// What is free where the engine keeps its data; `None` when that cannot be seen from here, as with an engine in a virtual machine.
fn free_space(info: &SystemInfo) -> Option<(String, u64)> {
    let path = info.docker_root_dir.clone()?;
    let state = rustix::fs::statvfs(Path::new(&path)).ok()?;
    Some((path, state.f_bavail.saturating_mul(state.f_frsize) / (1024 * 1024)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fills_up_is_warned_of_before_it_is_refused() {
        assert_eq!(disk_check("/d", 1023).verdict, Verdict::Bad);
        assert_eq!(disk_check("/d", 1024).verdict, Verdict::Warning);
        assert_eq!(disk_check("/d", 5 * 1024).verdict, Verdict::Good);
        assert!(disk_check("/d", 100).hint.unwrap().contains("make room"));
    }

    #[test]
    fn a_disk_that_cannot_be_seen_is_not_judged() {
        let far_away = SystemInfo { docker_root_dir: Some("/nowhere/docker".into()), ..Default::default() };
        assert_eq!(free_space(&far_away), None);
        let here = SystemInfo { docker_root_dir: Some("/".into()), ..Default::default() };
        assert!(free_space(&here).is_some());
    }

    #[test]
    fn a_base_that_is_not_here_can_be_made_or_has_to_be_pulled() {
        assert_eq!(base_check(true, false).verdict, Verdict::Good);
        assert_eq!(base_check(false, true).verdict, Verdict::Good);
        assert!(base_check(false, false).hint.unwrap().contains("mmdebstrap"));
    }

    #[test]
    fn windows_containers_are_refused() {
        let windows = SystemInfo { os_type: Some("windows".into()), ..Default::default() };
        assert_eq!(kind_check(&windows).verdict, Verdict::Bad);
    }
}
