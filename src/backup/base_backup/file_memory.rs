//! What a backup remembers of the files that it has read, so that the next one need not read again what nobody has written to since.
//!
//! It is a file beside the data directory and is believed only where nothing else can have happened to a file than what the kernel tells:
//!
//! - The next backup is compared with the very backup that has written it, and reads the same server: no restart of the machine or of
//!   PostgreSQL lies in between. What a crash may take back of a file and leave of its times is so never looked at.
//! - A file is still the same one, with the same length and both times the same to the nanosecond. The kernel sets the time of the last change
//!   (`ctime`) with each write, and nobody can set it back.
//! - That time was a minute old when the backup began which has read the file, and whoever was in the middle of a write was waited for:
//!   a write sets the time first and brings its bytes afterwards, so a file may look as it will look and not be it yet.
//! - It is a file of a relation, all of its pages were right, and its file system is one whose times are known to behave so.
//!
//! What is remembered wrongly would be handed on from backup to backup: after a week everything is read again.

use std::{
    fs::{self, File, Metadata},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    backup::{BackupId, manifest_file::place},
    model::SystemId,
    postgres::backup_mode::CopiedServer,
    sys::{files, machine},
};

/// What every such file begins with; the digit is the format's version.
const MAGIC: &[u8; 8] = b"spiloF1\n";

/// Bytes of the digest at its end.
const DIGEST: u64 = 32;

/// What is longer is no entry of ours.
const LONGEST: u32 = 64 << 10;

/// A file that was written to later than this before a backup began is read again by the next one.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);

/// Everything is read at least so often.
const ALL_READ_EVERY: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What the kernel tells of a file. If it tells the same again, nobody has written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    /// Of an open file.
    pub fn of(found: &Metadata) -> FileState {
        FileState {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether a reader that begins now sees all that was ever written to the file, for a backup that began then.
    pub fn is_settled(&self, file: &File, begun: Timestamp) -> bool {
        let old = begun.as_second().saturating_sub(self.changed.0) > SETTLED.as_secs();
        let settled = old && files::keeps_change_time(file);
        if settled {
            files::await_writers(file);
        }
        settled
    }
}

/// What a memory is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The backup that has written it.
    pub backup: BackupId,
    /// Whose data.
    pub system: SystemId,
    /// The run of the server, on this boot of the machine.
    pub run: String,
    /// When the last backup began that has read everything.
    pub all_read: Timestamp,
}

/// Names the run of a server on this boot of the machine; `None`: the machine does not tell.
pub fn run_of(server: &CopiedServer) -> Option<String> {
    let space = machine::process_space();
    (!space.is_empty()).then(|| format!("{space} {}", server.running_since))
}

/// Where it is.
fn path_of(data_dir: &Path) -> io::Result<PathBuf> {
    Ok(files::beside(&data_dir.canonicalize()?, ".backup-files"))
}

/// What the backup before has remembered.
pub struct FileMemory {
    /// What it is of.
    pub about: About,
    entries: io::Take<BufReader<File>>,
    ahead: Option<(Vec<u8>, FileState)>,
}

impl FileMemory {
    /// The memory of this backup of this run of the server; `None`: there is none, or it is time to read everything.
    pub fn open(data_dir: &Path, backup: &BackupId, system: SystemId, run: &str, now: Timestamp) -> Option<FileMemory> {
        let memory = FileMemory::read(&path_of(data_dir).ok()?).ok()?;
        let about = &memory.about;
        let age = now.duration_since(about.all_read);
        let fits = about.backup == *backup && about.system == system && about.run == run;
        (fits && age >= SignedDuration::ZERO && age < ALL_READ_EVERY).then_some(memory)
    }

    fn read(path: &Path) -> io::Result<FileMemory> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len().checked_sub(DIGEST).ok_or_else(damaged)?;
        let (mut hasher, mut digest) = (blake3::Hasher::new(), [0; DIGEST as usize]);
        io::copy(&mut (&mut file).take(end), &mut hasher)?;
        file.read_exact(&mut digest)?;
        if hasher.finalize() != digest {
            return Err(damaged());
        }
        file.seek(SeekFrom::Start(0))?;
        let mut entries = BufReader::with_capacity(1 << 18, file).take(end);
        let mut magic = [0; MAGIC.len()];
        entries.read_exact(&mut magic)?;
        let about = (magic == *MAGIC).then(|| read_part(&mut entries)).ok_or_else(damaged)??.ok_or_else(damaged)?;
        Ok(FileMemory { about: serde_json::from_slice(&about)?, entries, ahead: None })
    }

    /// How the file was. Files have to be asked for in their order.
    pub fn state(&mut self, path: &[u8]) -> Option<FileState> {
        while self.ahead.as_ref().is_none_or(|(ahead, _)| place(ahead) < place(path)) {
            let part = read_part(&mut self.entries).ok()??;
            self.ahead = Some(postcard::from_bytes(&part).ok()?);
        }
        self.ahead.as_ref().filter(|(ahead, _)| ahead == path).map(|(_, state)| *state)
    }
}

/// The next part; `None` at the end.
fn read_part(entries: &mut io::Take<BufReader<File>>) -> io::Result<Option<Vec<u8>>> {
    if entries.limit() == 0 {
        return Ok(None);
    }
    let mut length = [0; 4];
    entries.read_exact(&mut length)?;
    let length = Some(u32::from_le_bytes(length)).filter(|length| *length <= LONGEST).ok_or_else(damaged)?;
    let mut part = vec![0; length as usize];
    entries.read_exact(&mut part)?;
    Ok(Some(part))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what was written")
}

