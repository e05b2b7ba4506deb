//! The connection to the engine, and what its errors mean.

use std::{error::Error as _, io};

use bollard::{Docker, errors::Error};

use crate::provisioner::error::ProvisionError;

/// Where the engine is looked for when `DOCKER_HOST` does not say.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// The engine's address: `DOCKER_HOST`, or the usual socket.
pub(super) fn address() -> String {
    std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned())
}

/// Connects and agrees on a version of the API, so that engines older than this program work.
pub(super) async fn connect(address: &str) -> Result<Docker, ProvisionError> {
    let docker = Docker::connect_with_host(address).map_err(|error| unreachable(address, &error))?;
    docker.negotiate_version().await.map_err(|error| unreachable(address, &error))
}

/// The error for an engine that does not answer, or not to us.
fn unreachable(address: &str, error: &Error) -> ProvisionError {
    if io_kind(error) == Some(io::ErrorKind::PermissionDenied) {
        return ProvisionError::EngineForbidden { address: address.to_owned() };
    }
    ProvisionError::EngineUnreachable { address: address.to_owned(), reason: sentence(error) }
}

/// Turns an engine's error into ours; `doing` completes "the Docker engine could not …".
pub(super) fn failed(doing: impl Into<String>) -> impl FnOnce(Error) -> ProvisionError {
    move |error| match io_kind(&error) {
        Some(io::ErrorKind::PermissionDenied) => ProvisionError::EngineForbidden { address: address() },
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            ProvisionError::EngineUnreachable { address: address(), reason: sentence(&error) }
        }
        _ => ProvisionError::Engine { doing: doing.into(), reason: sentence(&error) },
    }
}

/// The engine's status code, if it answered.
fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Whether the engine says that there is no such thing.
pub(super) fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

/// Whether the engine says that something else is in the way: the name exists, a removal is under way, the thing is in use.
pub(super) fn is_conflict(error: &Error) -> bool {
    status(error) == Some(409)
}

/// Success also when the thing is not there.
pub(super) fn or_missing<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the engine said, in one line and without the wrapping of the client library.
pub(super) fn sentence(error: &Error) -> String {
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => innermost(other),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The last link of an error's chain, which is the one that says what happened.
fn innermost(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    text
}

fn io_kind(error: &Error) -> Option<io::ErrorKind> {
    match error {
        Error::SocketNotFoundError(_) => return Some(io::ErrorKind::NotFound),
        Error::IOError { err } => return Some(err.kind()),
        _ => {}
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn what_the_engine_said_is_one_line() {
        assert_eq!(sentence(&answer(500, "driver failed:\n port is taken\n")), "driver failed: port is taken");
    }

    #[test]
    fn a_missing_thing_is_no_error_where_it_should_be_gone() {
        assert!(or_missing::<()>(Err(answer(404, "no such container"))).unwrap().is_none());
        assert!(or_missing::<()>(Err(answer(409, "in use"))).is_err());
    }

    #[test]
    fn a_closed_socket_is_told_from_one_that_is_not_there() {
        let denied = Error::IOError { err: io::Error::from(io::ErrorKind::PermissionDenied) };
        assert!(matches!(unreachable("unix:///x", &denied), ProvisionError::EngineForbidden { .. }));
        let gone = Error::SocketNotFoundError("/x".into());
        assert!(matches!(unreachable("unix:///x", &gone), ProvisionError::EngineUnreachable { .. }));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named_with_its_address() {
        let error = connect("unix:///nowhere/docker.sock").await.expect_err("nothing listens there");
        assert!(error.to_string().contains("unix:///nowhere/docker.sock"), "{error}");
        assert!(error.hint().unwrap().contains("start docker"));
    }
}
