//! Why a server does not start, where its data are not to blame: its parameters, its libraries, its port.

use std::{io::ErrorKind, net::TcpListener, time::Duration};

use super::{Installation, conf::ServerSettings};
use crate::sys::process::{ProcessError, Run};

/// What keeps a server from being started with these settings, in words; `None`: nothing that can be seen without its data. The files of
/// the configuration have to be in place, and no server may run.
pub async fn fault(installation: &Installation, settings: &ServerSettings) -> Option<String> {
    if let Some(why) = refused_parameters(installation, settings).await {
        return Some(why);
    }
    port_taken(settings)
}

/// Lets PostgreSQL read all its parameters and load its libraries, as far as it goes without opening the data.
async fn refused_parameters(installation: &Installation, settings: &ServerSettings) -> Option<String> {
    let run = Run::new(installation.program("postgres"))
        .arg("-D")
        .arg(installation.data_dir.to_string_lossy())
        .args(settings.command_line())
        .args(["-C", "shared_memory_size"])
        .limit(Duration::from_secs(5))
        .env("LC_MESSAGES", "C");
    match run.output().await {
        Err(ProcessError::Failed { output, .. }) => Some(format!("PostgreSQL refuses its configuration: {output}")),
        // What cannot be asked says nothing.
        _ => None,
    }
}

fn port_taken(settings: &ServerSettings) -> Option<String> {
    let addresses: Vec<&str> = match settings.listen_addresses.as_str() {
        "*" => vec!["0.0.0.0"],
        list => list.split(',').map(str::trim).filter(|address| !address.is_empty()).collect(),
    };
    let taken = |address: &&str| TcpListener::bind((*address, settings.port)).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
    addresses.into_iter().find(taken).map(|address| format!("another program listens on {address}, port {}", settings.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_has_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let settings = ServerSettings { listen_addresses: "127.0.0.1".into(), port, ..ServerSettings::default() };
        assert_eq!(port_taken(&settings).unwrap(), format!("another program listens on 127.0.0.1, port {port}"));
        drop(taken);
        assert_eq!(port_taken(&settings), None);
    }
}
