//! Ports of the platform's whose connections apps take as they are: for what speaks something else than HTTP.

use std::time::Duration;

use model::routes::Place;
use model::{Hostname, Introduction, ProcessType, tcp};

use crate::formation::{RELEASE_PHASE, WEB, process_type};
use crate::store::{App, Change, NewRelease, NewTcpRoute, NoPort, TcpRoute};
use crate::{Actor, Controller, Error};

/// Most routes of one app.
const MOST: usize = 20;

/// What somebody wants of a port; `None` is as usual.
#[derive(Debug, Default)]
pub struct TcpRequest {
    /// Whose instances take the connections.
    pub process_type: Option<String>,
    /// One of the platform's ports.
    pub port: Option<u16>,
    /// Only connections over TLS that want this host name.
    pub host: Option<String>,
    /// `passthrough`, or `terminate`: routers end TLS.
    pub tls: Option<String>,
    /// Of instances.
    pub target_port: Option<u16>,
    /// How long a connection may be silent, such as `1h`.
    pub idle_timeout: Option<String>,
    /// The version of the PROXY protocol that instances are told by who comes.
    pub proxy_protocol: Option<String>,
}

impl Controller {
    /// The ports whose connections an app takes.
    pub async fn tcp_routes(&self, app: &App) -> Result<Vec<TcpRoute>, Error> {
        Ok(self.store.tcp_routes(app.id).await?)
    }

    /// Gives an app a port.
    pub async fn add_tcp_route(&self, app: &App, actor: &Actor, request: &TcpRequest) -> Result<TcpRoute, Error> {
        let ports = &self.settings.tcp_ports;
        let Some((first, last)) = ports.ends() else {
            return Err(Error::Invalid(
                "This platform gives no ports to apps. Its operator can let it: setting tcp_ports, such as 3000-3099."
                    .to_owned(),
            ));
        };
        if let Some(port) = request.port.filter(|port| !ports.contains(*port)) {
            return Err(Error::Invalid(format!(
                "port {port} is none that this platform gives to apps: choose one from {first} to {last}, or none for the first that is free"
            )));
        }
        let new = self.wanted_route(app, request).await?;
        let before = self.store.tcp_routes(app.id).await?;
        if before.len() >= MOST {
            return Err(Error::Invalid(format!("An app can have at most {MOST} TCP routes")));
        }
        self.check_held(app, actor).await?;
        let route = match self.store.insert_tcp_route(app, &new, ports, &self.stamp(actor)).await? {
            Ok(route) => route,
            Err(why) => return Err(Error::Conflict(refusal(why, (app, &new), (first, last)))),
        };
        self.note(app, actor, &format!("Add TCP port {}", route.port));
        self.announce(app.id).await;
        let had = listens_at(&before, &route.process_type);
        let has = listens_at(&self.store.tcp_routes(app.id).await?, &route.process_type);
        if route.process_type.as_str() != WEB && had != has && self.store.was_deployed(app.id).await? {
            // What runs has no such port yet.
            let description = format!("Add TCP port {} to {}", route.port, route.process_type);
            let (user, change) = (actor.user.id, Change::Anew);
            let release = NewRelease { app: app.id, user, description: &description, reason: None, change };
            self.store.create_release(release, &self.stamp(actor)).await?;
            self.changed.app(app.id);
        }
        Ok(route)
    }

    /// The route of an app that `reference`, an id, a port, or a host and a port, means.
    pub async fn find_tcp_route(&self, app: &App, reference: &str) -> Result<TcpRoute, Error> {
        let names = |route: &TcpRoute| {
            let port = route.port.to_string();
            let full = route.host.as_ref().map_or_else(|| port.clone(), |host| format!("{host}:{port}"));
            [route.id.clone(), full, port]
        };
        let all = self.tcp_routes(app).await?;
        // Of several with one port, that without a host is meant by the port alone.
        let exact = all.iter().find(|route| names(route)[..2].iter().any(|name| name == reference));
        let mut meant = all.iter().filter(|route| names(route).iter().any(|name| name == reference));
        match (exact, meant.next(), meant.next()) {
            (Some(route), ..) | (None, Some(route), None) => Ok(route.clone()),
            (None, Some(one), Some(_)) => Err(Error::Ambiguous(format!(
                "{} has port {reference} for several hosts: say which, such as {}",
                app.name,
                names(one)[1]
            ))),
            (None, None, _) => Err(Error::NotFound("TCP route")),
        }
    }

