//! `spilo backup list` and `spilo backup show`: which base backups there are.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::status::age_in_words;
use crate::{
    backup::{
        BackupId,
        catalog::Catalog,
        manifest::{BadPage, Header},
        marks::Marks,
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        bytes::bytes_in_words,
        cluster_store::ClusterStoreArgs,
        inside::Inside,
        interrupt::run_async,
        output::{Shown, table},
        ui::in_words,
        which_archive::{WhichArchive, WhichBackup, Whose},
    },
    model::{ClusterName, SystemId, Timeline, counted},
};

/// List the backups in a cluster's archive
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Whose.
    #[command(flatten)]
    pub archive: WhichArchive,
}

/// Show what there is to know of a backup
#[derive(Debug, Clone, clap::Args)]
pub struct ShowArgs {
    /// Which.
    #[command(flatten)]
    pub which: WhichBackup,
}

/// The backups of one database cluster.
#[derive(Debug, Serialize)]
struct BackupList {
    cluster: ClusterName,
    /// As text: it is more than a number in JSON holds.
    system: String,
    backups: Vec<Backup>,
    unreadable: Vec<Unreadable>,
}

/// One of them. Pages that were damaged are counted here, and named by `show`.
#[derive(Debug, Clone, Serialize)]
struct Backup {
    id: BackupId,
    member: String,
    from_standby: bool,
    parent: Option<BackupId>,
    timeline: Timeline,
    started: Timestamp,
    /// Recovery begins here.
    start_lsn: String,
    complete: Timestamp,
    /// From here on the data are consistent.
    stop_lsn: String,
    /// Bytes of all files.
    size: u64,
    /// Bytes that were stored for this backup alone.
    stored: u64,
    entries: u64,
    bad_page_count: u64,
    /// It stays whatever the policy says.
    pinned: bool,
    /// It is to go, and why.
    goes: Option<String>,
    #[serde(skip)]
    age: String,
}

/// A manifest, or a mark, that cannot be read.
#[derive(Debug, Serialize)]
struct Unreadable {
    object: String,
    why: String,
}

impl Backup {
    fn of(header: &Header, marks: &Marks) -> Backup {
        let age = Timestamp::now().duration_since(header.stop.time).as_secs();
        Backup {
            id: header.id.clone(),
            member: header.member.clone(),
            from_standby: header.from_standby,
            parent: header.parent.clone(),
            timeline: header.stop.timeline,
            started: header.start.time,
            start_lsn: header.start.lsn.to_string(),
            complete: header.stop.time,
            stop_lsn: header.stop.lsn.to_string(),
            size: header.size,
            stored: header.stored,
            entries: header.entries,
            bad_page_count: header.bad_page_count,
            pinned: marks.pins.contains(&header.id),
            goes: marks.tombs.get(&header.id).map(|tomb| tomb.why.clone()),
            age: age_in_words(u64::try_from(age).unwrap_or(0)),
        }
    }

    fn remark(&self) -> String {
        let damaged = (self.bad_page_count > 0).then(|| format!("{} damaged pages", self.bad_page_count));
        let goes = self.goes.as_ref().map(|why| format!("goes: {why}"));
        let remarks: Vec<String> = self.pinned.then(|| "pinned".to_owned()).into_iter().chain(goes).chain(damaged).collect();
        if remarks.is_empty() { "-".to_owned() } else { remarks.join(", ") }
    }
}

impl Shown for BackupList {
    const KIND: &'static str = "BackupList";

    fn text(&self, wide: bool) -> String {
        let short = |backup: &Backup| {
            [
                backup.id.to_string(),
                backup.age.clone(),
                backup.member.clone(),
                bytes_in_words(backup.size),
                bytes_in_words(backup.stored),
                backup.timeline.to_string(),
                backup.remark(),
            ]
        };
        let mut text = if wide {
            let rows = self.backups.iter().map(|backup| {
                let [id, age, member, size, stored, timeline, remark] = short(backup);
                let parent = backup.parent.as_ref().map_or("-".to_owned(), ToString::to_string);
                [id, age, member, size, stored, timeline, backup.start_lsn.clone(), backup.stop_lsn.clone(), parent, remark]
            });
            table(["BACKUP", "AGE", "MEMBER", "SIZE", "STORED", "TIMELINE", "START", "STOP", "COMPARED WITH", "REMARK"], rows)
        } else {
            table(["BACKUP", "AGE", "MEMBER", "SIZE", "STORED", "TIMELINE", "REMARK"], self.backups.iter().map(short))
        };
        for manifest in &self.unreadable {
            text.push_str(&format!("unreadable: '{}': {}\n", manifest.object, manifest.why));
        }
        text
    }
}

/// One backup as data, without its files.
#[derive(Debug, Serialize)]
struct OneBackup {
    #[serde(flatten)]
    backup: Backup,
    made_by: String,
    server_version: u32,
    checksums: bool,
    tablespaces: Vec<crate::backup::manifest::Tablespace>,
    packs: usize,
    bad_pages: Vec<BadPage>,
}

