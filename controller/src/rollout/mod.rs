//! From what should run to what runs: releases replace each other, formations grow and shrink, deleted apps vanish.
//!
//! One loop ([`worker`]) takes no argument, is woken by changes of either side and by a timer, and does what the pure
//! [`plan`] says next. It is the only path: a controller that was killed carries on by it.

mod aftercare;
mod changed;
mod container;
mod failure;
mod health;
mod known;
mod names;
mod phase;
mod plan;
mod reach;
mod room;
mod stall;
mod steps;
#[cfg(test)]
mod tests;
mod traffic;
mod worker;
mod workload;

pub use changed::Changed;
pub(crate) use container::Task;
pub use failure::Failure;
pub(crate) use names::unconfirmed;
pub(crate) use plan::size_of;
pub use traffic::{Tally, Traffic};
pub(crate) use worker::Rollout;
