//! `spilo backup take`: a base backup of a server on this machine.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::Serialize;

use crate::{
    backup::{
        Archive,
        base_backup::{self, BackupError, Phase, Progress, Report, Request, Told},
        encryption::SealedStore,
        manifest::BadPage,
    },
    cli::{
        CommandError, Context, ErrorKind, Exit,
        bytes::{bytes_in_words, parse_bytes},
        interrupt::{interrupted, run_async},
        output::Shown,
        store_arguments::StoreArgs,
        ui::{Ui, in_words},
    },
    model::{ClusterName, Secret},
    postgres::{Address, Credentials, control_data},
    storage::ObjectName,
    sys::machine,
};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long the last WAL may take into the archive, if nobody says otherwise.
const WAL_PATIENCE: Duration = Duration::from_secs(600);

/// So many damaged pages are named one by one.
const NAMED: usize = 10;

/// Back up a server on this machine, whose data directory and socket are here
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Whose backup it is
    #[arg(long, value_name = "NAME")]
    pub cluster: ClusterName,
    /// The member that is backed up [default: this machine's name]
    #[arg(long, value_name = "NAME")]
    pub member: Option<String>,
    /// The data directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Directory of the server's socket, or its host
    #[arg(long, value_name = "HOST")]
    pub host: String,
    /// The server's port
    #[arg(long, default_value_t = 5432)]
    pub port: u16,
    /// A role that may back up
    #[arg(long, value_name = "ROLE", default_value = "postgres")]
    pub user: String,
    /// File with the role's password and nothing else, if the server asks for one
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Where the primary is, if the server is a standby: it is asked to archive its present WAL segment
    #[arg(long, value_name = "HOST")]
    pub primary_host: Option<String>,
    /// The primary's port
    #[arg(long, default_value_t = 5432)]
    pub primary_port: u16,
    /// A role there that may call pg_switch_wal, if it is not the one that backs up
    #[arg(long, value_name = "ROLE", requires = "primary_host")]
    pub primary_user: Option<String>,
    /// File with its password and nothing else
    #[arg(long, value_name = "FILE", requires = "primary_user")]
    pub primary_password_file: Option<PathBuf>,
    /// Use nothing of earlier backups; what an interrupted one has left is used all the same
    #[arg(long)]
    pub full: bool,
    /// Read every file, also those that nobody has written to since the backup before; once a week that is done anyway
    #[arg(long)]
    pub read_all: bool,
    /// Read at most so much in a second, such as 100M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub rate: Option<u64>,
    /// Memory for data, such as 256M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "256M")]
    pub memory: u64,
    /// Threads that read and compress [default: half of the processors, at most 4]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// A remark, kept in backup_label
    #[arg(long, value_name = "TEXT", default_value = "spilo")]
    pub label: String,
}

/// What the backup is, for whoever asked for it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    id: String,
    cluster: String,
    member: String,
    system_identifier: String,
    parent: Option<String>,
    started: String,
    finished: String,
    start_lsn: String,
    stop_lsn: String,
    timeline: u32,
    entries: u64,
    bytes: u64,
    stored: u64,
    reused: u64,
    unread: u64,
    bad_page_count: u64,
    bad_pages: Vec<BadPage>,
    seconds: f64,
}

impl Shown for Summary {
    const KIND: &'static str = "Backup";

    fn text(&self, _: bool) -> String {
        let [bytes, stored, reused, unread] = [self.bytes, self.stored, self.reused, self.unread].map(bytes_in_words);
        let unread = if self.unread > 0 { format!(" ({unread} of that not read again)") } else { String::new() };
        format!("{}  {bytes}, {stored} stored, {reused} reused{unread}, {}", self.id, in_words(Duration::from_secs_f64(self.seconds)))
    }
}

/// Makes the backup.
pub fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let request = request(context, args)?;
    let root: ObjectName = args.cluster.as_str().parse().map_err(failed)?;
    let system = control_data::system_id(&args.data_dir).map_err(|error| failed(error).hint("is '--data-dir' the data directory?"))?;
    let ui = context.ui.clone();
    let report = run_async(async |interrupt| {
        let archive = Archive::of(SealedStore::open(&args.store.config(), root).await.map_err(failed)?, system);
        let progress = Arc::new(Progress::default());
        let tell = |told| match told {
            Told::Note(line) => ui.say(line),
            Told::Warning(line) => ui.warn(line),
        };
        tokio::select! {
            report = base_backup::create(&archive, &request, &progress, &tell) => report.map_err(told),
            () = show(&ui, &progress, args.cluster.as_str()) => unreachable!("it shows until the work is done"),
            () = interrupt.requested() => Err(interrupted()),
        }
    })?;
    warn_of_bad_pages(&context.ui, &report);
    context.show(&summary(&report))?;
    Ok(if report.header.bad_page_count > 0 { Exit::DEGRADED } else { Exit::OK })
}

