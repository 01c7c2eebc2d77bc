use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::auth::{Right, guard};
use super::describe::{Describe, Description};
use super::envelope;
use super::error::ApiError;
use super::idempotency;
use crate::Controller;

/// What Heroku has and this platform has not, by the first names of the paths.
const ABSENT: &[(&[&str], &str)] = &[
    (&["enterprise-accounts", "enterprise-account-members"], "enterprise accounts"),
    (&["spaces", "peerings", "vpn-connections", "peering-info"], "private spaces"),
    (&["invoices", "invoice-address", "credits", "payments", "payment-method"], "invoices: nothing costs anything"),
    (&["identity-providers", "saml"], "single sign-on"),
    (&["test-runs", "test-nodes", "test-cases"], "continuous integration"),
    (&["docker-releases", "oci-images"], "a container registry"),
    (&["telemetry-drains"], "telemetry drains"),
    (&["pipeline-promotions"], "promotions yet: push the same commit to the next app"),
    (&["review-apps", "review-app-config", "app-setups"], "review apps yet"),
    (&["archives", "usage", "usage-reports"], "reports of usage"),
    (&["allowed-addon-services", "whitelisted-addon-services"], "lists of allowed add-ons"),
];

/// One line of the table of contents.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) right: Right,
    handler: MethodRouter<Arc<Controller>>,
    /// What its handler says of itself.
    pub(super) describe: fn(&mut Description<'_>),
}

macro_rules! methods {
    ($($name:ident $method:ident;)*) => {$(
        pub(super) fn $name<H, T, D>(path: &'static str, right: Right, handler: H) -> Route
        where
            H: Handler<T, Arc<Controller>> + Describe<D>,
            T: 'static,
        {
            Route {
                method: Method::$method,
                path,
                right,
                handler: on(MethodFilter::$method, handler),
                describe: H::describe,
            }
        }
    )*};
}

methods! {
    get GET;
    post POST;
    put PUT;
    patch PATCH;
    delete DELETE;
}

pub(super) fn router(controller: Arc<Controller>, table: Vec<Route>) -> Router {
    table
        .into_iter()
        .fold(Router::new(), |router, route| {
            let guard = axum::middleware::from_fn_with_state((Arc::clone(&controller), route.right), guard);
            let once = axum::middleware::from_fn_with_state(Arc::clone(&controller), idempotency::once);
            let handler = if route.method == Method::POST { route.handler.route_layer(once) } else { route.handler };
            router.route(route.path, handler.route_layer(guard))
        })
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&controller), envelope::wrap))
        .with_state(controller)
}

async fn unknown(request: Request) -> ApiError {
    let mut segments = request.uri().path().split('/').skip(1);
    let first = segments.next().unwrap_or_default();
    // What apps, accounts and teams have at Heroku.
    let second = segments.nth(1).unwrap_or_default();
    let known = ABSENT.iter().find(|(names, _)| names.contains(&first) || names.contains(&second));
    known.map_or_else(
        || ApiError::not_found("endpoint", "The requested API endpoint was not found."),
        |(_, what)| ApiError::not_implemented(what),
    )
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::method_not_allowed(format!("{} is not possible here.", request.method()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestController;
    use crate::testing::http::Server;

    async fn broken() -> ApiError {
        panic!("the secret cause")
    }

    #[tokio::test]
    async fn what_the_platform_has_not_is_said_by_name() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        for (method, path, name) in
            [("POST", "/pipeline-promotions", "promotions"), ("GET", "/teams/ours/spaces", "private spaces")]
        {
            let answer = ada.send(method, path, &[], serde_json::json!({})).await;
            assert_eq!((answer.status, answer.id()), (501, "not_implemented"), "{method} {path}");
            assert!(answer.text.contains(name), "{}", answer.text);
        }
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_tells_nothing() {
        let test = TestController::new().await;
        let routes = router(Arc::clone(&test.controller), vec![get("/broken", Right::Anyone, broken)]);
        let server = Server::serve(test, routes).await;
        let answer = server.stranger().get("/broken").await;
        assert_eq!((answer.status, answer.id()), (500, "internal_server_error"));
        assert!(!answer.text.contains("secret") && !answer.header("request-id").is_empty());
    }
}