    /// Takes a port away from an app. Connections that are open go on.
    pub async fn remove_tcp_route(&self, app: &App, actor: &Actor, route: &TcpRoute) -> Result<(), Error> {
        self.check_held(app, actor).await?;
        self.store.delete_tcp_route(route, &self.stamp(actor)).await?;
        self.note(app, actor, &format!("Remove TCP port {}", route.port));
        self.announce(app.id).await;
        Ok(())
    }

    /// Where clients come to.
    pub fn tcp_url(&self, route: &TcpRoute) -> String {
        let host = route.host.as_ref().unwrap_or(&self.settings.domain);
        let scheme = if route.host.is_some() || route.terminate { "tls" } else { "tcp" };
        format!("{scheme}://{host}:{}", route.port)
    }

    /// Refuses to take away a host that has a TCP port.
    pub(crate) async fn check_has_no_port(&self, app: &App, place: &Place) -> Result<(), Error> {
        let routes = self.store.tcp_routes(app.id).await?;
        let route = routes.iter().find(|route| route.host.as_ref().is_some_and(|host| covers(place, host)));
        let Some(route) = route else { return Ok(()) };
        let host = route.host.as_ref().map(ToString::to_string).unwrap_or_default();
        Err(Error::Conflict(format!(
            "{place} has TCP port {port} of {name}: remove that first (platform tcp:remove {port} --host {host} -a {name})",
            port = route.port,
            name = app.name
        )))
    }

    /// A host by which clients may come: one of the app's domains, or below one.
    async fn check_tcp_host(&self, app: &App, text: &str) -> Result<Hostname, Error> {
        let host: Hostname = text.trim_end_matches('.').to_ascii_lowercase().parse()?;
        if self.domains(app).await?.iter().any(|domain| covers(&domain.place, &host)) {
            return Ok(host);
        }
        Err(Error::Invalid(format!(
            "host {host} is no domain of {name}: add it first (platform domains:add {host} -a {name})",
            name = app.name
        )))
    }

    async fn wanted_route(&self, app: &App, request: &TcpRequest) -> Result<NewTcpRoute, Error> {
        let process_type = process_type(request.process_type.as_deref().unwrap_or(WEB))?;
        if process_type.as_str() == RELEASE_PHASE {
            return Err(Error::Invalid(
                "The release process takes no connections: it runs before its release does".to_owned(),
            ));
        }
        if self.store.was_deployed(app.id).await? {
            let all = self.formation(app).await?;
            if !all.iter().any(|one| one.row.process_type == process_type) {
                let names: Vec<_> = all.iter().map(|one| one.row.process_type.as_str()).collect();
                return Err(Error::Invalid(format!(
                    "type {process_type} is none of {}: it has {}",
                    app.name,
                    names.join(", ")
                )));
            }
        }
        let idle = match &request.idle_timeout {
            None => tcp::USUAL_IDLE,
            Some(text) => tcp::idle(text).map_err(|rule| Error::Invalid(format!("idle_timeout {rule}")))?,
        };
        let introduce = request.proxy_protocol.as_deref().map(str::parse::<Introduction>).transpose();
        let introduce = introduce.map_err(|rule| Error::Invalid(format!("proxy_protocol {rule}")))?;
        if request.target_port == Some(0) {
            return Err(Error::Invalid("target_port must be a port from 1 to 65535".to_owned()));
        }
        let host = match &request.host {
            Some(text) => Some(self.check_tcp_host(app, text).await?),
            None => None,
        };
        let terminate = match request.tls.as_deref() {
            None => false,
            Some("passthrough") if host.is_some() => false,
            Some("passthrough") => {
                return Err(Error::Invalid(
                    "tls passthrough needs a host: without one nobody looks whether it is TLS".to_owned(),
                ));
            }
            Some("terminate") if self.settings.tls_port.is_some() => true,
            Some("terminate") => {
                return Err(Error::Invalid(
                    "tls terminate needs the platform's https entrance, which is shut (setting tls_listen)".to_owned(),
                ));
            }
            Some(other) => return Err(Error::Invalid(format!("tls must be passthrough or terminate, not {other:?}"))),
        };
        let (port, target_port) = (request.port, request.target_port);
        Ok(NewTcpRoute { process_type, port, host, terminate, target_port, idle, introduce })
    }
}

/// Whether clients of a host come by this domain.
fn covers(place: &Place, host: &Hostname) -> bool {
    let is_below = |parent: &str| host.as_str().strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    place.path.is_none() && (place.host == *host || place.host.as_str().strip_prefix("*.").is_some_and(is_below))
}