/// A memory in the making.
pub struct MemoryWriter {
    path: PathBuf,
    unfinished: PathBuf,
    out: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl MemoryWriter {
    /// Begins one beside the data directory.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn begin(data_dir: &Path, about: &About) -> io::Result<MemoryWriter> {
        let path = path_of(data_dir)?;
        let unfinished = files::beside(&path, ".new");
        // Where two write at once, what comes of it has no digest that fits, or the name of one of them.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        let out = BufWriter::with_capacity(1 << 18, file);
        let mut writer = MemoryWriter { path, unfinished, out, hasher: blake3::Hasher::new() };
        writer.write(MAGIC)?;
        writer.part(&serde_json::to_vec(about)?)?;
        Ok(writer)
    }

    /// Remembers a file. They come in order.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, path: &[u8], state: &FileState) -> io::Result<()> {
        let part = postcard::to_stdvec(&(path, state)).map_err(io::Error::other)?;
        self.part(&part)
    }

    /// Puts it into its place. It need not be durable: a machine that was started again has forgotten what it is about.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(mut self) -> io::Result<()> {
        let digest = self.hasher.finalize();
        self.out.write_all(digest.as_bytes())?;
        self.out.flush()?;
        fs::rename(&self.unfinished, &self.path)
    }

    fn part(&mut self, part: &[u8]) -> io::Result<()> {
        let length = u32::try_from(part.len()).ok().filter(|length| *length <= LONGEST);
        self.write(&length.ok_or_else(|| io::Error::other("a path is too long"))?.to_le_bytes())?;
        self.write(part)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const SYSTEM: SystemId = SystemId(7_300_000_000_000_000_001);

    fn id(chance: u32) -> BackupId {
        BackupId::new(Timestamp::from_second(1_795_293_900).unwrap(), chance)
    }

    fn about(all_read: i64) -> About {
        About { backup: id(1), system: SYSTEM, run: "boot 17".to_owned(), all_read: Timestamp::from_second(all_read).unwrap() }
    }

    fn state(path: &Path) -> FileState {
        FileState::of(&fs::metadata(path).unwrap())
    }

    /// A data directory whose file `1259` is remembered.
    fn remembered(all_read: i64) -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let data = outer.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("1259"), "page").unwrap();
        let mut writer = MemoryWriter::begin(&data, &about(all_read)).unwrap();
        for path in ["base/1/112", "base/1/1259", "base/5/1259"] {
            writer.add(path.as_bytes(), &state(&data.join("1259"))).unwrap();
        }
        writer.keep().unwrap();
        (outer, data)
    }

    #[test]
    fn files_are_known_again_in_their_order() {
        let (_outer, data) = remembered(1000);
        let now = Timestamp::from_second(2000).unwrap();
        let mut memory = FileMemory::open(&data, &id(1), SYSTEM, "boot 17", now).unwrap();
        assert_eq!(memory.about, about(1000));
        let known = state(&data.join("1259"));
        assert_eq!(memory.state(b"base/1/1000"), None);
        assert_eq!(memory.state(b"base/1/1259"), Some(known));
        assert_eq!((memory.state(b"base/5/1259"), memory.state(b"base/6/1")), (Some(known), None));
    }

    #[test]
    fn another_backup_another_run_or_another_system_is_not_believed_nor_what_is_old_or_damaged() {
        let (_outer, data) = remembered(1_000_000);
        let open = |backup, system, run, now| FileMemory::open(&data, &backup, system, run, Timestamp::from_second(now).unwrap()).is_some();
        assert!(open(id(1), SYSTEM, "boot 17", 1_000_001));
        assert!(!open(id(2), SYSTEM, "boot 17", 1_000_001), "another node has backed up since");
        assert!(!open(id(1), SystemId(5), "boot 17", 1_000_001));
        assert!(!open(id(1), SYSTEM, "boot 18", 1_000_001), "the server was started again");
        assert!(open(id(1), SYSTEM, "boot 17", 1_000_000 + 7 * 86_400 - 1));
        assert!(!open(id(1), SYSTEM, "boot 17", 1_000_000 + 7 * 86_400), "everything is read once a week");
        assert!(!open(id(1), SYSTEM, "boot 17", 999_999), "a clock went back");
        let path = path_of(&data).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in [0, 20, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(!open(id(1), SYSTEM, "boot 17", 1_000_001), "byte {at}");
        }
        fs::write(&path, &whole[..10]).unwrap();
        assert!(!open(id(1), SYSTEM, "boot 17", 1_000_001));
    }

    #[test]
    fn a_write_is_seen_although_length_and_time_of_modification_are_set_back() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("1259");
        fs::write(&path, "page").unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let before = state(&path);
        // The kernel's clock for times of files goes in steps.
        std::thread::sleep(Duration::from_millis(30));
        fs::write(&path, "PAGE").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let after = state(&path);
        assert_eq!((after.inode, after.size, after.modified), (before.inode, before.size, before.modified));
        assert_ne!(after, before);
    }

    #[test]
    fn what_was_just_written_is_not_settled_also_where_its_time_says_so() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("1259");
        fs::write(&path, "page").unwrap();
        let file = File::open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
        let now = Timestamp::now();
        assert!(!state(&path).is_settled(&file, now));
        assert!(state(&path).is_settled(&file, now + SignedDuration::from_secs(63)) == files::keeps_change_time(&file));
        // Of a file system without change times that mean something nothing is settled.
        let proc = File::open("/proc/self/status").unwrap();
        assert!(!FileState::of(&proc.metadata().unwrap()).is_settled(&proc, now + SignedDuration::from_hours(1)));
    }
}
