//! The controller role.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::Instant;

use crate::errors::chain;
use crate::rollout::Rollout;
use crate::{
    Controller, Error, acm, addons, api, attach, autoscale, certificate, control, drains, dynos, egress, git, jobs,
    logs, ocsp, repositories, sources, streams, sweep, upkeep, webhooks,
};

/// Pause between attempts to do what cannot be done yet.
const RETRY: Duration = Duration::from_millis(500);
/// So long nobody is told of that: the roles of a platform start side by side.
const QUIET: Duration = Duration::from_secs(10);

/// Where the controller listens. Only root may connect to any of them.
#[derive(Debug, Clone)]
pub struct Sockets {
    /// API, git, log streams and terminals; routers pass the public's requests on to it.
    pub public: PathBuf,
    /// The names half of the route table.
    pub names: PathBuf,
    /// The certificates of apps.
    pub certificates: PathBuf,
    /// Names that nobody knows.
    pub on_demand: PathBuf,
    /// git over SSH, as routers pass it on.
    pub ssh: PathBuf,
    /// What only root on this machine may ask.
    pub control: PathBuf,
}

/// Does a controller's work for as long as the process lives. `console` is served beside the API.
pub async fn serve(controller: Arc<Controller>, sockets: &Sockets, console: axum::Router) -> Result<(), Error> {
    let failed = |action| move |source: io::Error| Error::System { action, source: source.into() };
    git::install_hooks(&controller.settings).map_err(failed("write the git hooks"))?;
    let duties = controller.take_duties().await?;
    let mut rollout = Rollout::new(Arc::clone(&controller));
    controller.read_link_ports().await?;
    // Routers are told before anything else.
    rollout.begin().await?;
    controller.publish_all_certificates().await?;
    controller.live.certificates.expect_return(&sockets.certificates);
    let (certificates, socket) = (controller.live.certificates.clone(), sockets.certificates.clone());
    let certificates = tokio::spawn(async move { certificates.serve(&socket).await });
    controller.live.names.expect_return(&sockets.names);
    let names = controller.live.names.clone();
    let socket = sockets.names.clone();
    let feed = tokio::spawn(async move { names.serve(&socket).await });
    let worker = tokio::spawn(work(Arc::clone(&controller), rollout));
    let listen = |path| engine::feed::listen(path).map_err(failed("listen on a socket"));
    let (public, control) = (listen(&sockets.public)?, listen(&sockets.control)?);
    let on_demand = listen(&sockets.on_demand)?;
    let ssh = tokio::spawn(git::serve_ssh(Arc::clone(&controller), listen(&sockets.ssh)?));
    let open = git::routes(Arc::clone(&controller))
        .merge(logs::routes(Arc::clone(&controller)))
        .merge(attach::routes(Arc::clone(&controller)))
        .merge(certificate::routes(Arc::clone(&controller)))
        .merge(streams::routes(Arc::clone(&controller)))
        .merge(sources::routes(Arc::clone(&controller)))
        .merge(repositories::routes(Arc::clone(&controller)))
        .merge(addons::routes(Arc::clone(&controller)))
        .merge(console)
        .merge(api::routes(Arc::clone(&controller)));
    tokio::select! {
        result = answer(public, open) => result.map_err(failed("serve the API")),
        lost = controller.keep_duties(&duties) => Err(lost),
        result = answer(on_demand, acm::routes(Arc::clone(&controller))) => result.map_err(failed("serve routers that ask")),
        result = answer(control, control::routes(Arc::clone(&controller))) => result.map_err(failed("serve the control socket")),
        result = feed => result.map_err(io::Error::other).flatten().map_err(failed("serve the names of apps")),
        result = certificates => result.map_err(io::Error::other).flatten().map_err(failed("serve the certificates of apps")),
        result = ssh => result.map_err(io::Error::other).map_err(failed("serve git over SSH")).flatten(),
        result = worker => result.map_err(io::Error::other).map_err(failed("roll out")),
    }
}

async fn work(controller: Arc<Controller>, rollout: Rollout) {
    until_done("What an earlier controller left cannot be ended yet", || controller.clean_up()).await;
    let recover = || addons::recover_backups(&controller);
    until_done("Backups of an earlier controller cannot be ended yet", recover).await;
    // Nothing starts before it is known what it may reach.
    until_done("What apps may reach outside cannot be enforced yet", || controller.enforce_egress()).await;
    controller.live.set_ready();
    tokio::spawn(acm::work(Arc::clone(&controller)));
    tokio::spawn(ocsp::work(Arc::clone(&controller)));
    tokio::spawn(egress::work(Arc::clone(&controller)));
    tokio::spawn(dynos::runs::work(Arc::clone(&controller)));
    tokio::spawn(addons::work(Arc::clone(&controller)));
    tokio::spawn(jobs::work(Arc::clone(&controller)));
    tokio::spawn(drains::work(Arc::clone(&controller)));
    tokio::spawn(autoscale::work(Arc::clone(&controller)));
    tokio::spawn(webhooks::work(Arc::clone(&controller)));
    tokio::spawn(upkeep::resume_rotation(Arc::clone(&controller)));
    tokio::spawn(sweep::work(controller));
    rollout.run().await;
}

/// Does something until it succeeds, and tells what goes on failing.
async fn until_done<F: Future<Output = Result<(), Error>>>(what: &str, work: impl Fn() -> F) {
    let began = Instant::now();
    while let Err(error) = work().await {
        if began.elapsed() > QUIET {
            tracing::warn!(error = chain(&error), "{what}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn answer(listener: UnixListener, routes: axum::Router) -> io::Result<()> {
    axum::serve(listener, routes).await
}
