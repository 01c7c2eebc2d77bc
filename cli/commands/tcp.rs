//! `tcp` and its kin: ports for what speaks something else than HTTP.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use crate::client;
use crate::context::{AppArg, Context};
use crate::error::Result;

/// A port of an app, as far as it is printed.
#[derive(Debug, Deserialize)]
struct TcpRoute {
    url: String,
    process_type: String,
    target_port: Option<u16>,
    idle_timeout: String,
}

impl TcpRoute {
    /// Where its connections go.
    fn target(&self) -> String {
        let port = self.target_port.map_or_else(|| "$PORT".to_owned(), |port| port.to_string());
        format!("{}, {port}", self.process_type)
    }
}

/// List the TCP ports of an app
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform tcp -a my-app
  $ platform tcp -a my-app --json")]
pub(crate) struct List {
    #[command(flatten)]
    app: AppArg,
}

impl List {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let routes = client.list(&["apps", &name, "tcp-routes"])?;
        cx.show_list(&routes, |out, routes: Vec<TcpRoute>| {
            let row = |route: TcpRoute| {
                let target = route.target();
                vec![route.url.into(), target.into(), route.idle_timeout.into()]
            };
            let empty = format!("{name} has no TCP port. `platform tcp:add` gives it one.");
            out.table(&["Address", "To", "Idle limit"], routes.into_iter().map(row).collect(), &empty)
        })
    }
}

/// Give an app a TCP port
///
/// Connections to the port go to the app's dynos as they are: for what speaks something else than HTTP, such as MQTT, SMTP, a database's
/// protocol or a game's. Dynos of the process type listen on $PORT, as web processes do, or where --target-port says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform tcp:add -a my-app
  $ platform tcp:add -a my-app --type worker --port 3042
  $ platform tcp:add -a my-broker --target-port 1883 --idle-timeout 12h --proxy-protocol v2
  $ platform tcp:add -a my-db --host db.example.com --port 5432
  $ platform tcp:add -a my-db --host db.example.com --port 5432 --tls terminate")]
pub(crate) struct Add {
    /// Process type whose dynos take the connections; without it, web
    #[arg(long = "type", value_name = "TYPE")]
    process_type: Option<String>,
    /// One of the platform's ports; without it, the first that is free
    #[arg(long)]
    port: Option<u16>,
    /// Only connections over TLS that want this domain of the app's: several apps share the port
    #[arg(long)]
    host: Option<String>,
    /// Who ends TLS: `passthrough`, the app, or `terminate`, the platform with its certificate for the host
    #[arg(long, value_name = "WHO")]
    tls: Option<String>,
    /// Port on which the dynos listen; without it, $PORT
    #[arg(long, value_name = "PORT")]
    target_port: Option<u16>,
    /// How long a connection may be silent; without it, 1h
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// Tell dynos who comes, by a header of the PROXY protocol: v1 or v2
    #[arg(long, value_name = "VERSION")]
    proxy_protocol: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Add {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let content = json!({
            "process_type": self.process_type,
            "port": self.port,
            "host": self.host,
            "tls": self.tls,
            "target_port": self.target_port,
            "idle_timeout": self.idle_timeout,
            "proxy_protocol": self.proxy_protocol,
        });
        let add = || client.post(&["apps", &name, "tcp-routes"], &content);
        let made = cx.out.step(&format!("Giving a TCP port to {name}"), add)?;
        cx.show(&made, |out| {
            let route: TcpRoute = client::typed(&made)?;
            let target = route.target();
            out.pairs([("Address", route.url.into()), ("To", target.into())])
        })
    }
}

/// Take a TCP port away from an app
///
/// Connections that are open go on; the port is free for others at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ platform tcp:remove 3042 -a my-app
  $ platform tcp:remove 5432 --host db.example.com")]
pub(crate) struct Remove {
    /// The port
    port: String,
    /// The host, if the port is for one
    #[arg(long)]
    host: Option<String>,
    #[command(flatten)]
    app: AppArg,
}

impl Remove {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        let (client, name) = cx.app(&self.app)?;
        let route = self.host.map_or_else(|| self.port.clone(), |host| format!("{host}:{}", self.port));
        let remove = || client.delete(&["apps", &name, "tcp-routes", &route]);
        cx.done(&cx.out.step(&format!("Taking port {route} away from {name}"), remove)?)
    }
}
