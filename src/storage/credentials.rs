//! With which credentials AWS is asked: those of a file that was named, or whatever the SDK finds where it always looks.

use std::path::Path;

use aws_config::{
    default_provider::credentials::DefaultCredentialsChain,
    profile::{ProfileFileCredentialsProvider, profile_file},
    provider_config::ProviderConfig,
};
use aws_sdk_s3::config::{Region, SharedCredentialsProvider};

/// Where they come from, as a message says it after their name.
pub fn origin(file: Option<&Path>) -> String {
    match file {
        Some(file) => format!("in '{}'", file.display()),
        None => "from the environment, a profile or this machine's role".to_owned(),
    }
}

/// What the environment, the profiles of this user, or the role of this machine offer.
pub async fn found(region: Option<&Region>) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(DefaultCredentialsChain::builder().region(region.cloned()).build().await)
}

#[allow(deprecated, reason = "the new name of the type is in a crate that is not for users")]
/// What the profile `default` of the file offers, whatever the environment says.
pub fn from_file(file: &Path, region: Option<&Region>) -> SharedCredentialsProvider {
    let files = profile_file::ProfileFiles::builder().with_file(profile_file::ProfileFileKind::Credentials, file).build();
    let provider = ProfileFileCredentialsProvider::builder()
        .configure(&ProviderConfig::without_region().with_region(region.cloned()))
        .profile_files(files)
        .profile_name("default");
    SharedCredentialsProvider::new(provider.build())
}
