//! Which connections there have been: over a new one somebody else may answer.

use std::{
    collections::HashMap,
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents, interceptors::AfterDeserializationInterceptorContextRef};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;

/// A connection over which nothing was answered for so long is closed by then; its address may come again.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Counts the connections over which something was answered. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Our ends of them, and when something was last answered.
    used: HashMap<Option<SocketAddr>, Instant>,
    count: u64,
}

impl Connections {
    /// How many there have been so far.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    fn answered(&self, over: Option<SocketAddr>, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known.used.insert(over, now);
        if last.is_none_or(|last| now.duration_since(last) > FORGOTTEN) {
            known.count += 1;
            known.used.retain(|_, last| now.duration_since(*last) <= FORGOTTEN);
        }
    }
}

impl Intercept for Connections {
    fn name(&self) -> &'static str {
        "Connections"
    }

    fn read_after_deserialization(
        &self,
        _: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let connection = config.load::<CaptureSmithyConnection>().and_then(CaptureSmithyConnection::get);
        self.answered(connection.and_then(|connection| connection.local_addr()), Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_once_and_again_when_its_address_comes_back() {
        let (connections, begun) = (Connections::default(), Instant::now());
        let mut counted = Vec::new();
        for (port, second) in [(1, 0), (1, 100), (2, 150), (1, 200), (2, 260), (1, 321)] {
            connections.answered(Some(SocketAddr::from(([127, 0, 0, 1], port))), begun + Duration::from_secs(second));
            counted.push(connections.count());
        }
        assert_eq!(counted, [1, 1, 2, 2, 2, 3]);
    }
}
