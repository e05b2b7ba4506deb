//! Running commands inside containers, and reading their logs.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    pin::Pin,
    time::Duration,
};

use bollard::{
    Docker,
    container::LogOutput,
    exec::{ResizeExecOptions, StartExecOptions, StartExecResults},
    models::ExecConfig,
    query_parameters::LogsOptionsBuilder,
};
use futures_util::{Stream, StreamExt as _};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::engine::failed;
use crate::provisioner::{
    error::ProvisionError,
    platform::{ExecOutput, LogLine, LogWish},
};

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// A command that was started inside a container.
struct Running {
    id: String,
    output: Output,
    input: Input,
}

/// Runs a command and collects what it prints.
pub(super) async fn collect(
    docker: &Docker,
    container: &str,
    command: &[String],
    input: Option<&[u8]>,
) -> Result<ExecOutput, ProvisionError> {
    let mut running = begin(docker, container, command, false, input.is_some()).await?;
    let doing = || format!("run '{}' in container '{container}'", command.join(" "));
    if let Some(input) = input {
        let written = async { running.input.write_all(input).await.and(running.input.shutdown().await) }.await;
        written.map_err(|source| ProvisionError::Local { doing: doing(), source })?;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(piece) = running.output.next().await {
        match piece.map_err(failed(doing()))? {
            LogOutput::StdErr { message } => stderr.extend_from_slice(&message),
            other => stdout.extend_from_slice(other.as_ref()),
        }
    }
    Ok(ExecOutput { exit_code: exit_code(docker, &running.id).await?, stdout, stderr })
}

/// Runs a command on this process's own terminal, or on its pipes when it has none; returns the exit code.
pub(super) async fn attached(docker: &Docker, container: &str, command: &[String]) -> Result<i64, ProvisionError> {
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let Running { id, mut output, input } = begin(docker, container, command, terminal, true).await?;
    let _raw = if terminal { Some(RawTerminal::enter()?) } else { None };
    let mut sending = std::pin::pin!(async { tokio::join!(forward(input), resize(docker, &id, terminal)) });
    let mut sent = false;
    loop {
        tokio::select! {
            piece = output.next() => match piece {
                Some(piece) => print(&piece.map_err(failed("read what the command printed"))?)?,
                None => break,
            },
            // Input may end long before output does.
            _ = &mut sending, if !sent => sent = true,
        }
    }
    exit_code(docker, &id).await
}

async fn begin(docker: &Docker, container: &str, command: &[String], tty: bool, stdin: bool) -> Result<Running, ProvisionError> {
    let doing = || format!("run '{}' in container '{container}'", command.join(" "));
    let config = ExecConfig {
        attach_stdin: Some(stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(tty),
        env: tty.then(|| std::env::var("TERM").ok().map(|term| format!("TERM={term}"))).flatten().map(|term| vec![term]),
        cmd: Some(command.to_vec()),
        ..Default::default()
    };
    let created = docker.create_exec(container, config).await.map_err(failed(doing()))?;
    let options = StartExecOptions { tty, ..Default::default() };
    match docker.start_exec(&created.id, Some(options)).await.map_err(failed(doing()))? {
        StartExecResults::Attached { output, input } => Ok(Running { id: created.id, output, input }),
        StartExecResults::Detached => {
            Err(ProvisionError::Engine { doing: doing(), reason: "it was started without its output".to_owned() })
        }
    }
}

/// The exit code. The output ends a moment before the engine has noticed that the command has.
async fn exit_code(docker: &Docker, id: &str) -> Result<i64, ProvisionError> {
    for _ in 0..100 {
        let state = docker.inspect_exec(id).await.map_err(failed("ask how a command ended"))?;
        if let (Some(false), Some(code)) = (state.running, state.exit_code) {
            return Ok(code);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(ProvisionError::Engine { doing: "ask how a command ended".to_owned(), reason: "its output ended and it still runs".to_owned() })
}

/// Sends our standard input. A thread of its own reads it: such a read cannot be cancelled, and the process must be able to end without it.
async fn forward(mut input: Input) {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    while let Some(piece) = receiver.recv().await {
        // The command may have ended without reading everything; its exit code says whether that was right.
        if input.write_all(&piece).await.and(input.flush().await).is_err() {
            return;
        }
    }
    if let Err(error) = input.shutdown().await {
        tracing::debug!(%error, "the command did not wait for the end of its input");
    }
}

/// Tells the command how large our terminal is, now and whenever that changes.
async fn resize(docker: &Docker, id: &str, terminal: bool) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    if !terminal {
        return;
    }
    loop {
        if let Ok(size) = termios::tcgetwinsize(std::io::stdout()) {
            let options = ResizeExecOptions { height: size.ws_row, width: size.ws_col };
            if let Err(error) = docker.resize_exec(id, options).await {
                tracing::debug!(%error, "the command's terminal keeps its size");
            }
        }
        changed.recv().await;
    }
}

fn print(piece: &LogOutput) -> Result<(), ProvisionError> {
    let written = match piece {
        LogOutput::StdErr { message } => std::io::stderr().write_all(message),
        other => std::io::stdout().write_all(other.as_ref()).and_then(|()| std::io::stdout().flush()),
    };
    written.map_err(|source| ProvisionError::Local { doing: "print what the command printed".to_owned(), source })
}

/// The terminal hands every key on as it is, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<RawTerminal, ProvisionError> {
        let local = |error: rustix::io::Errno| ProvisionError::Local { doing: "set up the terminal".to_owned(), source: error.into() };
        let before = termios::tcgetattr(std::io::stdin()).map_err(local)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(local)?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Hands a container's log on line by line.
pub(super) async fn logs(docker: &Docker, container: &str, wish: LogWish, sink: &mut dyn FnMut(LogLine)) -> Result<(), ProvisionError> {
    let tail = wish.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let options =
        LogsOptionsBuilder::default().follow(wish.follow).stdout(true).stderr(true).timestamps(wish.timestamps).tail(&tail).build();
    let mut output = std::pin::pin!(docker.logs(container, Some(options)));
    while let Some(piece) = output.next().await {
        let piece = piece.map_err(failed(format!("read the log of container '{container}'")))?;
        let is_error = matches!(piece, LogOutput::StdErr { .. });
        for line in String::from_utf8_lossy(piece.as_ref()).lines() {
            sink(LogLine { is_error, text: line.to_owned() });
        }
    }
    Ok(())
}
