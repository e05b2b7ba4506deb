//! The options that say where a store is, for commands that work inside a cluster or without one.

use std::path::PathBuf;

use clap::Args;

use crate::storage::{StoreConfig, StoreUrl};

/// Where a store is.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Where the store is: file:///DIRECTORY, on a volume that outlives this machine, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "STORE", value_parser = parse_store)]
    pub store: StoreUrl,

    /// Where S3 answers, if that is not Amazon's
    #[arg(long, value_name = "URL")]
    pub store_endpoint: Option<String>,

    /// The bucket's region
    #[arg(long, value_name = "REGION")]
    pub store_region: Option<String>,

    /// File with the key to the bucket, in the form of ~/.aws/credentials
    #[arg(long, value_name = "FILE")]
    pub store_credentials: Option<PathBuf>,

    /// File with the key that backups and WAL are encrypted with (spilo backup key new FILE)
    #[arg(long, value_name = "FILE", value_parser = parse_file)]
    pub store_key: Option<PathBuf>,
}

impl StoreArgs {
    /// What they come to.
    pub fn config(&self) -> StoreConfig {
        StoreConfig {
            url: self.store.clone(),
            endpoint: self.store_endpoint.clone(),
            region: self.store_region.clone(),
            credentials_file: self.store_credentials.clone(),
            key_file: self.store_key.clone(),
        }
    }
}

/// A directory may be named by its path alone.
///
/// # Errors
/// When it is neither a directory nor the URL of a store.
pub fn parse_store(text: &str) -> Result<StoreUrl, String> {
    if text.is_empty() || text.contains(':') {
        return text.parse().map_err(|error| format!("{error}"));
    }
    std::path::absolute(text).map(StoreUrl::File).map_err(|error| error.to_string())
}

/// What is written into a configuration is found from every directory.
///
/// # Errors
/// When nothing was said, or there is no directory to find it from.
pub fn parse_file(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_may_be_named_by_its_path() {
        assert_eq!(parse_store("/srv/store"), Ok(StoreUrl::File("/srv/store".into())));
        assert_eq!(parse_store("file:///srv/store"), Ok(StoreUrl::File("/srv/store".into())));
        assert!(matches!(parse_store("store"), Ok(StoreUrl::File(path)) if path.is_absolute() && path.ends_with("store")));
        for text in ["", "s3:/backups", "https://s3.example.com/backups"] {
            assert!(parse_store(text).unwrap_err().contains(text), "{text}");
        }
    }
}
