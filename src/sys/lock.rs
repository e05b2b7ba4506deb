//! Locks that end with the process that holds them, however it ends, and that tell who holds them.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
};

/// A file whose bytes can be locked, each by one process. The file itself stays, empty: it means nothing. A process must open it only
/// once, because closing any descriptor of it gives up all its locks.
pub struct LockFile(File);

impl LockFile {
    /// Opens it, or creates it for this user only.
    pub fn open(path: &Path) -> io::Result<LockFile> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map(LockFile)
    }

    /// Takes this byte for the rest of the process's life; false when another process has it. Children do not inherit it.
    pub fn take(&self, byte: i64) -> io::Result<bool> {
        match self.control(libc::F_SETLK, byte) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The other process that has this byte. Its id is 0 when it is not visible from here, as that of a process in another container.
    pub fn holder(&self, byte: i64) -> io::Result<Option<i32>> {
        let lock = self.control(libc::F_GETLK, byte)?;
        Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid.max(0)))
    }

    fn control(&self, command: i32, byte: i64) -> io::Result<libc::flock> {
        let (kind, whence) = (i16::try_from(libc::F_WRLCK).unwrap_or_default(), i16::try_from(libc::SEEK_SET).unwrap_or_default());
        let mut lock = libc::flock { l_type: kind, l_whence: whence, l_start: byte, l_len: 1, l_pid: 0 };
        // SAFETY: the descriptor is open and the structure lives through the call.
        let result = unsafe { libc::fcntl(self.0.as_raw_fd(), command, &raw mut lock) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_finds_the_byte_taken_and_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = LockFile::open(&path).unwrap();
        assert!(lock.take(0).unwrap());
        let ours = std::process::id();
        // SAFETY: the child only makes system calls and ends without unwinding or destructors.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let refused = !lock.take(0).unwrap_or(true) && lock.holder(0).is_ok_and(|pid| pid == i32::try_from(ours).ok());
            let free = lock.take(1).unwrap_or(false);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(if refused && free { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was just made.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(status, 0);
        // The child's byte went with it.
        assert_eq!(lock.holder(1).unwrap(), None);
    }
}
