//! The loss of the WAL receiver, as an event: whoever is asked should not say for another `loop_wait` that this standby streams, and the
//! time after which a standby that does not stream finds out why begins now.
//!
//! A receiver that loses its primary ends, whatever the reason. The kernel tells of that; nobody has to ask PostgreSQL for it.

use std::rc::Rc;

use tokio::{sync::Notify, task::JoinHandle};

use crate::sys::process_end;

/// The watch over the receiver that was last seen streaming.
#[derive(Default)]
pub(super) struct ReceiverWatch {
    watched: Option<(i32, JoinHandle<()>)>,
}

impl ReceiverWatch {
    /// Watches this process and no other. `wake` is told of its end, once. A number that has come to belong to another process since it
    /// was read wakes the loop for nothing, or not at all: then the next turn sees what has happened, as without a watch.
    pub(super) fn look(&mut self, receiver: Option<i32>, wake: &Rc<Notify>) {
        if self.watched.as_ref().map(|(pid, _)| *pid) == receiver {
            return;
        }
        self.leave();
        let Some(pid) = receiver else { return };
        let wake = wake.clone();
        let end = tokio::task::spawn_local(async move {
            if process_end::of(pid).await.is_ok() {
                wake.notify_one();
            }
        });
        self.watched = Some((pid, end));
    }

    fn leave(&mut self) {
        if let Some((_, watch)) = self.watched.take() {
            watch.abort();
        }
    }
}

impl Drop for ReceiverWatch {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use tokio::task::LocalSet;

    use super::*;

    async fn woken(wake: &Notify, patience: Duration) -> bool {
        tokio::time::timeout(patience, wake.notified()).await.is_ok()
    }

    #[tokio::test]
    async fn the_end_of_the_process_wakes_at_once_and_only_once() {
        let watching = async {
            let (wake, mut watch) = (Rc::new(Notify::new()), ReceiverWatch::default());
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            for _ in 0..3 {
                watch.look(Some(pid), &wake);
            }
            assert!(!woken(&wake, Duration::from_millis(50)).await, "it runs");
            child.kill().unwrap();
            assert!(woken(&wake, Duration::from_secs(10)).await);
            watch.look(Some(pid), &wake);
            assert!(!woken(&wake, Duration::from_millis(50)).await, "that was said");
            child.wait().unwrap();
            watch.look(None, &wake);
            watch.look(Some(pid), &wake);
            assert!(woken(&wake, Duration::from_secs(10)).await, "it ended between the look and the watch");
            watch.look(Some(pid), &wake);
            assert!(!woken(&wake, Duration::from_millis(50)).await);
        };
        LocalSet::new().run_until(watching).await;
    }
}
