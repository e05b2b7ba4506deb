//! Where what is sent breaks off.

use std::{io, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::sleep;

/// Where a body ends too early, and how.
pub enum Cut {
    Hangup(usize),
    Stall(usize),
}

/// The content, until it is cut.
pub fn body(content: Bytes, cut: Option<Cut>) -> Body {
    let cut = cut.filter(|(Cut::Hangup(bytes) | Cut::Stall(bytes))| *bytes < content.len());
    let sent = match cut {
        None => return content.into(),
        Some(Cut::Hangup(bytes) | Cut::Stall(bytes)) => content.slice(..bytes),
    };
    Body::from_stream(stream::unfold((Some(sent).filter(|sent| !sent.is_empty()), cut), |(sent, cut)| async move {
        if let Some(sent) = sent {
            return Some((Ok(sent), (None, cut)));
        }
        match cut {
            None => None,
            Some(Cut::Hangup(_)) => {
                // What was sent before is out by then.
                sleep(Duration::from_millis(5)).await;
                Some((Err(io::Error::other("as the test wants it")), (None, None)))
            }
            Some(Cut::Stall(_)) => std::future::pending().await,
        }
    }))
}
