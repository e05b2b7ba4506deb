//! A copy of another member, made beside the data directory and put in its place when it is complete.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Address, Installation, PostgresError, conf,
    conninfo::conninfo,
    control_data,
    copy_progress::CopySaid,
    recover::{self, recover},
    restore_mark,
};
use crate::{
    model::SystemId,
    sys::{
        files,
        process::{ProcessError, Run},
    },
};

/// A copy may take long; a day says "stuck", not "big".
const LONGEST_COPY: Duration = Duration::from_secs(24 * 3600);

/// What an agent keeps in the data directory for itself: of another cluster's it would say the wrong thing, and one of this cluster writes its
/// own.
pub const AGENTS_OWN: &str = "patroni.dynamic.json";

/// What the system says of a full disk; the programs are told to speak English.
const NO_SPACE: &str = "No space left on device";

/// The directories a copy goes through.
struct Places {
    data: PathBuf,
    copy: PathBuf,
    old: PathBuf,
    dropped: PathBuf,
}

impl Places {
    fn of(installation: &Installation) -> Places {
        let data = installation.data_dir.clone();
        Places { copy: files::beside(&data, ".clone"), old: files::beside(&data, ".old"), dropped: files::beside(&data, ".dropped"), data }
    }
}

/// Copies the server at `source` with pg_basebackup, through `slot` if given, and puts the copy in the data directory's place, ready to be
/// started as a standby. What was there before stays beside it as `.old` until [`drop_old`]: it may be the better copy after all. `far` hears how far
/// it is, such as `12 of 340 MB`.
pub async fn basebackup(
    installation: &Installation,
    source: &Address,
    user: &str,
    name: &str,
    slot: Option<&str>,
    system: Option<SystemId>,
    mut far: impl FnMut(String),
) -> Result<(), PostgresError> {
    let places = Places::of(installation);
    files::remove_dir(&places.copy).map_err(PostgresError::file("remove", &places.copy))?;
    let mut run = Run::new(installation.program("pg_basebackup"))
        .arg(format!("--pgdata={}", places.copy.display()))
        .arg("--wal-method=stream")
        .arg("--checkpoint=fast")
        .arg("--progress")
        .arg("--no-password")
        .arg(format!("--dbname={}", conninfo(source, user, &installation.passfile, &[("application_name", &copying_as(name))])))
        .env("LC_MESSAGES", "C")
        .limit(LONGEST_COPY);
    if let Some(slot) = slot {
        run = run.arg(format!("--slot={slot}"));
    }
    let mut said = CopySaid::default();
    let copied = run.lines(|line| said.hear(line).into_iter().for_each(&mut far)).await;
    if let Err(error) = copied {
        return Err(failed(&places, in_its_words(error, &said))?);
    }
    put_in_place(installation, &places, system, &format!("{}:{}", source.host, source.port)).await
}

/// Fills a directory with a program of ours that restores a backup to where it is told, and puts it in the data directory's place, as
/// [`basebackup`] does with its copy. `lines` gets what the program says.
pub async fn from_archive(
    installation: &Installation,
    restore: impl FnOnce(&Path) -> Run,
    system: SystemId,
    lines: impl FnMut(&str),
) -> Result<(), PostgresError> {
    let places = Places::of(installation);
    files::remove_dir(&places.copy).map_err(PostgresError::file("remove", &places.copy))?;
    let restored = restore(&places.copy).env("LC_MESSAGES", "C").limit(LONGEST_COPY).lines(lines).await;
    if let Err(error) = restored {
        // What is complete of it would be in the way of whatever comes next.
        files::remove_dir(&places.copy).map_err(PostgresError::file("remove", &places.copy))?;
        return Err(error.into());
    }
    put_in_place(installation, &places, Some(system), "the archive").await
}

/// Begins a cluster from another one's backup: a program of ours restores it, the server recovers to the target, and the result takes the place
/// of the data directory, which is empty, as a primary that was stopped cleanly.
pub async fn begin_from_archive(
    installation: &Installation,
    restore: impl FnOnce(&Path) -> Run,
    mut lines: impl FnMut(&str),
) -> Result<(), PostgresError> {
    let places = Places::of(installation);
    // An interrupted restore goes on where it was, and so does a recovery that lacked an answer of the archive: to begin recovery again is
    // what PostgreSQL does after every crash. What else is complete is of another attempt, which has failed for good.
    let unfinished = restore_mark::is_unfinished(&places.copy);
    let recovers = !unfinished && recover::waits(&places.copy);
    if !unfinished && !recovers {
        files::remove_dir(&places.copy).map_err(PostgresError::file("remove", &places.copy))?;
    }
    if !recovers {
        restore(&places.copy).env("LC_MESSAGES", "C").limit(LONGEST_COPY).lines(&mut lines).await?;
    }
    let mut lacks_answer = false;
    let said = |line: &str| {
        lacks_answer |= recover::says_that_the_archive_failed(line);
        lines(line);
    };
    let recovered = recover(&Installation { data_dir: places.copy.clone(), ..installation.clone() }, said).await;
    if let Err(error) = recovered {
        if !lacks_answer {
            files::remove_dir(&places.copy).map_err(PostgresError::file("remove", &places.copy))?;
        }
        return Err(error);
    }
    leave_out_agents_own(&places.copy)?;
    if !files::is_empty_dir(&places.data).map_err(PostgresError::file("read", &places.data))? {
        return Err(PostgresError::NotYet(format!("'{}' is not empty: nothing is begun there", places.data.display())));
    }
    files::rename(&places.copy, &places.data).map_err(PostgresError::file("rename", &places.copy))
}

