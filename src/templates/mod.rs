//! Text out of typed data: one context struct per template. Escaping rules live here.

pub mod haproxy;
