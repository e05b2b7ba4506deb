//! Extending a lease of etcd over a stream that stays open: an agent does it every second, and a stream for each time costs more than the
//! question.

use etcd_client::{Client, Error, LeaseKeepAliveStream, LeaseKeeper};

/// An open stream for one lease. After an error, or an answer that was not waited for, it has to be dropped: the next answer on it could
/// be that to an earlier question.
pub struct LeaseStream {
    lease: i64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl LeaseStream {
    /// Opens one, which already extends the lease once.
    ///
    /// # Errors
    /// Also when the lease has ended.
    pub async fn open(client: &mut Client, lease: i64) -> Result<LeaseStream, Error> {
        let (keeper, answers) = client.lease_keep_alive(lease).await?;
        Ok(LeaseStream { lease, keeper, answers })
    }

    /// Extends `lease` over `kept`, where that stream is for this lease and still works; otherwise over a new one.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn extend(client: &mut Client, kept: Option<LeaseStream>, lease: i64) -> Result<LeaseStream, Error> {
        if let Some(mut stream) = kept.filter(|stream| stream.lease == lease)
            && stream.is_extended().await
        {
            return Ok(stream);
        }
        // What ended the old stream may be that the lease has ended: the new one tells.
        LeaseStream::open(client, lease).await
    }

    async fn is_extended(&mut self) -> bool {
        if self.keeper.keep_alive().await.is_err() {
            return false;
        }
        matches!(self.answers.message().await, Ok(Some(answer)) if answer.id() == self.lease && answer.ttl() > 0)
    }
}
