//! Process types that scale by themselves: what they are measured by is looked at again and again, and the pure [`plan`] says what follows.
//!
//! What is decided is committed, with the numbers behind it, before it is said; the rollout carries it out like any other scaling.

mod plan;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use worker::work;
