//! What users write, checked once: raw text becomes a [`ClusterSpec`], in which values cannot be wrong.

mod cluster;
pub mod settings;

pub use cluster::{ClusterSpec, Durability, EtcdCount, HaTimings, NodeCount, PostgresVersion};