fn refusal(why: NoPort, (app, new): (&App, &NewTcpRoute), (first, last): (u16, u16)) -> String {
    let port = new.port.unwrap_or_default();
    let host = new.host.as_ref().map(|host: &Hostname| format!(" for {host}")).unwrap_or_default();
    match why {
        NoPort::Full => format!(
            "Every port from {first} to {last} is taken. The platform's operator can widen the range: setting tcp_ports."
        ),
        NoPort::Own => {
            format!("{} has port {port}{host} already: `platform tcp -a {}` lists its ports.", app.name, app.name)
        }
        NoPort::Taken => format!(
            "Port {port}{host} is taken by another app. Choose another one, or none for the first that is free."
        ),
    }
}

/// At which port instances of a process type take connections, beside what its health checks say; none if no route leads there.
pub(crate) fn listens_at(routes: &[TcpRoute], process_type: &ProcessType) -> Option<Listens> {
    let mut own = routes.iter().filter(|route| route.process_type == *process_type).map(|route| route.target_port);
    let first = own.next()?;
    // With several, one may want the usual port.
    Some(if own.any(|port| port.is_none()) { Listens::Usual } else { first.map_or(Listens::Usual, Listens::At) })
}

/// A port of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listens {
    /// That of web processes.
    Usual,
    /// Its own.
    At(u16),
}