impl Shown for OneBackup {
    const KIND: &'static str = "Backup";

    fn text(&self, _wide: bool) -> String {
        let backup = &self.backup;
        let seconds = backup.complete.duration_since(backup.started).as_secs();
        let took = in_words(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        let mut lines = vec![
            ("backup", backup.id.to_string()),
            ("of", format!("{}, {}", backup.member, if backup.from_standby { "a standby" } else { "the primary" })),
            ("begun", format!("{}, {}", backup.started, backup.start_lsn)),
            ("complete", format!("{}, {} on timeline {} ({took})", backup.complete, backup.stop_lsn, backup.timeline)),
            ("size", format!("{} in {} files and directories", bytes_in_words(backup.size), backup.entries)),
            (
                "stored",
                format!("{}, and what it shares with others in {}", bytes_in_words(backup.stored), counted(self.packs as u64, "pack")),
            ),
            ("compared with", backup.parent.as_ref().map_or("nothing".to_owned(), ToString::to_string)),
            (
                "server",
                format!(
                    "PostgreSQL {}, {}",
                    self.server_version / 10_000,
                    if self.checksums { "with checksums" } else { "without checksums" }
                ),
            ),
            ("made by", self.made_by.clone()),
        ];
        if backup.remark() != "-" {
            lines.push(("remark", backup.remark()));
        }
        let tablespaces = self.tablespaces.iter().map(|space| ("tablespace", format!("{} in {}", space.oid, space.location)));
        let damaged = self.bad_pages.iter().map(|page| ("damaged", format!("page {} of {}", page.page, page.file)));
        let lines = lines.into_iter().chain(tablespaces).chain(damaged);
        lines.map(|(what, value)| format!("{what:<14} {value}\n")).collect()
    }
}

/// Lists them.
pub fn list(context: &Context, args: &ListArgs) -> Result<Exit, CommandError> {
    run_async(|_| async {
        let place = match args.archive.whose()? {
            Whose::OfCluster(cluster) => return inside(context, &cluster, "list", Vec::new()).await,
            Whose::InStore(place) => place,
        };
        let (system, catalog, marks) = read(&args.archive, &place).await?;
        let unreadable = catalog.unreadable.iter().chain(&marks.unreadable);
        let unreadable = unreadable.map(|found| Unreadable { object: found.object.to_string(), why: found.why.clone() });
        let backups = catalog.backups.iter().map(|header| Backup::of(header, &marks)).collect();
        if catalog.backups.is_empty() {
            context.ui.say(format_args!("'{}' has no backup yet", place.cluster));
        }
        let cluster = place.cluster.clone();
        context.show(&BackupList { cluster, system: system.to_string(), backups, unreadable: unreadable.collect() })?;
        Ok(Exit::OK)
    })
}

/// Shows one.
pub fn show(context: &Context, args: &ShowArgs) -> Result<Exit, CommandError> {
    run_async(|_| async {
        match args.which.archive.whose()? {
            Whose::InStore(place) => {
                let (_, catalog, marks) = read(&args.which.archive, &place).await?;
                context.show(&one(&catalog, &marks, &args.which)?)?;
                Ok(Exit::OK)
            }
            Whose::OfCluster(cluster) => inside(context, &cluster, "show", args.which.option()).await,
        }
    })
}

/// Has a node of the cluster run it.
async fn inside(context: &Context, cluster: &ClusterName, verb: &str, more: Vec<String>) -> Result<Exit, CommandError> {
    let inside = Inside::of(cluster).await?;
    inside.run(&inside.look_into(context, &["backup", verb], more)).await
}

async fn read(which: &WhichArchive, place: &ClusterStoreArgs) -> Result<(SystemId, Catalog, Marks), CommandError> {
    let failed = |error| CommandError::new(ErrorKind::Failed, error);
    let archive = place.opened(which.system).await?;
    Ok((archive.system(), Catalog::read(&archive).await.map_err(failed)?, Marks::read(&archive).await.map_err(failed)?))
}

fn one(catalog: &Catalog, marks: &Marks, which: &WhichBackup) -> Result<OneBackup, CommandError> {
    let none = |what: String| CommandError::new(ErrorKind::NotFound, what).hint(which.archive.command("backup list", None, ""));
    let header = match which.id() {
        Some(id) => catalog.find(id).ok_or_else(|| none(format!("there is no backup '{id}'")))?,
        None => catalog.backups.last().ok_or_else(|| none("there is no backup yet".to_owned()))?,
    };
    Ok(OneBackup {
        backup: Backup::of(header, marks),
        made_by: header.made_by.clone(),
        server_version: header.server_version,
        checksums: header.checksums,
        tablespaces: header.tablespaces.clone(),
        packs: header.packs.len(),
        bad_pages: header.bad_pages.clone(),
    })
}
