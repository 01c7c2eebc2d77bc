//! Certificates of apps' domains: how they reach routers, and how the platform gets them by itself, from an authority that speaks ACME
//! (RFC 8555).

mod ask;
mod authority;
mod feed;
mod hook;
mod issue;
mod on_demand;
mod plan;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use authority::way;
pub(crate) use on_demand::{OnDemand, routes};
pub(crate) use plan::pause;
pub(crate) use worker::work;
