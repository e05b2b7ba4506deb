//! The base image. Where a registry answers it is pulled; where none does it is made from Debian's packages and imported under the same name.

use std::{collections::VecDeque, io, path::Path, process::Stdio};

use bollard::{Docker, body_try_stream, query_parameters::CreateImageOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use super::{
    engine::failed,
    images::{is_present, pull},
};
use crate::provisioner::{
    error::ProvisionError,
    image::{BASE_IMAGE, ImageError},
    progress::{Remark, Say},
};

/// The release that the base is made of.
const RELEASE: &str = "trixie";

/// What the slim images leave out; the same holds for packages that are installed later. Licences stay.
const LEFT_OUT: [&str; 5] = [
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
];

/// How many lines of a failure are shown.
const LAST_LINES: usize = 15;

/// The size of the pieces in which the archive goes to the engine.
const PIECE: usize = 256 * 1024;

/// The base image is here.
pub(super) async fn ensure(docker: &Docker, say: Say<'_>) -> Result<(), ProvisionError> {
    if is_present(docker, BASE_IMAGE).await? {
        return Ok(());
    }
    say(Remark::Passing(&format!("pulling base image '{BASE_IMAGE}'")));
    let Err(reason) = pull(docker, BASE_IMAGE, say).await else { return Ok(()) };
    say(Remark::Lasting(&format!("no registry answers ({reason}): making '{BASE_IMAGE}' from Debian's packages")));
    let directory = tempfile::tempdir().map_err(local("make a temporary directory"))?;
    let archive = directory.path().join("base.tar");
    bootstrap(&archive, &reason, say).await?;
    say(Remark::Passing(&format!("importing base image '{BASE_IMAGE}'")));
    import(docker, &archive).await
}

/// Runs mmdebstrap. It writes a file rather than into the engine, because the engine would take half an archive for a whole one.
async fn bootstrap(archive: &Path, pull: &str, say: Say<'_>) -> Result<(), ProvisionError> {
    let no_base = |reason: &str| ImageError::NoBase { pull: pull.to_owned(), reason: reason.to_owned() };
    if !cfg!(target_os = "linux") {
        return Err(no_base("this is not Linux").into());
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--format=tar", "--aptopt=Acquire::Languages \"none\""]);
    command.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
    command.arg(RELEASE).arg(archive).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => no_base("mmdebstrap is not installed").into(),
        _ => ProvisionError::Local { doing: "run mmdebstrap".to_owned(), source: error },
    })?;
    let mut last = VecDeque::new();
    let output = child.stderr.take().expect("its standard error is piped");
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await.map_err(local("read what mmdebstrap says"))? {
        say(Remark::Passing(&line));
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    let status = child.wait().await.map_err(local("wait for mmdebstrap"))?;
    if status.success() { Ok(()) } else { Err(ImageError::BaseFailed { lines: last.into() }.into()) }
}

async fn import(docker: &Docker, archive: &Path) -> Result<(), ProvisionError> {
    let (repository, tag) = BASE_IMAGE.split_once(':').expect("the base image has a tag");
    let file = File::open(archive).await.map_err(local("open the base image's archive"))?;
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .message("made from Debian's packages by spilo")
        .changes(vec!["CMD [\"bash\"]".to_owned()])
        .build();
    let mut answers = std::pin::pin!(docker.create_image(Some(options), Some(body_try_stream(pieces(file))), None));
    while let Some(answer) = answers.next().await {
        answer.map_err(failed(format!("import image '{BASE_IMAGE}'")))?;
    }
    Ok(())
}

fn pieces(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok((read > 0).then(|| (Bytes::from(piece), file)))
    })
}

fn local(doing: &str) -> impl FnOnce(io::Error) -> ProvisionError {
    let doing = doing.to_owned();
    move |source| ProvisionError::Local { doing, source }
}
