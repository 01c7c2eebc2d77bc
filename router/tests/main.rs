//! A router between real clients and real instances.

mod faults;
mod pages;
mod passing;
mod swaps;
mod world;
