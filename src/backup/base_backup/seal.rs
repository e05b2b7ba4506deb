//! The manifest: written when everything that it names is there.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
};

use bytes::Bytes;

use super::{Copied, Request, error::BackupError, tablespaces, upload};
use crate::{
    backup::{Archive, ArchiveError, BackupId, manifest::Header, manifest_file, marks},
    postgres::backup_mode::CopiedServer,
    storage::{Claim, ObjectStore},
    sys::memory::MappedFile,
};

/// Writes the manifest.
///
/// # Errors
/// When a pack is gone, and when the store does not take the manifest.
pub async fn seal<S: ObjectStore>(
    archive: &Archive<S>,
    request: &Request,
    server: &CopiedServer,
    id: BackupId,
    parent: Option<BackupId>,
    copied: Copied,
) -> Result<Header, BackupError> {
    let Copied { packed, start, stop, label, tablespace_map } = copied;
    // Somebody may have taken us for dead. From here on our packs stay, unless they are gone already.
    upload::patiently(async || marks::remove_tomb(archive, &id).await).await?;
    if let Some(missing) = upload::missing_pack(archive, &packed.packs).await? {
        return Err(BackupError::PackGone(missing));
    }
    let (bad_page_count, bad_pages) = packed.bad_pages.settle(stop.lsn);
    let header = Header {
        id,
        made_by: concat!("spilo ", env!("CARGO_PKG_VERSION")).to_owned(),
        cluster: request.cluster.clone(),
        member: request.member.clone(),
        from_standby: server.in_recovery,
        system: server.system,
        server_version: server.version,
        catalog_version: server.catalog_version,
        data_dir_mode: mode(request)?,
        segment_size: server.wal_segment_size,
        page_size: server.page_size,
        checksums: server.checksums,
        start,
        stop,
        label,
        tablespaces: tablespaces::parse(&tablespace_map)?,
        tablespace_map,
        parent,
        packs: packed.packs,
        entries: packed.count,
        size: packed.size,
        stored: packed.stored,
        bad_page_count,
        bad_pages,
    };
    let object = archive.manifest(&header.id)?;
    let content = content(&header, packed.entries).map_err(BackupError::file("keep the manifest in", std::env::temp_dir()))?;
    let sealed = archive.store.seal(&object, content).await?;
    let claim = upload::patiently(async || archive.store.create_sealed(&sealed).await).await?;
    // Its name has this backup's chance in it: what is there already is an attempt of ours whose answer got lost.
    if claim == Claim::Taken && upload::patiently(async || archive.store.size(&object).await).await? != Some(sealed.size()) {
        let why = "another object is in its place, although nobody else knows its name".to_owned();
        return Err(ArchiveError::Damaged { object, why }.into());
    }
    Ok(header)
}

/// The whole object, in a file that is looked at as if it were memory.
fn content(header: &Header, mut entries: File) -> std::io::Result<Bytes> {
    let mut whole = BufWriter::with_capacity(1 << 18, tempfile::tempfile()?);
    let from_the_beginning = || {
        entries.seek(SeekFrom::Start(0))?;
        entries.try_clone()
    };
    manifest_file::write(header, from_the_beginning, &mut whole)?;
    whole.flush()?;
    let whole = whole.into_inner().map_err(std::io::Error::from)?;
    Ok(Bytes::from_owner(MappedFile::new(&whole)?))
}

fn mode(request: &Request) -> Result<u32, BackupError> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(&request.data_dir).map_err(BackupError::file("read", &request.data_dir))?;
    Ok(found.mode() & 0o7777)
}
