//! The store in a bucket: AWS S3, or whatever speaks its language and has conditional writes.

mod access;
mod connections;
mod failure;
mod init;
mod list;
mod read;
mod verb;

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{primitives::DateTime, types::ChecksumAlgorithm};
use bytes::Bytes;
use jiff::Timestamp;

use self::{
    access::{Access, Session},
    failure::{Answer, Failure, Place},
    init::Mark,
    read::{Span, WHOLE},
    verb::Verb,
};
use super::{
    Claim, Object, ObjectName, ObjectStore, StoreConfig, StoreError,
    attempts::{self, Patience, Pause},
};

/// For how long after its first failure a single call asks again, unless it is told otherwise. Whoever has more time than that calls again.
const PATIENCE: Duration = Duration::from_secs(15);

/// For how long an answer to a small request may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The slowest line that an object goes over, in bytes per second.
const SLOWEST: u64 = 256 << 10;

/// The CRC-32C of an object, with it: servers that offer no checksum of their own keep this one, and what arrives is held against it.
const CHECKSUM: &str = "spilo-crc32c";

/// A bucket, or what lies below a prefix in it. Clones share connections and credentials.
#[derive(Clone)]
pub struct S3Store {
    access: Arc<Access>,
    patience: Duration,
    /// Of the store that was opened; there is none while it is made.
    mark: Option<Arc<Mark>>,
}

impl S3Store {
    /// Makes a store of the bucket's empty prefix, which may be a store already. Both ways it is tried out whether of several writers one
    /// wins there.
    ///
    /// # Errors
    /// When the bucket cannot be reached or used, when something else lies at this place, and when writes there have more than one winner.
    pub async fn init(config: &StoreConfig) -> Result<S3Store, StoreError> {
        let store = S3Store::connect(config).await?;
        init::make(&store).await.map_err(|error| store.place().about(error))?;
        store.opened().await
    }

    /// The store at this place. Asks for one small object.
    ///
    /// # Errors
    /// When there is none, and when the bucket cannot be reached or used.
    pub async fn open(config: &StoreConfig) -> Result<S3Store, StoreError> {
        S3Store::connect(config).await?.opened().await
    }

    /// The same store, whose calls ask again for so long. With zero, each asks once.
    pub fn with_patience(&self, patience: Duration) -> S3Store {
        S3Store { patience, ..self.clone() }
    }

    async fn connect(config: &StoreConfig) -> Result<S3Store, StoreError> {
        Ok(S3Store { access: Arc::new(Access::new(config).await?), patience: PATIENCE, mark: None })
    }

    async fn opened(self) -> Result<S3Store, StoreError> {
        let mark = init::check(&self).await.map_err(|error| self.place().about(error))?;
        Ok(S3Store { mark: Some(Arc::new(mark)), ..self })
    }

    /// Nothing was found: that is true only as long as the bucket was not exchanged for another one.
    async fn check_nothing(&self, object: &ObjectName) -> Result<(), StoreError> {
        let Some(mark) = &self.mark else { return Ok(()) };
        init::check_nothing(self, mark).await.map_err(|error| error.about(object.to_string()))
    }

    fn place(&self) -> &Place {
        self.access.place()
    }

    fn patience_for(&self, object: &ObjectName) -> Patience {
        Patience::new(object.to_string(), self.patience)
    }

    /// Sends a request, as often as it takes to get an answer that means something.
    async fn ask<T>(
        &self,
        patience: &mut Patience,
        limit: Duration,
        send: impl AsyncFn(&Session) -> Result<T, Failure>,
    ) -> Result<Result<T, Answer>, StoreError> {
        let mut renewed = false;
        loop {
            let session = self.access.session();
            let answer = tokio::time::timeout(limit, send(&session)).await;
            let late = || Err(Failure::Again { pause: Pause::Short, why: format!("no answer within {} s", limit.as_secs()) });
            match answer.unwrap_or_else(|_| late()) {
                Ok(done) => return Ok(Ok(done)),
                Err(Failure::Answer(answer)) => return Ok(Err(answer)),
                Err(Failure::Refused(why)) => return Err(patience.refused(why)),
                Err(Failure::Again { pause, why }) => patience.wait(pause, why).await?,
                Err(Failure::Credentials { why, .. }) if !renewed => {
                    renewed = true;
                    self.access.renew(&session).await;
                    patience.note(why);
                }
                // Somebody renews them: that of every other process that uses them goes on too.
                Err(Failure::Credentials { why, expired: true }) => {
                    patience.wait(Pause::Long, why).await?;
                    self.access.renew(&session).await;
                }
                Err(Failure::Credentials { why, expired: false }) => return Err(patience.refused(why)),
            }
        }
    }

