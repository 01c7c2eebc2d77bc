//! The pages: one file each, with its handlers and the struct that its template is filled with.

pub(crate) mod access;
pub(crate) mod activity;
pub(crate) mod addon;
pub(crate) mod addons;
pub(crate) mod apps;
pub(crate) mod audit;
pub(crate) mod builds;
pub(crate) mod config;
pub(crate) mod domains;
pub(crate) mod front;
pub(crate) mod invitations;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod overview;
pub(crate) mod releases;
pub(crate) mod security;
pub(crate) mod settings;
pub(crate) mod setup;
pub(crate) mod sign_in;
pub(crate) mod teams;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
mod traffic;
pub(crate) mod two_factor;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use crate::error::PageError;
use crate::session::Visit;
use crate::{notice, respond, templates};

/// A page for whoever is signed in; it shows the notice that waited for it.
fn show(visit: &Visit, template: &str, content: &impl Serialize) -> Result<Response, PageError> {
    let mut response = respond::html(StatusCode::OK, templates::page(template, content)?);
    if visit.notice.is_some() {
        notice::clear(&mut response);
    }
    Ok(response)
}

/// The page with the form again, with what was filled in and what is wrong with it.
fn show_again(template: &str, content: &impl Serialize) -> Result<Response, PageError> {
    Ok(respond::html(StatusCode::UNPROCESSABLE_ENTITY, templates::page(template, content)?))
}
