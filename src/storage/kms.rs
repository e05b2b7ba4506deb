//! Keys that never leave AWS KMS: what is wrapped with one there is unwrapped only by asking there again.

mod failure;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_sdk_kms::{
    Client, Config,
    config::{BehaviorVersion, Region, StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig},
    operation::{decrypt::DecryptOutput, encrypt::EncryptOutput},
    primitives::Blob,
};

use self::failure::{Asked, Failure, Verb};
use super::{
    StoreError,
    attempts::{Patience, Pause},
    credentials,
};
use crate::model::KmsKey;

/// For how long after its first failure a single call asks again. Whoever has more time than that calls again.
const PATIENCE: Duration = Duration::from_secs(15);

/// For how long a connection, and an answer, may take.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// Why a key in KMS was of no use. Every message names the key.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// KMS did not answer, or not with what was asked for: the same may work later.
    #[error("'{key}': KMS is not available: {why}")]
    Unavailable {
        /// The key.
        key: String,
        /// What happened.
        why: String,
    },
    /// KMS refused, and will refuse again until somebody changes something.
    #[error("'{key}': KMS refused: {why}")]
    Refused {
        /// The key.
        key: String,
        /// Why, and what to do.
        why: String,
    },
    /// This key has not wrapped that, or not for this purpose.
    #[error("'{key}': KMS says that this was not wrapped with the key, or for something else ({why})")]
    NotWrappedSo {
        /// The key.
        key: String,
        /// What it said.
        why: String,
    },
}

/// What a secret is wrapped for: names and values, which are no secrets and show in the logs of KMS. It is unwrapped for the same only.
pub type Purpose<'p> = &'p [(&'p str, &'p str)];

/// A secret that was wrapped.
pub struct Wrapped {
    /// What it is now.
    pub content: Vec<u8>,
    /// The whole name of the key, also where it was asked for by another one.
    pub arn: String,
}

/// A key in KMS, and the credentials to ask for it with. Nothing is kept between two calls: a file with credentials is read when they are needed.
#[derive(Clone)]
pub struct Kms {
    key: KmsKey,
    credentials_file: Option<PathBuf>,
}

impl Kms {
    /// The key, asked for with the credentials of this file, or with what the SDK finds where it always looks. Nothing is asked yet.
    pub fn new(key: KmsKey, credentials_file: Option<&Path>) -> Kms {
        Kms { key, credentials_file: credentials_file.map(Path::to_owned) }
    }

    /// Which key it is.
    pub fn key(&self) -> &KmsKey {
        &self.key
    }

    /// Wraps a secret of at most 4096 bytes.
    ///
    /// # Errors
    /// When KMS does not answer, or refuses.
    pub async fn wrap(&self, secret: &[u8], purpose: Purpose<'_>) -> Result<Wrapped, KmsError> {
        let send = async |client: &Client| -> Result<EncryptOutput, Failure> {
            let mut request = client.encrypt().key_id(self.key.arn()).plaintext(Blob::new(secret));
            for (name, value) in purpose {
                request = request.encryption_context(*name, *value);
            }
            request.send().await.map_err(|error| self.asked(Verb::Encrypt).failure(&error))
        };
        let answer = self.ask(send).await?;
        match (answer.ciphertext_blob, answer.key_id) {
            (Some(content), Some(arn)) => Ok(Wrapped { content: content.into_inner(), arn }),
            _ => Err(self.incomplete()),
        }
    }

    /// Unwraps what was wrapped for this purpose.
    ///
    /// # Errors
    /// When KMS does not answer, or refuses, and when it was not wrapped so.
    pub async fn unwrap(&self, wrapped: &[u8], purpose: Purpose<'_>) -> Result<Vec<u8>, KmsError> {
        let send = async |client: &Client| -> Result<DecryptOutput, Failure> {
            let mut request = client.decrypt().key_id(self.key.arn()).ciphertext_blob(Blob::new(wrapped));
            for (name, value) in purpose {
                request = request.encryption_context(*name, *value);
            }
            request.send().await.map_err(|error| self.asked(Verb::Decrypt).failure(&error))
        };
        let answer = self.ask(send).await?;
        answer.plaintext.map(Blob::into_inner).ok_or_else(|| self.incomplete())
    }

    /// Sends a request, as often as it takes to get an answer that means something.
    async fn ask<T>(&self, send: impl AsyncFn(&Client) -> Result<T, Failure>) -> Result<T, KmsError> {
        let mut patience = Patience::new(self.key.arn().to_owned(), PATIENCE);
        loop {
            let answer = match self.client().await {
                Ok(client) => tokio::time::timeout(ANSWER, send(&client)).await,
                Err(why) => Ok(Err(Failure::Refused(why))),
            };
            let late = || Err(Failure::Again { pause: Pause::Short, why: format!("no answer within {} s", ANSWER.as_secs()) });
            match answer.unwrap_or_else(|_| late()) {
                Ok(done) => return Ok(done),
                Err(Failure::Again { pause, why }) => patience.wait(pause, why).await.map_err(of_the_key)?,
                Err(Failure::Refused(why)) => return Err(KmsError::Refused { key: self.key.arn().to_owned(), why }),
                Err(Failure::NotWrappedSo(why)) => return Err(KmsError::NotWrappedSo { key: self.key.arn().to_owned(), why }),
            }
        }
    }

    /// A client with the credentials that there are now: others may have been put there since the last attempt.
    async fn client(&self) -> Result<Client, String> {
        let region = Region::new(self.key.region().to_owned());
        let provider = match &self.credentials_file {
            None => credentials::found(Some(&region)).await,
            Some(file) => {
                let read = std::fs::metadata(file).map(drop);
                read.map_err(|error| format!("the credentials in '{}' cannot be read: {error}", file.display()))?;
                credentials::from_file(file, Some(&region))
            }
        };
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region)
            .credentials_provider(provider)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = self.key.endpoint() {
            config = config.endpoint_url(endpoint);
        }
        Ok(Client::from_conf(config.build()))
    }

    fn asked(&self, verb: Verb) -> Asked {
        let credentials = credentials::origin(self.credentials_file.as_deref());
        Asked { verb, key: self.key.arn().to_owned(), server: self.key.endpoint().unwrap_or("KMS").to_owned(), credentials }
    }

    fn incomplete(&self) -> KmsError {
        let why = "its answer has not what was asked for; does it speak the language of AWS KMS?".to_owned();
        KmsError::Unavailable { key: self.key.arn().to_owned(), why }
    }
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kms({})", self.key)
    }
}

/// Patience speaks of stores.
fn of_the_key(error: StoreError) -> KmsError {
    match error {
        StoreError::Unavailable { object: key, why } => KmsError::Unavailable { key, why },
        StoreError::Refused { object: key, why } => KmsError::Refused { key, why },
    }
}
