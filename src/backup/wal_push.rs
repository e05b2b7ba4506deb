//! Archiving one WAL file.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::{
    archive::{Archive, ArchiveError},
    encryption::{Sealed, Sealer},
    wal_object::{self, Head, LEVEL},
};
use crate::{
    model::{SystemId, WalFile},
    postgres::{wal_header::WalHeader, wal_records::end_of_records},
    storage::{Claim, ObjectName, ObjectStore, StoreError},
};

/// What came of it. The file is durable in the archive in all cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It was not there before.
    Stored,
    /// It was, with the same content: PostgreSQL asks again when it has crashed between our answer and its note of it.
    WasThere,
    /// It was, with all records of this one; what differs lies behind the last of them. Servers write that differently.
    SameRecords,
    /// A partial segment, of which there was another: it is here now. Two promotions may each leave one of the same segment, and a recovery
    /// asks for neither, so that is no reason to stop archiving.
    Aside(ObjectName),
}

/// Archives the file at `path`. PostgreSQL may remove it as soon as this has returned well.
///
/// # Errors
/// When the file cannot be read or is not what its name says, when the store does not do it, and when the archive has another content under
/// this name: then this one is kept aside, so that no byte is lost, and never takes the other's place.
pub async fn push<S: ObjectStore>(archive: &Archive<S>, path: &Path, file: WalFile) -> Result<Pushed, ArchiveError> {
    let (path, target) = (path.to_owned(), Target::of(archive, file).await?);
    let parcel = on_a_thread(move || Parcel::of(&path, target, LEVEL)).await?;
    parcel.store(archive).await
}

/// What a file is, so that another one of the same name is not taken for it: data directories are rewound and replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
}

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Identity> {
        let found = fs::metadata(path)?;
        let modified = (found.mtime(), found.mtime_nsec());
        Ok(Identity { device: found.dev(), inode: found.ino(), size: found.len(), modified })
    }
}

/// What is to be archived, and as what.
pub(super) struct Target {
    file: WalFile,
    system: SystemId,
    object: ObjectName,
    sealer: Sealer,
}

impl Target {
    /// The place of the file in the archive, and the key to it.
    ///
    /// # Errors
    /// When the store does not say which key the archive has, or it is another one.
    pub(super) async fn of<S: ObjectStore>(archive: &Archive<S>, file: WalFile) -> Result<Target, ArchiveError> {
        Ok(Target { file, system: archive.system, object: archive.object(file)?, sealer: archive.store.sealer().await? })
    }
}

/// A file that was found to be what its name says, packed and encrypted.
pub(super) struct Parcel {
    file: WalFile,
    system: SystemId,
    head: Head,
    sealer: Sealer,
    sealed: Sealed,
}

impl Parcel {
    /// Reads the file once, and checks and packs it.
    ///
    /// # Errors
    /// When it cannot be read, or is not `file` of `system`.
    pub(super) fn of(path: &Path, target: Target, level: i32) -> Result<Parcel, ArchiveError> {
        let Target { file, system, object, sealer } = target;
        let unread = |source| ArchiveError::File { action: "read", path: path.display().to_string(), source };
        let identity = Identity::of(path).map_err(unread)?;
        let content = fs::read(path).map_err(unread)?;
        // What PostgreSQL does not want archived, such as what another server has left behind, it may write anew at any time.
        if Identity::of(path).ok() != Some(identity) {
            return Err(ArchiveError::Unfit { file, why: "it was changed or removed while it was read".to_owned() });
        }
        // A partial segment is as long as a whole one.
        if let WalFile::Segment(name) | WalFile::Partial(name) = file
            && let Some(why) = WalHeader::mistake(&content, name, system)
        {
            return Err(ArchiveError::Unfit { file, why });
        }
        let head = Head::of(&content);
        let sealed = wal_object::pack_at(level, &head, &content).and_then(|packed| {
            drop(content);
            sealer.seal(&object, packed)
        });
        let sealed = sealed.map_err(|error| ArchiveError::Unfit { file, why: error.to_string() })?;
        Ok(Parcel { file, system, head, sealer, sealed })
    }

