//! How an instance is, as far as it can be seen from outside: nothing is needed in its image.

mod attempt;
pub(crate) mod command;
mod evidence;
mod memory;
mod vitals;

pub(crate) use attempt::Patient;
pub(crate) use evidence::LastFailure;
pub(crate) use memory::Memory;
pub(crate) use vitals::Vitals;
