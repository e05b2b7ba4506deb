//! How the bucket is reached, and with which credentials.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use aws_config::default_provider::region::DefaultRegionChain;
use aws_sdk_s3::{
    Client, Config,
    config::{
        BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedCredentialsProvider,
        StalledStreamProtectionConfig, retry::RetryConfig, timeout::TimeoutConfig,
    },
};
use reqwest::Url;

use super::{connections::Connections, failure::Place};
use crate::storage::{StoreConfig, StoreError, StoreUrl, credentials};

/// For how long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Where a server of one's own does not care about regions.
const ANY_REGION: &str = "us-east-1";

/// The bucket, and the client that asks it as long as its credentials are good.
pub struct Access {
    place: Place,
    /// Where the credentials are, when somebody said it.
    file: Option<PathBuf>,
    /// All of the client's set-up but the credentials.
    config: Config,
    connections: Connections,
    current: Mutex<Session>,
}

/// A client with credentials that were read at one time.
#[derive(Clone)]
pub struct Session {
    /// The client.
    pub client: Client,
    /// What the file with the credentials was when they were read.
    version: Option<FileVersion>,
    number: u64,
}

/// Tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

impl Access {
    /// The access that is configured. Nothing is asked of the bucket.
    ///
    /// # Errors
    /// When something is missing in the configuration.
    pub async fn new(config: &StoreConfig) -> Result<Access, StoreError> {
        let refused = |why| StoreError::Refused { object: config.url.to_string(), why };
        let StoreUrl::S3 { bucket, prefix } = &config.url else { return Err(refused("this is not in S3".to_owned())) };
        let region = region(config).await.map_err(refused)?;
        let server = config.endpoint.as_deref().map(server).transpose().map_err(refused)?;
        let host = server.as_ref().and_then(Url::host_str);
        let place = Place {
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            region: region.clone(),
            server: config.endpoint.clone().unwrap_or_else(|| "S3".to_owned()),
            credentials: credentials::origin(config.credentials_file.as_deref()),
            is_aws: host.is_none_or(|host| host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")),
            is_encrypted: server.as_ref().is_none_or(|server| server.scheme() == "https"),
        };
        let file = config.credentials_file.clone();
        let connections = Connections::default();
        let sdk_config = sdk_config(config, &place, connections.clone());
        let session = open_session(&sdk_config, file.as_deref(), 0).await.map_err(refused)?;
        Ok(Access { place, file, config: sdk_config, connections, current: Mutex::new(session) })
    }

    /// Where the store is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How many connections there have been: over a new one somebody else may answer.
    pub fn connections(&self) -> u64 {
        self.connections.count()
    }

    /// The client to ask with: another one as soon as the file with the credentials is another.
    pub fn session(&self) -> Session {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file
            && let Ok(version) = FileVersion::of(file)
            && current.version != Some(version)
        {
            *current = self.reopened(file, Some(version), current.number + 1);
        }
        current.clone()
    }

    /// Looks for new credentials, unless somebody did since that session was opened.
    pub async fn renew(&self, old: &Session) {
        if self.session().number != old.number {
            return;
        }
        // A file that is not there just now may be back at the next attempt.
        let Ok(new) = open_session(&self.config, self.file.as_deref(), old.number + 1).await else { return };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.number == old.number {
            *current = new;
        }
    }

    fn reopened(&self, file: &Path, version: Option<FileVersion>, number: u64) -> Session {
        Session { client: client(&self.config, credentials::from_file(file, self.config.region())), version, number }
    }
}

impl FileVersion {
    fn of(file: &Path) -> std::io::Result<FileVersion> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(file)?;
        Ok(FileVersion { modified: found.modified()?, size: found.len(), inode: found.ino() })
    }
}

async fn region(config: &StoreConfig) -> Result<String, String> {
    if let Some(region) = &config.region {
        return Ok(region.clone());
    }
    if config.endpoint.is_some() {
        return Ok(ANY_REGION.to_owned());
    }
    let found = DefaultRegionChain::builder().build().region().await;
    found.map(|region| region.to_string()).ok_or_else(|| "in which region is the bucket? hint: set the store's region".to_owned())
}

/// The address of a server. What is refused is not repeated where it may hold a password.
fn server(endpoint: &str) -> Result<Url, String> {
    let hint = "hint: https://HOST or https://HOST:PORT";
    if endpoint.contains('@') {
        return Err(format!("the endpoint has a user or a password in it; {hint}, and the credentials in a file"));
    }
    let url = Url::parse(endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| format!("'{endpoint}' is no endpoint; {hint}"))
}

fn sdk_config(config: &StoreConfig, place: &Place, connections: Connections) -> Config {
    let mut sdk = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(place.region.clone()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).build())
        // What stalls is cut off where it is read.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .interceptor(connections)
        // A wrong clock is told, not made up for: more than archiving depends on it.
        .disable_clock_skew_correction(true);
    if let Some(endpoint) = &config.endpoint {
        sdk = sdk.endpoint_url(endpoint).force_path_style(true);
    }
    if !place.is_aws {
        // Headers and trailers that many servers do not know.
        sdk = sdk
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    sdk.build()
}

async fn open_session(config: &Config, file: Option<&Path>, number: u64) -> Result<Session, String> {
    let Some(file) = file else {
        return Ok(Session { client: client(config, credentials::found(config.region()).await), version: None, number });
    };
    let version = FileVersion::of(file).map_err(|error| format!("the credentials in '{}' cannot be read: {error}", file.display()))?;
    Ok(Session { client: client(config, credentials::from_file(file, config.region())), version: Some(version), number })
}

fn client(config: &Config, credentials: SharedCredentialsProvider) -> Client {
    // With a cache of its own: what another session found out is not asked for again.
    let config = config.to_builder().credentials_provider(credentials).identity_cache(IdentityCache::lazy().build());
    Client::from_conf(config.build())
}