/// How long a connection may be silent, for people.
pub(crate) fn idle_words(idle: Duration) -> String {
    model::rollout::words(idle)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::http::{Caller, Server};

    async fn add(caller: &Caller, app: &str, wish: Value) -> (u16, Value) {
        let answer = caller.send("POST", &format!("/apps/{app}/tcp-routes"), &[], wish).await;
        (answer.status, answer.body)
    }

    #[tokio::test]
    async fn an_app_gets_a_port_until_there_is_none_and_it_is_free_again_with_the_app() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "mail").await;
        let bob = server.user_with_app("bob@example.com", "game").await;
        let wish = json!({ "port": 3002, "target_port": "1883", "idle_timeout": "90m", "proxy_protocol": "v2" });
        let (status, made) = add(&ada, "mail", wish).await;
        assert_eq!(
            (status, &made["url"], &made["port"]),
            (201, &json!("tcp://localhost:3002"), &json!(3002)),
            "{made}"
        );
        assert_eq!((&made["process_type"], &made["target_port"]), (&json!("web"), &json!(1883)));
        assert_eq!((&made["idle_timeout"], &made["proxy_protocol"]), (&json!("1h30m"), &json!("v2")));
        assert_eq!(ada.get("/apps/mail/tcp-routes/3002").await.body, made);
        let (status, taken) = add(&bob, "game", json!({ "port": 3002 })).await;
        let why = "Port 3002 is taken by another app. Choose another one, or none for the first that is free.";
        assert_eq!((status, &taken["message"]), (409, &json!(why)));
        let (_, own) = add(&ada, "mail", json!({ "port": 3002 })).await;
        assert_eq!(own["message"], "mail has port 3002 already: `platform tcp -a mail` lists its ports.");
        for port in [3000, 3001, 3003, 3004] {
            assert_eq!(add(&bob, "game", json!({})).await.1["port"], port);
        }
        let (status, full) = add(&ada, "mail", json!({})).await;
        let why =
            "Every port from 3000 to 3004 is taken. The platform's operator can widen the range: setting tcp_ports.";
        assert_eq!((status, &full["message"]), (409, &json!(why)));
        assert_eq!(bob.get("/apps/mail/tcp-routes").await.status, 404, "nobody sees what is not theirs");
        assert_eq!(ada.send("DELETE", "/apps/mail/tcp-routes/3001", &[], Value::Null).await.status, 404);
        assert_eq!(bob.send("DELETE", "/apps/game/tcp-routes/3001", &[], Value::Null).await.status, 200);
        assert_eq!(add(&ada, "mail", json!({})).await.1["port"], 3001);
        assert_eq!(bob.send("DELETE", "/apps/game", &[], Value::Null).await.status, 200);
        assert_eq!(add(&ada, "mail", json!({})).await.1["port"], 3000);
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_with_what_can() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "mail").await;
        server.deploy("mail", &["web", "worker"]).await;
        for (wish, why) in [
            (
                json!({ "port": 22 }),
                "port 22 is none that this platform gives to apps: choose one from 3000 to 3004, or none for the first that is free",
            ),
            (json!({ "port": 70_000 }), "port must be a port from 1 to 65535, not 70000"),
            (json!({ "target_port": 0 }), "target_port must be a port from 1 to 65535, not 0"),
            (json!({ "process_type": "other" }), "type other is none of mail: it has web, worker"),
            (
                json!({ "process_type": "release" }),
                "The release process takes no connections: it runs before its release does",
            ),
            (
                json!({ "idle_timeout": "1s" }),
                "idle_timeout must be a time like 90s, 10m or 1h30m, from 10s to 1d, not \"1s\"",
            ),
            (
                json!({ "proxy_protocol": "v3" }),
                "proxy_protocol \"v3\" is no version of the PROXY protocol: it is v1 or v2",
            ),
        ] {
            let (status, refused) = add(&ada, "mail", wish).await;
            assert_eq!((status, &refused["message"]), (422, &json!(why)));
        }
        assert_eq!(ada.get("/apps/mail/tcp-routes").await.body, json!([]));
    }

    #[tokio::test]
    async fn apps_share_a_port_by_hosts_that_are_their_own() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "mail").await;
        let bob = server.user_with_app("bob@example.com", "game").await;
        let domain = json!({ "hostname": "*.example.com" });
        assert_eq!(ada.send("POST", "/apps/mail/domains", &[], domain).await.status, 201);
        let wish = json!({ "port": 3003, "host": "Db.Example.com", "tls": "terminate" });
        let (status, made) = add(&ada, "mail", wish.clone()).await;
        assert_eq!((status, &made["url"]), (201, &json!("tls://db.example.com:3003")), "{made}");
        assert_eq!((&made["host"], &made["tls"]), (&json!("db.example.com"), &json!("terminate")));
        let (status, refused) = add(&bob, "game", wish).await;
        let why =
            "host db.example.com is no domain of game: add it first (platform domains:add db.example.com -a game)";
        assert_eq!((status, &refused["message"]), (422, &json!(why)));
        let (status, own) = add(&bob, "game", json!({ "port": 3003, "host": "game.localhost" })).await;
        assert_eq!((status, &own["tls"]), (201, &json!("passthrough")), "{own}");
        assert_eq!(add(&bob, "game", json!({ "port": 3003 })).await.0, 409, "all of it would be hers, too");
        for (wish, why) in [
            (json!({ "tls": "some" }), "tls must be passthrough or terminate, not \"some\""),
            (
                json!({ "tls": "passthrough" }),
                "tls passthrough needs a host: without one nobody looks whether it is TLS",
            ),
        ] {
            assert_eq!(add(&ada, "mail", wish).await.1["message"], why);
        }
        assert_eq!(add(&ada, "mail", json!({ "port": 3003, "host": "mail.localhost" })).await.0, 201);
        let unclear = ada.get("/apps/mail/tcp-routes/3003").await;
        let why = "mail has port 3003 for several hosts: say which, such as db.example.com:3003";
        assert_eq!((unclear.status, &unclear.body["message"]), (422, &json!(why)));
        assert_eq!(ada.get("/apps/mail/tcp-routes/db.example.com:3003").await.body, made);
        // A host stays a domain for as long as it has a port.
        let gone = async || ada.send("DELETE", "/apps/mail/domains/*.example.com", &[], Value::Null).await;
        let why = "*.example.com has TCP port 3003 of mail: remove that first (platform tcp:remove 3003 --host db.example.com -a mail)";
        assert_eq!(gone().await.body["message"], why);
        let route = "/apps/mail/tcp-routes/db.example.com:3003";
        assert_eq!(ada.send("DELETE", route, &[], Value::Null).await.status, 200);
        assert_eq!(gone().await.status, 200);
    }

    #[tokio::test]
    async fn dynos_that_had_no_port_begin_anew_with_one() {
        let server = Server::start().await;
        let ada = server.user_with_app("ada@example.com", "mail").await;
        server.deploy("mail", &["web", "worker"]).await;
        let newest = async || {
            let releases = ada.get("/apps/mail/releases").await.body;
            let newest = releases.as_array().and_then(|all| all.last()).cloned().expect("a release");
            (newest["version"].as_u64().expect("a number"), newest["description"].as_str().unwrap_or("").to_owned())
        };
        let (before, _) = newest().await;
        assert_eq!(add(&ada, "mail", json!({})).await.0, 201);
        assert_eq!(newest().await.0, before, "web has a port anyway");
        assert_eq!(add(&ada, "mail", json!({ "process_type": "worker" })).await.0, 201);
        assert_eq!(newest().await, (before + 1, "Add TCP port 3001 to worker".to_owned()));
        assert_eq!(add(&ada, "mail", json!({ "process_type": "worker" })).await.0, 201);
        assert_eq!(newest().await.0, before + 1, "it has one now");
    }
}
