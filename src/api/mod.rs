//! What agents and routers answer, as types that both sides share.

pub mod report;