/// Puts a complete copy in the data directory's place, if it is of this `system`.
async fn put_in_place(installation: &Installation, places: &Places, system: Option<SystemId>, source: &str) -> Result<(), PostgresError> {
    let control = control_data::read(&Installation { data_dir: places.copy.clone(), ..installation.clone() }).await?;
    if let Some(expected) = system.filter(|expected| *expected != control.system_id) {
        let theirs = control.system_id;
        return Err(PostgresError::Sql(format!("{source} serves the system {theirs}, not {expected}: its copy is not used")));
    }
    // Before it gets its final name: a copy must never be started as a primary, nor by another cluster's configuration.
    conf::set_standby_signal(&places.copy, true)?;
    leave_out_agents_own(&places.copy)?;
    if !files::is_empty_dir(&places.data).map_err(PostgresError::file("read", &places.data))? {
        // Where one was set aside already, what is in its place is a copy that never proved itself: that one goes, not the older.
        let aside = if places.old.exists() { &places.dropped } else { &places.old };
        files::remove_dir(aside).map_err(PostgresError::file("remove", aside))?;
        files::rename(&places.data, aside).map_err(PostgresError::file("rename", &places.data))?;
    }
    files::rename(&places.copy, &places.data).map_err(PostgresError::file("rename", &places.copy))?;
    remove_beside(places.dropped.clone());
    Ok(())
}

/// Removes what the source's agent kept for itself.
pub fn leave_out_agents_own(data: &Path) -> Result<(), PostgresError> {
    let path = data.join(AGENTS_OWN);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PostgresError::file("remove", path)(error)),
        _ => files::sync_parent(&path).map_err(PostgresError::file("sync", path)),
    }
}

fn in_its_words(error: ProcessError, said: &CopySaid) -> ProcessError {
    match error {
        ProcessError::Failed { program, status, .. } => ProcessError::Failed { program, status, output: said.complaints() },
        error => error,
    }
}

/// Why the copy failed. What there is of it goes at once where it has taken all the room.
fn failed(places: &Places, error: ProcessError) -> Result<PostgresError, PostgresError> {
    if !error.to_string().contains(NO_SPACE) {
        return Ok(error.into());
    }
    files::remove_dir(&places.copy).map_err(PostgresError::file("remove", &places.copy))?;
    let parent = places.data.parent().unwrap_or(&places.data);
    let free = files::free_space(parent).map_err(PostgresError::file("ask for the free space of", parent))?;
    let has_old = !files::is_empty_dir(&places.data).map_err(PostgresError::file("read", &places.data))?;
    Ok(PostgresError::NoRoom { free, old: has_old.then(|| places.data.clone()) })
}

/// How a copy calls itself at its source. pg_basebackup streams and confirms WAL like a standby: under the member's own name it would be
/// taken for a synchronous one, and commits would rest on a directory that is thrown away when the copy fails.
fn copying_as(name: &str) -> String {
    format!("copy of {name}")
}

/// After a crash between the two renames of [`basebackup`]: brings the former directory back.
pub fn recover_interrupted(installation: &Installation) -> Result<(), PostgresError> {
    let places = Places::of(installation);
    if !places.data.exists() && places.old.exists() {
        files::rename(&places.old, &places.data).map_err(PostgresError::file("rename", &places.old))?;
    }
    remove_beside(places.dropped);
    // Whatever a killed initdb or pg_basebackup left is incomplete.
    for leftover in [places.copy, files::beside(&places.data, ".init")] {
        files::remove_dir(&leftover).map_err(PostgresError::file("remove", leftover))?;
    }
    Ok(())
}

/// True while the directory that a copy replaced is still there.
pub fn has_old(installation: &Installation) -> bool {
    Places::of(installation).old.exists()
}

/// Removes the replaced directory, once the copy has proved itself by streaming. Removing many files takes long: that is done beside
/// whatever else goes on, under another name, and again after the next start should it be cut short.
pub fn drop_old(installation: &Installation) -> Result<(), PostgresError> {
    let places = Places::of(installation);
    if places.old.exists() && !places.dropped.exists() {
        files::rename(&places.old, &places.dropped).map_err(PostgresError::file("rename", &places.old))?;
    }
    remove_beside(places.dropped);
    Ok(())
}

