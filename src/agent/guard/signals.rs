//! Signals as bytes in pipes, so that they can be waited for together with everything else.

use std::{io::Read, os::unix::net::UnixStream};

use signal_hook::{consts, low_level::pipe};

/// A pipe from which the numbers of received signals are read, one byte each.
pub(super) struct Signals {
    pub(super) child: UnixStream,
    pub(super) terminate: UnixStream,
    pub(super) reload: UnixStream,
}

/// Begins to receive the signals that the guard acts on.
pub(super) fn listen() -> std::io::Result<Signals> {
    let to_pipe = |signals: &[i32]| -> std::io::Result<UnixStream> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        for signal in signals {
            pipe::register(*signal, write.try_clone()?)?;
        }
        Ok(read)
    };
    Ok(Signals {
        child: to_pipe(&[consts::SIGCHLD])?,
        terminate: to_pipe(&[consts::SIGTERM, consts::SIGINT])?,
        reload: to_pipe(&[consts::SIGHUP])?,
    })
}

/// Empties a signal's pipe; returns how many came.
pub(super) fn drain(mut stream: &UnixStream) -> usize {
    let mut buffer = [0_u8; 64];
    let mut count = 0;
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        count += read;
    }
    count
}