    /// Whose WAL it is.
    pub(super) fn system(&self) -> SystemId {
        self.system
    }

    /// How many bytes are stored.
    pub(super) fn size(&self) -> u64 {
        self.sealed.stored_size()
    }

    /// Puts it into the archive: one request, if nothing is there yet.
    ///
    /// # Errors
    /// As [`push`].
    pub(super) async fn store<S: ObjectStore>(&self, archive: &Archive<S>) -> Result<Pushed, ArchiveError> {
        if archive.store.create_sealed(&self.sealed).await? == Claim::Won {
            return Ok(Pushed::Stored);
        }
        let object = self.sealed.name().clone();
        // All of it: whoever acknowledges a file says that it can be restored.
        let Some(present) = archive.store.read(&object).await? else {
            let why = "the object was there and is gone: somebody removes WAL that is being archived".to_owned();
            return Err(StoreError::Unavailable { object: object.to_string(), why }.into());
        };
        let (sealer, sealed, file, head) = (self.sealer.clone(), self.sealed.clone(), self.file, self.head);
        let likeness = on_a_thread(move || {
            let theirs = wal_object::unpack(&present).map_err(|why| ArchiveError::Damaged { object, why })?;
            drop(present);
            if Head::of(&theirs) == head {
                return Ok(Likeness::Same);
            }
            Ok(sealer.content(&sealed).map_or(Likeness::None, |ours| likeness(file, &ours, &theirs)))
        });
        match likeness.await? {
            Likeness::Same => Ok(Pushed::WasThere),
            Likeness::SameRecords => Ok(Pushed::SameRecords),
            Likeness::None => self.put_aside(archive).await,
        }
    }

    async fn put_aside<S: ObjectStore>(&self, archive: &Archive<S>) -> Result<Pushed, ArchiveError> {
        let aside = archive.aside(self.file, &self.head.short(&self.sealer))?;
        let packed = self.sealer.content(&self.sealed).map_err(|why| ArchiveError::Unfit { file: self.file, why })?;
        archive.store.create(&aside, packed).await?;
        match self.file {
            WalFile::Partial(_) => Ok(Pushed::Aside(aside)),
            file => Err(ArchiveError::Conflict { file, aside }),
        }
    }
}

/// How much two contents of one name are alike.
enum Likeness {
    Same,
    /// The archive has every record of ours.
    SameRecords,
    None,
}

/// Compares what the archive has with ours, which is packed.
fn likeness(file: WalFile, ours: &[u8], theirs: &[u8]) -> Likeness {
    let (WalFile::Segment(_) | WalFile::Partial(_)) = file else { return Likeness::None };
    let Ok(ours) = wal_object::unpack(ours) else { return Likeness::None };
    let (end, their_end) = (end_of_records(&ours), end_of_records(theirs));
    // A whole segment whose records end early is one that we do not understand: who knows what is behind them.
    let understood = end.at > 0 && (end.complete || matches!(file, WalFile::Partial(_)));
    let alike = understood && end.at <= their_end.at && ours.len() == theirs.len() && ours[..end.at] == theirs[..end.at];
    if alike { Likeness::SameRecords } else { Likeness::None }
}

/// Does that where it may take its time.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ArchiveError::Thread(error.to_string())))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::postgres::wal_segment::Segment;

    #[test]
    fn what_changes_while_it_is_read_is_not_archived() {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::new(1, 5).with(&[b"one"]);
        let (path, file) = (dir.path().join(segment.name().to_string()), WalFile::Segment(segment.name()));
        // Whoever reads from a pipe waits until somebody writes into it.
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let reader = std::thread::spawn({
            let (path, system) = (path.clone(), segment.system);
            let (object, sealer) = ("wal".parse().unwrap(), Sealer::default());
            move || Parcel::of(&path, Target { file, system, object, sealer }, LEVEL).map(|_| ())
        });
        let mut pipe = fs::File::options().write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        io::Write::write_all(&mut pipe, &segment.build()).unwrap();
        drop(pipe);
        let error = reader.join().unwrap().unwrap_err();
        assert!(matches!(error, ArchiveError::Unfit { .. }) && error.to_string().contains("while it was read"), "{error}");
    }
}