fn remove_beside(directory: PathBuf) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = files::remove_dir(&directory) {
            tracing::warn!("cannot remove '{}': {error}", directory.display());
        }
    });
}

/// Moves a data directory aside, as `.discarded`: for one that never held anybody's data but may still be wanted for looking.
pub fn set_aside(installation: &Installation) -> Result<(), PostgresError> {
    let aside = files::beside(&installation.data_dir, ".discarded");
    files::remove_dir(&aside).map_err(PostgresError::file("remove", &aside))?;
    files::rename(&installation.data_dir, &aside).map_err(PostgresError::file("rename", &installation.data_dir))
}

/// The major version of the data directory, from `PG_VERSION`.
pub fn data_version(installation: &Installation) -> Result<String, PostgresError> {
    let path = installation.data_dir.join("PG_VERSION");
    fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(PostgresError::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(dir: &tempfile::TempDir) -> Installation {
        Installation { data_dir: dir.path().join("data"), bin_dir: "".into(), passfile: "".into() }
    }

    #[tokio::test]
    async fn a_crash_between_the_renames_brings_the_old_directory_back() {
        let dir = tempfile::tempdir().unwrap();
        let installation = installation(&dir);
        fs::create_dir_all(dir.path().join("data.old/base")).unwrap();
        fs::create_dir_all(dir.path().join("data.clone")).unwrap();
        recover_interrupted(&installation).unwrap();
        assert!(dir.path().join("data/base").exists());
        assert!(!dir.path().join("data.clone").exists());
    }

    #[test]
    fn a_copy_that_found_no_room_gives_back_what_it_took_and_says_what_stands_in_its_way() {
        let dir = tempfile::tempdir().unwrap();
        let installation = installation(&dir);
        let places = Places::of(&installation);
        let error = |output: &str| ProcessError::Failed { program: "pg_basebackup".into(), status: "1".into(), output: output.into() };
        fs::create_dir_all(places.copy.join("base")).unwrap();
        assert!(matches!(failed(&places, error("connection refused")).unwrap(), PostgresError::Program(_)));
        assert!(places.copy.exists(), "it goes before the next attempt");
        let full = || failed(&places, error("could not write to file \"base/1\": No space left on device")).unwrap().to_string();
        let said = full();
        assert!(said.starts_with("no room for a copy: ") && !said.contains("old data") && !places.copy.exists(), "{said}");
        fs::create_dir_all(places.data.join("base")).unwrap();
        let said = full();
        assert!(
            said.contains("beside the old data") && said.contains(&places.data.display().to_string()) && places.data.exists(),
            "{said}"
        );
    }

    #[tokio::test]
    async fn what_a_birth_has_restored_is_continued_and_what_it_has_spoilt_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let installation = installation(&dir);
        let copy = Places::of(&installation).copy;
        let begin = async || begin_from_archive(&installation, |_| Run::new("false"), |_| {}).await.unwrap_err();
        fs::create_dir_all(copy.join("base")).unwrap();
        fs::write(copy.join(restore_mark::FILE), "").unwrap();
        begin().await;
        assert!(copy.join("base").exists());
        fs::remove_file(copy.join(restore_mark::FILE)).unwrap();
        begin().await;
        assert!(!copy.exists());
    }

    #[tokio::test]
    async fn a_recovery_that_lacked_the_archive_goes_on_and_one_that_failed_otherwise_is_begun_anew() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let installation = Installation { bin_dir: dir.path().join("bin"), ..installation(&dir) };
        let (copy, server) = (Places::of(&installation).copy, dir.path().join("bin/postgres"));
        fs::create_dir(dir.path().join("bin")).unwrap();
        let says = |line: &str| {
            fs::write(&server, format!("#!/bin/sh\necho '{line}' >&2\nexit 1\n")).unwrap();
            fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let restored = std::cell::Cell::new(0);
        let restore = |to: &Path| {
            restored.set(restored.get() + 1);
            let to = to.display();
            Run::new("sh").args(["-c", &format!("mkdir -p '{to}' && touch '{to}/recovery.signal'")])
        };
        let begin = async || begin_from_archive(&installation, restore, |_| {}).await.unwrap_err();
        says("FATAL:  could not restore file \"000000010000000000000007\" from archive: child process exited with exit code 126");
        for _ in 0..3 {
            begin().await;
            assert!(restored.get() == 1 && copy.join("recovery.signal").exists());
        }
        says("PANIC:  could not locate a valid checkpoint record");
        begin().await;
        assert!(restored.get() == 1 && !copy.exists(), "who knows what else is wrong with it");
        begin().await;
        assert_eq!(restored.get(), 2);
    }

    #[tokio::test]
    async fn a_directory_in_use_is_not_replaced_by_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let installation = installation(&dir);
        fs::create_dir_all(dir.path().join("data.old")).unwrap();
        fs::create_dir_all(dir.path().join("data/base")).unwrap();
        recover_interrupted(&installation).unwrap();
        assert!(has_old(&installation) && dir.path().join("data/base").exists());
    }
}
