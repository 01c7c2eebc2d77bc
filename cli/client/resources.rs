//! The API's resources, as far as commands print them (Heroku Platform API v3). What is not printed is not read,
//! so a newer platform with more fields works with an older program.

mod addons;
mod apps;
mod people;
mod releases;

pub(crate) use addons::*;
pub(crate) use apps::*;
pub(crate) use people::*;
pub(crate) use releases::*;
