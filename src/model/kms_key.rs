//! Which key of a key management service is meant: its name there, and who is asked.

use std::{fmt, net::IpAddr, str::FromStr};

/// What stands between the key's name and where its service answers, if that is not Amazon's own address.
const ENDPOINT: &str = " endpoint=";

/// A key of AWS KMS, or of whatever speaks its language. It is no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsKey {
    arn: String,
    endpoint: Option<String>,
}

/// The text does not name a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKmsKey {
    /// Not the name of a key.
    #[error(
        "'{0}' does not name a key of AWS KMS (expected arn:aws:kms:REGION:ACCOUNT:key/ID, with the account's 12 digits, or …:alias/NAME instead \
         of …:key/ID)"
    )]
    Arn(String),
    /// Not where a service answers.
    #[error("the endpoint of the KMS is no address without user and password (expected https://HOST or https://HOST:PORT)")]
    Endpoint,
    /// Where everybody on the way would learn the keys.
    #[error(
        "keys of archives would go to '{0}' for everybody on the way to read: only https:// will do, or an address of this machine itself"
    )]
    InTheClear(String),
}

impl KmsKey {
    /// The key of this name.
    ///
    /// # Errors
    /// When that is no name of a key, and when the endpoint will not do.
    pub fn new(arn: &str, endpoint: Option<&str>) -> Result<KmsKey, InvalidKmsKey> {
        if !is_arn(arn) {
            return Err(InvalidKmsKey::Arn(arn.to_owned()));
        }
        endpoint.map_or(Ok(()), check_endpoint)?;
        Ok(KmsKey { arn: arn.to_owned(), endpoint: endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned()) })
    }

    /// Its whole name.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The region that it is in.
    pub fn region(&self) -> &str {
        self.arn.split(':').nth(3).unwrap_or_default()
    }

    /// Who is asked, if not the service of that region.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The name can be given to another key.
    pub fn is_alias(&self) -> bool {
        self.arn.contains(":alias/")
    }
}

fn is_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, service, region, account, resource] = parts[..] else { return false };
    let word = |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let named = match resource.split_once('/') {
        Some(("key", id)) => word(id, "-"),
        Some(("alias", name)) => word(name, "-_/"),
        _ => false,
    };
    let of_amazon = partition == "aws" || partition.strip_prefix("aws-").is_some_and(|rest| word(rest, "-"));
    let account = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
    arn == "arn" && of_amazon && service == "kms" && word(region, "-") && account && named
}

fn check_endpoint(text: &str) -> Result<(), InvalidKmsKey> {
    let (scheme, rest) = text.split_once("://").ok_or(InvalidKmsKey::Endpoint)?;
    let (host, _path) = rest.split_once('/').unwrap_or((rest, ""));
    let odd = |c: char| c.is_whitespace() || c.is_control() || "@?#'\"\\".contains(c);
    if rest.contains(odd) || host.is_empty() || host.starts_with(':') {
        return Err(InvalidKmsKey::Endpoint);
    }
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _port)) => address,
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    let is_here = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => Ok(()),
        "http" if is_here => Ok(()),
        "http" => Err(InvalidKmsKey::InTheClear(text.to_owned())),
        _ => Err(InvalidKmsKey::Endpoint),
    }
}

impl FromStr for KmsKey {
    type Err = InvalidKmsKey;

    fn from_str(text: &str) -> Result<KmsKey, InvalidKmsKey> {
        match text.split_once(ENDPOINT) {
            Some((arn, endpoint)) => KmsKey::new(arn.trim(), Some(endpoint.trim())),
            None => KmsKey::new(text.trim(), None),
        }
    }
}

impl fmt::Display for KmsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)?;
        self.endpoint.iter().try_for_each(|endpoint| write!(f, "{ENDPOINT}{endpoint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn a_key_reads_back_as_it_is_written() {
        for text in [
            KEY,
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
            "arn:aws:kms:eu-central-1:111122223333:alias/backups/orders_1",
            &format!("{KEY} endpoint=https://kms.example.com:8443"),
            &format!("{KEY} endpoint=http://127.0.0.1:4566"),
            &format!("{KEY} endpoint=http://[::1]:4566"),
        ] {
            assert_eq!(text.parse::<KmsKey>().unwrap().to_string(), text);
        }
        let key: KmsKey = KEY.parse().unwrap();
        assert_eq!((key.arn(), key.region(), key.endpoint(), key.is_alias()), (KEY, "eu-central-1", None, false));
        assert!("arn:aws:kms:eu-central-1:111122223333:alias/orders".parse::<KmsKey>().unwrap().is_alias());
    }

    #[test]
    fn what_is_no_key_is_told_with_what_was_expected() {
        for text in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/orders",
            "arn:aws:s3:eu-central-1:111122223333:key/1",
            "arn:aws:kms:eu-central-1:1111:key/1",
            "arn:aws:kms::111122223333:key/1",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:grant/1",
            "arn:aws:kms:eu-central-1:111122223333:key/1 2",
            "arn:aws:kms:eu/../1:111122223333:key/1",
        ] {
            let error = text.parse::<KmsKey>().expect_err(text).to_string();
            assert!(error.contains(text) && error.contains("arn:aws:kms:REGION"), "{error}");
        }
    }

    #[test]
    fn an_endpoint_is_one_that_nobody_listens_to() {
        let with = |endpoint: &str| KmsKey::new(KEY, Some(endpoint)).unwrap_err();
        for endpoint in
            ["", "kms.example.com", "ftp://x", "https://", "https://:80", "https://ann:secret@kms", "https://kms?x", "https://k ms"]
        {
            let error = with(endpoint);
            assert!(error == InvalidKmsKey::Endpoint && !error.to_string().contains("secret"), "{endpoint}");
        }
        for endpoint in ["http://kms.example.com", "http://10.0.0.1:4566", "http://localhost.example.com", "http://127.0.0.1.example.com/"]
        {
            assert_eq!(with(endpoint), InvalidKmsKey::InTheClear(endpoint.to_owned()));
        }
    }
}
