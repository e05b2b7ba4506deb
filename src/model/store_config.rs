//! Everything needed to reach a store.

use std::path::PathBuf;

use super::StoreUrl;

/// Everything needed to reach a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// S3 only: the server to ask, such as `https://minio.example:9000`. Without it, AWS.
    pub endpoint: Option<String>,
    /// S3 only: the region of the bucket. Without it, what the SDK finds in environment and profile, or `us-east-1` where an endpoint is named.
    pub region: Option<String>,
    /// S3 only: a file in the form of `~/.aws/credentials`, whose profile `default` is used. Without it, the SDK looks where it always does.
    pub credentials_file: Option<PathBuf>,
    /// A file with the key that backups and WAL are encrypted with. Without it, they are not.
    pub key_file: Option<PathBuf>,
}

impl StoreConfig {
    /// The store there, with nothing else said about it.
    pub fn new(url: StoreUrl) -> StoreConfig {
        StoreConfig { url, endpoint: None, region: None, credentials_file: None, key_file: None }
    }

    /// The options that tell a command of ours the same, one word each: a value may begin like an option.
    pub fn options(&self) -> Vec<String> {
        let [credentials, key] = [&self.credentials_file, &self.key_file].map(|file| Some(file.as_ref()?.to_string_lossy().into_owned()));
        let more = [
            ("--store-endpoint", &self.endpoint),
            ("--store-region", &self.region),
            ("--store-credentials", &credentials),
            ("--store-key", &key),
        ];
        let more = more.into_iter().filter_map(|(option, value)| Some(format!("{option}={}", value.as_ref()?)));
        [format!("--store={}", self.url)].into_iter().chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_said_is_told() {
        assert_eq!(StoreConfig::new("file:///archive".parse().unwrap()).options(), ["--store=file:///archive"]);
        let all = StoreConfig {
            endpoint: Some("http://minio:9000".to_owned()),
            region: Some("eu".to_owned()),
            credentials_file: Some("/etc/key".into()),
            key_file: Some("/etc/orders.key".into()),
            ..StoreConfig::new("s3://backups/prod".parse().unwrap())
        };
        let told = "--store=s3://backups/prod --store-endpoint=http://minio:9000 --store-region=eu --store-credentials=/etc/key";
        assert_eq!(all.options().join(" "), format!("{told} --store-key=/etc/orders.key"));
    }
}