    async fn read_span(&self, name: &ObjectName, span: Span) -> Result<Option<Bytes>, StoreError> {
        let found = read::read(self, name, span).await?;
        if found.is_none() {
            self.check_nothing(name).await?;
        }
        Ok(found)
    }

    async fn facts(&self, name: &ObjectName) -> Result<Option<(u64, Option<DateTime>)>, StoreError> {
        let found = read::facts(self, name).await?;
        if found.is_none() {
            self.check_nothing(name).await?;
        }
        Ok(found)
    }

    async fn put(&self, name: &ObjectName, content: Bytes, only_if_absent: bool) -> Result<Result<(), Answer>, StoreError> {
        let limit = ANSWER + Duration::from_secs(content.len() as u64 / SLOWEST);
        let checksum = format!("{:08x}", crc32c::crc32c(&content));
        let send = async |session: &Session| {
            let mut request = session.client.put_object().bucket(&self.place().bucket).key(self.place().key(name));
            request = request.metadata(CHECKSUM, &checksum).body(content.clone().into());
            if only_if_absent {
                request = request.if_none_match("*");
            }
            if self.place().is_aws {
                request = request.checksum_algorithm(ChecksumAlgorithm::Crc32C);
            }
            // TLS protects the content; without it the signature does, which costs a digest of all of it.
            let request = request.customize();
            let request = if self.place().is_encrypted { request.disable_payload_signing() } else { request };
            request.send().await.map(drop).map_err(|error| self.failure(Verb::Put, &error))
        };
        let about = |error: StoreError| error.about(name.to_string());
        if let Some(mark) = &self.mark {
            init::check_before_write(self, mark).await.map_err(about)?;
        }
        let mut patience = self.patience_for(name);
        let answer = self.ask(&mut patience, limit, send).await?;
        if let Some(mark) = &self.mark {
            init::check_after_write(self, mark, patience.had_trouble()).await.map_err(about)?;
        }
        Ok(answer)
    }
}

impl ObjectStore for S3Store {
    async fn create(&self, name: &ObjectName, content: Bytes) -> Result<Claim, StoreError> {
        match self.put(name, content, true).await? {
            Ok(()) => Ok(Claim::Won),
            // Perhaps by an attempt of ours whose answer got lost.
            Err(Answer::Precondition) => Ok(Claim::Taken),
            Err(answer) => Err(answer.unexpected(name)),
        }
    }

    async fn replace(&self, name: &ObjectName, content: Bytes) -> Result<(), StoreError> {
        self.put(name, content, false).await?.map_err(|answer| answer.unexpected(name))
    }

    async fn read(&self, name: &ObjectName) -> Result<Option<Bytes>, StoreError> {
        self.read_span(name, WHOLE).await
    }

    async fn read_range(&self, name: &ObjectName, offset: u64, length: u64) -> Result<Option<Bytes>, StoreError> {
        // HTTP knows no empty range.
        if length == 0 {
            return Ok(self.size(name).await?.map(|_| Bytes::new()));
        }
        self.read_span(name, Span { from: offset, length: Some(length) }).await
    }

    async fn size(&self, name: &ObjectName) -> Result<Option<u64>, StoreError> {
        Ok(self.facts(name).await?.map(|(size, _)| size))
    }

    async fn written(&self, name: &ObjectName) -> Result<Option<Timestamp>, StoreError> {
        let Some((_, time)) = self.facts(name).await? else { return Ok(None) };
        let time = time.and_then(|time| Timestamp::new(time.secs(), 0).ok());
        time.map(Some).ok_or_else(|| StoreError::Unavailable {
            object: name.to_string(),
            why: "the server does not say when it was written".to_owned(),
        })
    }

    async fn list(&self, folder: &ObjectName) -> Result<Vec<Object>, StoreError> {
        let found = list::below(self, folder).await?;
        if found.is_empty() {
            self.check_nothing(folder).await?;
        }
        Ok(found)
    }

    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let send = async |session: &Session| {
            let request = session.client.delete_object().bucket(&self.place().bucket).key(self.place().key(name));
            request.send().await.map(drop).map_err(|error| self.failure(Verb::Delete, &error))
        };
        match self.ask(&mut self.patience_for(name), ANSWER, send).await? {
            // Most servers say that it went well; some that there was nothing.
            Ok(()) | Err(Answer::NoSuchKey) => Ok(()),
            Err(answer) => Err(answer.unexpected(name)),
        }
    }
}
