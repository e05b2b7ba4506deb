//! The process's own memory.

use std::{fs, io};

/// Gives back the pages of the program file that are mapped but not needed any more: starting up touches the code of the whole command
/// line, a service then runs on little of it. A page that is needed again comes back from the page cache.
///
/// Only mappings of which no page differs from the file are given back. The loader writes addresses into some pages before it makes them
/// read-only: those would come back from the file without them.
pub fn give_back_code() {
    let Ok(mappings) = fs::read_to_string("/proc/self/smaps") else { return };
    for (start, length) in unchanged_files(&mappings) {
        // SAFETY: the range is a private, read-only mapping of a file with no page of its own, so what is read again is the same.
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED);
        }
    }
}

/// Keeps every page that is in memory there, now and later, so that no page has to come from a disk that hangs. Pages that were never
/// touched are not brought in. An error where that is not permitted: under a limit that is smaller than the whole address space a later
/// allocation would fail, which is worse than a page that has to be read.
pub fn lock() -> io::Result<()> {
    use rustix::{
        mm::{MlockAllFlags, mlockall},
        process::{Resource, Rlimit, getrlimit, setrlimit},
    };
    let limit = getrlimit(Resource::Memlock);
    if let Some(maximum) = limit.maximum {
        return Err(io::Error::other(format!("locked memory is limited to {maximum} bytes")));
    }
    setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?;
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

/// Keeps what is in memory out of core files and away from other processes of the same user: it holds passwords.
pub fn keep_secret() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// A file's content as memory that the kernel may take back at any time.
pub struct MappedFile {
    start: *mut std::ffi::c_void,
    length: usize,
}

// SAFETY: nobody writes to the pages, and they belong to no thread.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps a whole file that nobody changes or cuts off any more, such as one without a name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(file: &fs::File) -> io::Result<MappedFile> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if length == 0 {
            return Ok(MappedFile { start: std::ptr::null_mut(), length });
        }
        // SAFETY: a new mapping at a place of the kernel's choice takes nobody's memory.
        let start = unsafe { mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
        Ok(MappedFile { start, length })
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: the mapping has this length, lives as long as `self`, and nobody writes to the file.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: it is this value's own mapping, and nothing borrows from it any more.
            let _ = unsafe { rustix::mm::munmap(self.start, self.length) };
        }
    }
}

/// Start and length of each private read-only mapping of a file that has no page of its own.
fn unchanged_files(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if line.starts_with("Anonymous:") {
            let own_pages = line.split_whitespace().nth(1) != Some("0");
            found.extend(candidate.take().filter(|_| !own_pages));
        } else if line.split_whitespace().next().is_some_and(|first| !first.ends_with(':')) {
            candidate = read_only_file(line);
        }
    }
    found
}

/// Start and length of a mapping that is private, not writable and backed by a file.
fn read_only_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let permissions = fields.next()?;
    let path = fields.nth(3)?;
    let fits = permissions.starts_with('r') && !permissions.contains('w') && permissions.ends_with('p') && path.starts_with('/');
    fits.then_some((start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_equals_the_file_is_given_back() {
        let smaps = "\
1000-3000 r-xp 00001000 fe:00 123 /usr/bin/spilo
Rss:                   8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
3000-4000 r--p 00003000 fe:00 123 /usr/bin/spilo
Rss:                   4 kB
Anonymous:             4 kB
VmFlags: rd mr mw me ac
4000-5000 rw-p 00004000 fe:00 123 /usr/bin/spilo
Anonymous:             0 kB
5000-6000 r--s 00000000 00:01 9 /dev/shm/x
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
";
        assert_eq!(unchanged_files(smaps), [(0x1000, 0x2000)]);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        give_back_code();
        assert_eq!(format!("{:?}", vec![1, 2, 3]), "[1, 2, 3]");
    }
}
