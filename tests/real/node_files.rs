//! A member's files: its configuration, its data, and the disk they are on.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    cluster::LIMIT,
    machine::{bin_dir, own},
    node::Node,
    processes::send,
};
use crate::support::wait_until;

impl Node {
    /// Another configuration file for this member's machine, owned by whom the agents run as.
    pub fn write_config(&self, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
        let mut config = serde_json::from_str(&fs::read_to_string(self.path("agent.yml")).unwrap()).unwrap();
        change(&mut config);
        let path = self.path(name);
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Changes the configuration file, mapping by mapping, and lets a running agent read it again.
    pub fn reconfigure(&self, patch: &Value) {
        fn merge(into: &mut Value, patch: &Value) {
            let Value::Object(changes) = patch else {
                *into = patch.clone();
                return;
            };
            if !into.is_object() {
                *into = json!({});
            }
            for (key, change) in changes {
                merge(&mut into[key], change);
            }
        }
        let path = self.dir.join("agent.yml");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        merge(&mut config, patch);
        fs::write(path, config.to_string()).unwrap();
        if self.guard.is_some() {
            send(self.agent_pid(), Signal::HUP);
        }
    }

    /// Changes its configuration file.
    pub fn edit_config(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("agent.yml");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
    }

    /// From its next start on, its agent finds `script` in place of one of PostgreSQL's programs. `$REAL` in it is the program itself.
    pub fn replace_program(&self, program: &str, script: &str) {
        let (real, own_bin) = (bin_dir().expect("the cluster uses it"), self.dir.join("bin"));
        fs::create_dir(&own_bin).unwrap();
        for entry in fs::read_dir(&real).unwrap().flatten().filter(|e| e.file_name() != program) {
            std::os::unix::fs::symlink(entry.path(), own_bin.join(entry.file_name())).unwrap();
        }
        let text = format!("#!/bin/sh\nREAL='{}'\nDIR='{}'\n{script}\n", real.join(program).display(), self.dir.display());
        fs::write(own_bin.join(program), text).unwrap();
        fs::set_permissions(own_bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
        self.edit_config(|config| config["postgresql"]["bin_dir"] = json!(own_bin));
    }

    /// A file or directory of the member.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Remembers which directory the data are in.
    pub fn mark_data(&self) {
        fs::create_dir(self.dir.join("marked")).unwrap();
        fs::hard_link(self.dir.join("data/PG_VERSION"), self.dir.join("marked/PG_VERSION")).unwrap();
    }

    /// True while the data directory is the one that was marked.
    pub fn has_marked_data(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &str| fs::metadata(self.dir.join(path)).map(|m| m.ino()).ok();
        inode("data/PG_VERSION") == inode("marked/PG_VERSION")
    }

    /// Its disk is gone; nothing of it may run.
    pub fn lose_data(&self) {
        assert!(self.guard.is_none(), "{} runs", self.name);
        fs::remove_dir_all(self.dir.join("data")).unwrap();
    }

    /// Its disk is gone while it runs.
    pub fn delete_data(&self) {
        let deleted = self.dir.join("deleted");
        fs::rename(self.dir.join("data"), &deleted).unwrap();
        // The server may be writing new files into it meanwhile.
        wait_until("all of it is deleted", LIMIT, || fs::remove_dir_all(&deleted).is_ok());
    }

    /// Its disk returns a directory from which nothing can be started; nothing of it may run.
    pub fn break_data(&self) {
        assert!(self.guard.is_none(), "{} runs", self.name);
        for entry in fs::read_dir(self.dir.join("data/pg_wal")).unwrap().flatten().filter(|e| e.path().is_file()) {
            fs::remove_file(entry.path()).unwrap();
        }
    }

    /// Puts its data on a disk of `megabytes`, which ends with what is returned; the agent must not run. `None`, with a visible line, where
    /// nothing can be mounted.
    pub fn move_to_small_disk(&self, megabytes: u32) -> Option<SmallDisk> {
        assert!(self.guard.is_none(), "{} runs", self.name);
        let mount = self.dir.join("disk");
        fs::create_dir(&mount).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount).status();
        if !mounted.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("CI").is_none(), "nothing can be mounted, and in CI no test may be skipped");
            eprintln!("SKIPPED: nothing can be mounted");
            return None;
        }
        let disk = SmallDisk(mount.clone());
        own(&mount);
        let moved = Command::new("cp").arg("-a").arg(self.dir.join("data")).arg(&mount).status();
        assert!(moved.is_ok_and(|status| status.success()));
        fs::remove_dir_all(self.dir.join("data")).unwrap();
        std::os::unix::fs::symlink(mount.join("data"), self.dir.join("data")).unwrap();
        Some(disk)
    }
}

/// A file system of its own.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Takes all of its room.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![0_u8; 1 << 16];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    /// Takes all but so much of it.
    pub fn fill_but(&self, megabytes: u64) {
        let free = rustix::fs::statvfs(&self.0).map(|found| found.f_bavail * found.f_frsize).unwrap();
        let filler = fs::File::create(self.0.join("filler")).unwrap();
        rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), 0, free - (megabytes << 20)).unwrap();
    }

    /// Gives it back.
    pub fn clear(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
