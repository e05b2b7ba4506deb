//! Text out of typed data: one context struct per template. Escaping rules live here.

pub mod agent_config;
pub mod dockerfile;
pub mod router_config;