fn request(context: &Context, args: &Args) -> Result<Request, CommandError> {
    let unreadable = |file: &PathBuf, error| CommandError::new(ErrorKind::Usage, format!("'{}' cannot be read: {error}", file.display()));
    let password = |file: &Option<PathBuf>| {
        let read = file.as_ref().map(|file| {
            let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, error))?;
            Ok::<_, CommandError>(Secret::new(text.trim_end_matches('\n').to_owned()))
        });
        read.transpose()
    };
    let primary_role = match &args.primary_user {
        Some(user) => Some(Credentials { username: user.clone(), password: password(&args.primary_password_file)? }),
        None => None,
    };
    let half = std::thread::available_parallelism().map_or(1, |all| (all.get() / 2).clamp(1, 4));
    Ok(Request {
        cluster: args.cluster.to_string(),
        member: args.member.clone().unwrap_or_else(machine::name),
        data_dir: args.data_dir.clone(),
        address: Address { host: args.host.clone(), port: args.port },
        role: Credentials { username: args.user.clone(), password: password(&args.password_file)? },
        primary_role,
        primary: args.primary_host.clone().map(|host| Address { host, port: args.primary_port }),
        full: args.full,
        read_all: args.read_all,
        rate: args.rate,
        memory: args.memory,
        threads: args.threads.unwrap_or(half),
        label: args.label.clone(),
        wal_patience: context.timeout_or(WAL_PATIENCE),
    })
}

async fn show(ui: &Ui, progress: &Progress, cluster: &str) {
    let mut bar = ui.bytes(format!("back up '{cluster}'"));
    loop {
        let seen = progress.seen();
        let what = match seen.phase {
            Phase::Preparing => "looking at earlier backups",
            Phase::Checkpoint => "waiting for a checkpoint",
            Phase::Reading => "reading",
            Phase::WaitingForWal => "waiting for the last WAL in the archive",
            Phase::Finishing => "writing the manifest",
        };
        bar.at(what, seen.done, seen.total);
        tokio::time::sleep(LOOK).await;
    }
}

fn warn_of_bad_pages(ui: &Ui, report: &Report) {
    let header = &report.header;
    for page in header.bad_pages.iter().take(NAMED) {
        ui.warn(format_args!("page {} of '{}' is damaged: its checksum is wrong", page.page, page.file));
    }
    if header.bad_page_count > 0 {
        ui.warn(format_args!(
            "{} damaged pages are in the backup as they were found; older backups may have them whole",
            header.bad_page_count
        ));
    }
}

fn summary(report: &Report) -> Summary {
    let header = &report.header;
    Summary {
        id: header.id.to_string(),
        cluster: header.cluster.clone(),
        member: header.member.clone(),
        system_identifier: header.system.to_string(),
        parent: header.parent.as_ref().map(ToString::to_string),
        started: header.start.time.to_string(),
        finished: header.stop.time.to_string(),
        start_lsn: header.start.lsn.to_string(),
        stop_lsn: header.stop.lsn.to_string(),
        timeline: header.stop.timeline.0,
        entries: header.entries,
        bytes: header.size,
        stored: header.stored,
        reused: report.reused,
        unread: report.unread,
        bad_page_count: header.bad_page_count,
        bad_pages: header.bad_pages.clone(),
        seconds: report.took.as_secs_f64(),
    }
}

fn told(error: BackupError) -> CommandError {
    let kind = match &error {
        BackupError::Refused(_) => ErrorKind::Refused,
        BackupError::WalMissing { .. } => ErrorKind::TimedOut,
        _ => ErrorKind::Failed,
    };
    let wal = matches!(error, BackupError::WalMissing { .. });
    let error = CommandError::new(kind, error);
    if wal { error.hint("what was stored is used again by the next backup; does 'archive_command' succeed?") } else { error }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::new(ErrorKind::Failed, error)
}
