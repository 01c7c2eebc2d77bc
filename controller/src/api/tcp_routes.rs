//! Ports of the platform's whose connections apps take as they are. Heroku has no word for it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Access;
use super::error::ApiError;
use super::input::{Body, Count, Text};
use super::output::{Created, Id, List, Named, Time};
use crate::store::{App, TcpRoute};
use crate::tcp_routes::{TcpRequest, idle_words};
use crate::{Controller, Error};

/// A port to get.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateTcpRoute {
    /// Whose instances take the connections; `web` if missing.
    process_type: Option<Text>,
    /// One of the platform's; the first that is free if missing.
    port: Option<Count>,
    /// Only connections over TLS that want this host name, a domain of the app.
    host: Option<Text>,
    /// `passthrough`, which it is if missing, or `terminate`: routers end TLS with the certificate of the host.
    tls: Option<Text>,
    /// Of instances; that of their `PORT` if missing.
    target_port: Option<Count>,
    /// How long a connection may be silent, such as `1h`, which it is if missing.
    idle_timeout: Option<Text>,
    /// `v1` or `v2`: instances are told by a header of the PROXY protocol who comes.
    proxy_protocol: Option<Text>,
}

/// A port whose connections an app takes as they are.
#[derive(Serialize, ToSchema)]
#[schema(as = TcpRoute)]
pub(super) struct TcpRouteAnswer {
    app: Named,
    created_at: Time,
    /// Only connections over TLS that want this host name; null: those that nobody else takes.
    host: Option<String>,
    id: Id,
    /// How long a connection may be silent.
    idle_timeout: String,
    port: u16,
    /// Whose instances take the connections.
    process_type: String,
    /// The version of the PROXY protocol by which instances are told who comes; null if they are not.
    proxy_protocol: Option<&'static str>,
    /// Of instances; null is that of their `PORT`.
    target_port: Option<u16>,
    /// `passthrough` or `terminate`: who ends TLS; null: nobody looks whether it is TLS.
    tls: Option<&'static str>,
    /// Where clients come to.
    url: String,
}

/// `GET /apps/{app}/tcp-routes`
pub(super) async fn list(
    State(controller): State<Arc<Controller>>,
    access: Access,
) -> Result<List<TcpRouteAnswer>, ApiError> {
    let routes = controller.tcp_routes(&access.app).await?;
    Ok(List(routes.iter().map(|route| answer(&controller, &access.app, route)).collect()))
}

/// `POST /apps/{app}/tcp-routes`
pub(super) async fn create(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Body(wish): Body<CreateTcpRoute>,
) -> Result<Created<TcpRouteAnswer>, ApiError> {
    let request = TcpRequest {
        process_type: wish.process_type.map(|name| name.0),
        port: port("port", wish.port)?,
        host: wish.host.map(|host| host.0),
        tls: wish.tls.map(|tls| tls.0),
        target_port: port("target_port", wish.target_port)?,
        idle_timeout: wish.idle_timeout.map(|text| text.0),
        proxy_protocol: wish.proxy_protocol.map(|text| text.0),
    };
    let route = controller.add_tcp_route(&access.app, &access.actor, &request).await?;
    Ok(Created(answer(&controller, &access.app, &route)))
}

/// `GET /apps/{app}/tcp-routes/{route}`: by its id, its port, or its host and port.
pub(super) async fn info(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<TcpRouteAnswer>, ApiError> {
    let route = controller.find_tcp_route(&access.app, &reference).await?;
    Ok(Json(answer(&controller, &access.app, &route)))
}

/// `DELETE /apps/{app}/tcp-routes/{route}`: by its id, its port, or its host and port.
pub(super) async fn delete(
    State(controller): State<Arc<Controller>>,
    access: Access,
    Path((_, reference)): Path<(String, String)>,
) -> Result<Json<TcpRouteAnswer>, ApiError> {
    let route = controller.find_tcp_route(&access.app, &reference).await?;
    controller.remove_tcp_route(&access.app, &access.actor, &route).await?;
    Ok(Json(answer(&controller, &access.app, &route)))
}

fn port(field: &str, number: Option<Count>) -> Result<Option<u16>, Error> {
    let wrong = |number| Error::Invalid(format!("{field} must be a port from 1 to 65535, not {number}"));
    let port = |Count(number)| u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| wrong(number));
    number.map(port).transpose()
}

fn answer(controller: &Controller, app: &App, route: &TcpRoute) -> TcpRouteAnswer {
    TcpRouteAnswer {
        app: Named::from(app),
        created_at: route.created_at.into(),
        host: route.host.as_ref().map(ToString::to_string),
        id: Id::of(&route.id),
        idle_timeout: idle_words(route.idle),
        port: route.port,
        process_type: route.process_type.to_string(),
        proxy_protocol: route.introduce.map(model::Introduction::as_str),
        target_port: route.target_port,
        tls: match (route.terminate, &route.host) {
            (true, _) => Some("terminate"),
            (false, host) => host.as_ref().map(|_| "passthrough"),
        },
        url: controller.tcp_url(route),
    }
}
