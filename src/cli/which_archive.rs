//! Whose archive a command works with: that of a cluster on this machine, whose node runs the command, or a part of a store that is reached from
//! here.

use std::path::PathBuf;

use super::{cluster_store::ClusterStoreArgs, store_arguments::StoreArgs, store_arguments::parse_store};
use crate::model::{ClusterName, StoreUrl, SystemId};

const DIRECTLY: &str = "Without a cluster on this machine";

/// A cluster of this machine, or a part of a store.
#[derive(Debug, Clone, clap::Args)]
pub struct WhichArchive {
    /// The cluster
    #[arg(required_unless_present = "store", conflicts_with = "store")]
    pub name: Option<ClusterName>,

    /// The store: file:///DIRECTORY or s3://BUCKET/PREFIX
    #[arg(help_heading = DIRECTLY, long, value_name = "STORE", value_parser = parse_store, requires = "cluster")]
    pub store: Option<StoreUrl>,

    /// Where S3 answers, if that is not Amazon's
    #[arg(help_heading = DIRECTLY, long, value_name = "URL", requires = "store")]
    pub store_endpoint: Option<String>,

    /// The bucket's region
    #[arg(help_heading = DIRECTLY, long, value_name = "REGION", requires = "store")]
    pub store_region: Option<String>,

    /// File with the key to the bucket, in the form of ~/.aws/credentials
    #[arg(help_heading = DIRECTLY, long, value_name = "FILE", requires = "store")]
    pub store_credentials: Option<PathBuf>,

    /// Whose backups and WAL
    #[arg(help_heading = DIRECTLY, long, value_name = "NAME", requires = "store")]
    pub cluster: Option<ClusterName>,

    /// Which database cluster of this name, by its system identifier
    #[arg(help_heading = DIRECTLY, long, value_name = "NUMBER", requires = "store")]
    pub system: Option<SystemId>,
}

/// What it comes to.
#[derive(Debug, Clone)]
pub enum Whose {
    /// A cluster of this machine.
    OfCluster(ClusterName),
    /// A part of a store.
    InStore(Box<ClusterStoreArgs>),
}

impl WhichArchive {
    /// What it comes to. The argument parser has seen to it that one of both was given.
    pub fn whose(&self) -> Option<Whose> {
        let place = StoreArgs {
            store: match &self.store {
                Some(store) => store.clone(),
                None => return self.name.clone().map(Whose::OfCluster),
            },
            store_endpoint: self.store_endpoint.clone(),
            store_region: self.store_region.clone(),
            store_credentials: self.store_credentials.clone(),
        };
        Some(Whose::InStore(Box::new(ClusterStoreArgs { place, cluster: self.cluster.clone()? })))
    }
}
