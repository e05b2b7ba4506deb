//! spilo: the shortest way from nothing to a PostgreSQL cluster that nobody has to get up at night for.
//!
//! Each module is a room of `docs/ARCHITECTURE.md`, which also says what each may use.

pub mod agent;
pub mod api;
pub mod backup;
pub mod cli;
pub mod dcs;
pub mod keeper;
pub mod model;
pub mod postgres;
pub mod provisioner;
pub mod routing;
pub mod spec;
pub mod storage;
pub mod sys;
pub mod telemetry;
pub mod templates;
