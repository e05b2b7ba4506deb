//! What the machine has for these tests: PostgreSQL's programs, and the user they run as.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// The newest PostgreSQL that is installed, where Debian keeps it.
pub fn bin_dir() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten().map(|entry| entry.path().join("bin"));
    versions.filter(|bin| bin.join("initdb").is_file()).max()
}

/// PostgreSQL does not run as root: the user it runs as then.
pub fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let id = |flag: &str| {
        let output = Command::new("id").args([flag, "postgres"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().expect("there is a user 'postgres'")
    };
    Some((id("-u"), id("-g")))
}

/// Lets a program run as the user whom PostgreSQL runs as.
pub fn as_other_user(command: &mut Command) -> &mut Command {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}

pub fn own(path: &Path) {
    if let Some((user, group)) = other_user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

/// Our program in this directory: the other user may not be able to look into the build's. It is large, and nobody writes to it, so where both
/// lie in one file system it is not copied.
pub fn place_program(directory: &Path) -> PathBuf {
    let (built, program) = (env!("CARGO_BIN_EXE_spilo"), directory.join("spilo"));
    if fs::hard_link(built, &program).is_err() {
        fs::copy(built, &program).unwrap();
    }
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}
