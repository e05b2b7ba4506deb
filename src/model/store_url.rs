//! Where a store is, as users write it: `file:///srv/store` or `s3://bucket/prefix`.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where a store is. What S3 needs beyond it (endpoint, region, credentials) is told apart from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory of this machine.
    File(PathBuf),
    /// A bucket, and what every object's name in it begins with (empty, or parts between slashes, without one at either end).
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix.
        prefix: String,
    },
}

/// The text does not say where a store is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' does not say where a store is (expected file:///DIRECTORY or s3://BUCKET/PREFIX)")]
pub struct InvalidStoreUrl(String);

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<StoreUrl, InvalidStoreUrl> {
        let invalid = || InvalidStoreUrl(text.to_owned());
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') { Ok(StoreUrl::File(path.into())) } else { Err(invalid()) };
        }
        let rest = text.strip_prefix("s3://").ok_or_else(invalid)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let names_a_bucket = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte));
        if !names_a_bucket || (!prefix.is_empty() && prefix.parse::<super::ObjectName>().is_err()) {
            return Err(invalid());
        }
        Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::File(path) => write!(f, "file://{}", path.display()),
            StoreUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_reads_back_as_it_is_written() {
        for text in ["file:///srv/store", "s3://backups", "s3://backups/prod/pg"] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        assert_eq!("s3://backups/prod/".parse::<StoreUrl>().unwrap().to_string(), "s3://backups/prod");
    }

    #[test]
    fn nothing_else_is_a_location() {
        for text in ["", "/srv/store", "file://srv", "s3://", "s3://UP/x", "s3://backups/../x", "s3://backups//x", "https://x/y"] {
            let error = text.parse::<StoreUrl>().expect_err(text);
            assert!(error.to_string().contains(text) && error.to_string().contains("expected"));
        }
    }
}
