//! Where the files of a backup go: into the data directory, and those of tablespaces into directories of their own.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::backup::manifest::Header;

/// What tablespaces' links lie in.
const LINKS: &str = "pg_tblspc";

/// A tablespace and the directory it will be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Its number.
    pub oid: u32,
    /// Its directory.
    pub location: PathBuf,
}

/// Where everything goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    spaces: Vec<Space>,
    /// The directory within a tablespace that is this server's: `PG_15_202209061`.
    version: String,
}

impl Layout {
    /// The layout of this backup below `root`; `moved` says which tablespaces go elsewhere than they were.
    ///
    /// # Errors
    /// What cannot be meant: a tablespace that is none, or a directory that is no place for one.
    pub fn new(root: &Path, backup: &Header, moved: &[Space]) -> Result<Layout, String> {
        if let Some(unknown) = moved.iter().find(|space| backup.tablespaces.iter().all(|known| known.oid != space.oid)) {
            let known: Vec<String> = backup.tablespaces.iter().map(|space| space.oid.to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!("the backup has no tablespace {} (it has: {known})", unknown.oid));
        }
        let spaces: Vec<Space> = backup
            .tablespaces
            .iter()
            .filter(|known| known.location.starts_with('/') || moved.iter().any(|space| space.oid == known.oid))
            .map(|known| {
                let elsewhere = moved.iter().find(|space| space.oid == known.oid).cloned();
                elsewhere.unwrap_or_else(|| Space { oid: known.oid, location: PathBuf::from(&known.location) })
            })
            .collect();
        for (at, space) in spaces.iter().enumerate() {
            let location = &space.location;
            let apart = |other: &Path| !location.starts_with(other) && !other.starts_with(location);
            if !location.is_absolute() || !apart(root) || !spaces[..at].iter().all(|other| apart(&other.location)) {
                let (oid, location) = (space.oid, location.display());
                return Err(format!("'{location}' is no place for tablespace {oid}: it has to be absolute, and apart from all others"));
            }
        }
        let version = format!("PG_{}_{}", backup.server_version / 10_000, backup.catalog_version);
        Ok(Layout { root: root.to_owned(), spaces, version })
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Tablespaces that lie elsewhere.
    pub fn spaces(&self) -> &[Space] {
        &self.spaces
    }

    /// The directory of a tablespace that is this server's: nothing else in its location is touched.
    pub fn version_dir(&self, space: &Space) -> PathBuf {
        space.location.join(&self.version)
    }

    /// The link to a tablespace.
    pub fn link(&self, space: &Space) -> PathBuf {
        self.root.join(LINKS).join(space.oid.to_string())
    }

    /// The tablespace whose link this path is.
    pub fn linked(&self, path: &[u8]) -> Option<&Space> {
        let (oid, rest) = below_links(path)?;
        self.spaces.iter().find(|space| rest.is_none() && space.oid == oid)
    }

    /// What the manifest calls that directory.
    pub fn version_path(&self, space: &Space) -> Vec<u8> {
        format!("{LINKS}/{}/{}", space.oid, self.version).into()
    }

    /// The tablespace in whose directory this path lies.
    pub fn space(&self, path: &[u8]) -> Option<&Space> {
        self.inside(path).map(|(space, _)| space)
    }

    /// Where an entry of the manifest goes.
    pub fn path(&self, path: &[u8]) -> PathBuf {
        match self.inside(path) {
            Some((space, rest)) => space.location.join(OsStr::from_bytes(rest)),
            None => self.root.join(OsStr::from_bytes(path)),
        }
    }

    fn inside<'a>(&self, path: &'a [u8]) -> Option<(&Space, &'a [u8])> {
        let (oid, rest) = below_links(path)?;
        Some((self.spaces.iter().find(|space| space.oid == oid)?, rest?))
    }

    /// The content of `tablespace_map`; PostgreSQL makes the links anew from it when it starts.
    pub fn map(&self) -> String {
        self.spaces.iter().map(|space| format!("{} {}\n", space.oid, escaped(&space.location.to_string_lossy()))).collect()
    }
}

/// The number of the tablespace, and what follows.
fn below_links(path: &[u8]) -> Option<(u32, Option<&[u8]>)> {
    let rest = path.strip_prefix(LINKS.as_bytes())?.strip_prefix(b"/")?;
    let end = rest.iter().position(|byte| *byte == b'/');
    let oid = std::str::from_utf8(&rest[..end.unwrap_or(rest.len())]).ok()?.parse().ok()?;
    Some((oid, end.map(|end| &rest[end + 1..])))
}

fn escaped(location: &str) -> String {
    let mut text = String::new();
    for letter in location.chars() {
        if matches!(letter, '\n' | '\r' | '\\') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{catalog::tests::header, manifest::Tablespace};

    fn backup() -> Header {
        let space = |oid, location: &str| Tablespace { oid, location: location.to_owned() };
        Header {
            tablespaces: vec![space(16_384, "/srv/fast"), space(16_385, "/srv/a\\b"), space(16_386, "pg_tblspc/16386")],
            ..header(0, 1)
        }
    }

    fn space(oid: u32, location: &str) -> Space {
        Space { oid, location: location.into() }
    }

    #[test]
    fn files_of_tablespaces_go_where_their_links_lead() {
        let layout = Layout::new(Path::new("/data"), &backup(), &[space(16_384, "/mnt/new")]).unwrap();
        let path = |text: &str| layout.path(text.as_bytes()).display().to_string();
        assert_eq!(path("base/1/2"), "/data/base/1/2");
        assert_eq!(path("pg_tblspc/16384/PG_15_202209061/5/6"), "/mnt/new/PG_15_202209061/5/6");
        assert_eq!(path("pg_tblspc/16386/PG_15_202209061/5/6"), "/data/pg_tblspc/16386/PG_15_202209061/5/6", "in place");
        assert_eq!(path("pg_tblspc/99"), "/data/pg_tblspc/99");
        assert_eq!(layout.linked(b"pg_tblspc/16384").unwrap().oid, 16_384);
        assert!(layout.linked(b"pg_tblspc/16384/x").is_none() && layout.linked(b"pg_tblspc/16386").is_none());
        assert_eq!(layout.map(), "16384 /mnt/new\n16385 /srv/a\\\\b\n");
        let fast = &layout.spaces()[0];
        assert_eq!(layout.version_dir(fast), Path::new("/mnt/new/PG_15_202209061"));
        assert_eq!(layout.path(&layout.version_path(fast)), layout.version_dir(fast));
        assert_eq!(layout.space(b"pg_tblspc/16384/PG_15_202209061/5/6"), Some(fast));
        assert!(layout.space(b"pg_tblspc/16386/PG_15_202209061/5/6").is_none() && layout.space(b"base/1/2").is_none());
    }

    #[test]
    fn places_that_cannot_be_meant_are_refused() {
        let refused = |moved: &[Space]| Layout::new(Path::new("/data"), &backup(), moved).unwrap_err();
        assert!(refused(&[space(7, "/x")]).contains("no tablespace 7 (it has: 16384, 16385, 16386)"));
        for location in ["relative", "/data/inside", "/data", "/"] {
            assert!(refused(&[space(16_384, location)]).contains(location), "{location}");
        }
        assert!(refused(&[space(16_384, "/srv/a\\b/inside")]).contains("apart"));
    }
}
