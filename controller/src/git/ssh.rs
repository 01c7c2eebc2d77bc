//! git over SSH: whoever has a known key gets the same `git` as over HTTP, with the same rights, and nothing else. No shell, no
//! forwarding, no passwords.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::keys::PublicKey;
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey, run_stream,
};
use russh::{Channel, ChannelId, ChannelReadHalf, ChannelWriteHalf, Disconnect, MethodKind, MethodSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::service::{self, Service};
use super::{host_key, repository};
use crate::actors::{Actor, Origin, Via};
use crate::errors::chain;
use crate::store::App;
use crate::{Controller, Error, keys};

/// Who everybody is on the wire; the key says who they really are.
const USER: &str = "git";
/// Connections at once. Each costs a key exchange, which strangers may ask for.
const CONNECTIONS: usize = 200;
/// Time from the connection to a key that is known.
const SIGN_IN: Duration = Duration::from_secs(20);
/// Keys that a client may try: an agent offers all that it has.
const ATTEMPTS: usize = 20;
/// A client that is silent so long is asked whether it is still there; thrice, then it is gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Longest line by which a router says who comes (PROXY protocol, version 1).
const INTRODUCTION: usize = 107;

/// Serves git to those whom routers pass on, for as long as the process lives.
pub(crate) async fn serve(controller: Arc<Controller>, listener: UnixListener) -> Result<(), Error> {
    let failed = |source: io::Error| Error::System { action: "make the host key of SSH", source: source.into() };
    let key = host_key::open(&controller.settings.home, &*controller.random).map_err(failed)?;
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    let config = Arc::new(Config {
        keys: vec![key],
        methods,
        auth_rejection_time: Duration::from_millis(200),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: ATTEMPTS,
        // A build may say nothing for a long time; a client that is gone is found by asking.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..Config::default()
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Whoever comes when it is full waits in the listener's own queue.
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.map_err(|error| failed(io::Error::other(error)))?;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (controller, config) = (Arc::clone(&controller), Arc::clone(&config));
                tokio::spawn(async move {
                    let _place = place;
                    attend(config, stream, controller).await;
                });
            }
            // Out of descriptors, most likely: it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One connection, from the first byte to the last.
async fn attend(config: Arc<Config>, mut stream: UnixStream, controller: Arc<Controller>) {
    let Ok(Ok(from)) = tokio::time::timeout(SIGN_IN, introduced(&mut stream)).await else { return };
    let guest = Guest::new(controller, from);
    let signed_in = Arc::clone(&guest.signed_in);
    let Ok(Ok(session)) = tokio::time::timeout(SIGN_IN, run_stream(config, stream, guest)).await else { return };
    let handle = session.handle();
    tokio::pin!(session);
    tokio::select! {
        // What breaks a connection is its client's matter.
        _ = &mut session => return,
        () = signed_in.notified() => {}
        () = tokio::time::sleep(SIGN_IN) => {
            let late = "You took too long to sign in.".to_owned();
            let _ = handle.disconnect(Disconnect::ByApplication, late, String::new()).await;
        }
    }
    let _ = session.await;
}

/// From where a client comes, as the router says before it passes on anything: only root can open the socket.
async fn introduced(stream: &mut UnixStream) -> io::Result<IpAddr> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < INTRODUCTION {
        line.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split_ascii_whitespace();
    let from = (words.next() == Some("PROXY")).then(|| words.nth(1)).flatten();
    from.and_then(|from| from.parse().ok()).ok_or_else(|| io::Error::other("a router did not say who comes"))
}

/// A client, and who it turned out to be.
struct Guest {
    controller: Arc<Controller>,
    from: IpAddr,
    actor: Option<Actor>,
    signed_in: Arc<Notify>,
    /// Those that were opened and not yet told what to do, with the `GIT_PROTOCOL` that git wants there.
    channels: HashMap<ChannelId, (Channel<Msg>, Option<String>)>,
}

impl Guest {
    fn new(controller: Arc<Controller>, from: IpAddr) -> Self {
        Self { controller, from, actor: None, signed_in: Arc::default(), channels: HashMap::new() }
    }

    async fn who_has(&self, user: &str, key: &PublicKey) -> Option<Actor> {
        if user != USER {
            return None;
        }
        let known = self.controller.store.user_of_key(&keys::fingerprint(key)).await;
        let (user, id) =
            known.inspect_err(|error| tracing::error!(error = chain(error), "SSH keys cannot be read")).ok()??;
        let origin = Origin { address: Some(self.from), request: None };
        Some(Actor::new(user, Via::Key(id), origin))
    }

    /// Takes a channel that is to do something.
    fn take(&mut self, channel: ChannelId, session: &mut Session) -> Result<Option<Task>, russh::Error> {
        let (Some((channel, protocol)), Some(actor)) = (self.channels.remove(&channel), self.actor.clone()) else {
            session.channel_failure(channel)?;
            return Ok(None);
        };
        session.channel_success(channel.id())?;
        let (input, output) = channel.split();
        let controller = Arc::clone(&self.controller);
        Ok(Some(Task { controller, actor, protocol, input, output, handle: session.handle() }))
    }
}

impl Handler for Guest {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, russh::Error> {
        Ok(answer(self.who_has(user, offer.public_key).await.is_some()))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        self.actor = self.who_has(user, key.public_key).await;
        Ok(answer(self.actor.is_some()))
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), russh::Error> {
        if let Some(Actor { via: Via::Key(id), .. }) = &self.actor
            && let Err(error) = self.controller.store.note_key_use(*id, self.controller.clock.now()).await
        {
            tracing::warn!(error = chain(&error), "The use of an SSH key cannot be noted");
        }
        self.signed_in.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        // git opens one. Dropping the reply says no.
        if self.channels.is_empty() {
            reply.accept().await;
            self.channels.insert(channel.id(), (channel, None));
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some((_, protocol)) = self.channels.get_mut(&channel).filter(|_| name == "GIT_PROTOCOL") {
            *protocol = Some(value.to_owned());
            return session.channel_success(channel);
        }
        session.channel_failure(channel)
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(russh::Pty, u32)],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        if let Some(task) = self.take(channel, session)? {
            let hi = format!(
                "Hi {}, you are known here, and this platform has no shell. `git push` works; `platform run bash -a APP` \
                 opens a shell in an app.",
                task.actor.user.email
            );
            tokio::spawn(task.refuse(hi));
        }
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        session.channel_failure(channel)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let command = String::from_utf8_lossy(command).into_owned();
        if let Some(task) = self.take(channel, session)? {
            tokio::spawn(task.run(command));
        }
        Ok(())
    }
}

fn answer(known: bool) -> Auth {
    if known { Auth::Accept } else { Auth::reject() }
}

/// One thing to do for a client.
struct Task {
    controller: Arc<Controller>,
    actor: Actor,
    protocol: Option<String>,
    input: ChannelReadHalf,
    output: ChannelWriteHalf<Msg>,
    handle: Handle,
}

impl Task {
    async fn run(self, command: String) {
        let Some((service, name)) = parse(&command) else {
            let only = format!(
                "Hi {}, only git works here: git-receive-pack, git-upload-pack and git-upload-archive of <app>.git.",
                self.actor.user.email
            );
            return self.refuse(only).await;
        };
        let found = self.controller.find_app(&self.actor, name, service.need()).await;
        let found = found.and_then(|app| service::check_room(service, &self.controller.settings.home).map(|()| app));
        match found {
            Ok(app) => self.serve(service, &app).await,
            Err(Error::NotFound(_)) => {
                let text =
                    format!("{} has no app {name}. Its name is part of the remote's URL.", self.actor.user.email);
                self.refuse(text).await;
            }
            Err(error @ (Error::Forbidden(_) | Error::StoreAway(_) | Error::DiskFull(_))) => {
                self.refuse(error.to_string()).await;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "A request over SSH failed");
                self.refuse("The platform failed. Its operator finds the reason in the log.".to_owned()).await;
            }
        }
    }

    /// Runs git. From here on a push does not depend on the client: git runs on, and what it says is read, whether or not
    /// anybody listens.
    async fn serve(self, service: Service, app: &App) {
        let started = async {
            let repository = repository(&self.controller.settings, app.id);
            service::prepare(&repository).await?;
            let mut command = service::serving(&self.controller, service, (app, &self.actor)).await;
            if let Some(protocol) = &self.protocol {
                command.env("GIT_PROTOCOL", protocol);
            }
            command.arg(&repository);
            service::start(&mut command)
        };
        match started.await {
            Ok((child, stdin, stdout)) => {
                let mut input = self.input;
                tokio::spawn(async move { feed(&mut input, stdin).await });
                let (sender, receiver) = mpsc::channel(16);
                tokio::spawn(service::drain(stdout, sender));
                tell(receiver, &self.output).await;
                finish(child, &self.output).await;
            }
            Err(error) => {
                tracing::error!(app.name = %app.name, error = %error, "git does not work");
                self.refuse("git does not work on the platform. Its operator finds the reason in the log.".to_owned())
                    .await;
            }
        }
    }

    async fn refuse(self, text: String) {
        let _ = self.output.extended_data(1, format!("{text}\r\n").as_bytes()).await;
        end(&self.output, 1).await;
        // A client that keeps the connection has nothing more to do with it.
        drop(self.handle);
    }
}

/// Gives git what the client sends; its end when the client has no more, or is gone.
async fn feed(input: &mut ChannelReadHalf, mut git: ChildStdin) {
    let mut reader = input.make_reader();
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        if git.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Tells the client what git says, for as long as it listens.
async fn tell(mut git: mpsc::Receiver<io::Result<Bytes>>, output: &ChannelWriteHalf<Msg>) {
    let mut client = output.make_writer();
    while let Some(Ok(bytes)) = git.recv().await {
        if client.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn finish(mut child: Child, output: &ChannelWriteHalf<Msg>) {
    let status = child.wait().await.ok().and_then(|status| status.code()).and_then(|code| u32::try_from(code).ok());
    end(output, status.unwrap_or(1)).await;
}

/// The client may be gone: then nobody is left to tell.
async fn end(output: &ChannelWriteHalf<Msg>, status: u32) {
    let _ = output.exit_status(status).await;
    let _ = output.eof().await;
    let _ = output.close().await;
}

/// `git-receive-pack '/my-app.git'`, as git(1) asks for it.
fn parse(command: &str) -> Option<(Service, &str)> {
    let (program, path) = command.trim().split_once(' ')?;
    let (program, path) = match (program, path.split_once(' ')) {
        ("git", Some((verb, path))) => (verb, path),
        _ => (program.strip_prefix("git-")?, path),
    };
    let service = Service::of(program)?;
    let path = path.trim();
    let path = path.strip_prefix('\'').and_then(|path| path.strip_suffix('\'')).unwrap_or(path);
    let name = path.trim_start_matches('/').strip_suffix(".git")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!name.is_empty() && name.chars().all(is_plain)).then_some((service, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_git_is_understood() {
        for (command, service) in [
            ("git-receive-pack '/my-app.git'", Service::ReceivePack),
            ("git-receive-pack 'my-app.git'", Service::ReceivePack),
            ("git receive-pack my-app.git", Service::ReceivePack),
            ("git-upload-pack '/my-app.git'", Service::UploadPack),
            ("git-upload-archive '/my-app.git'", Service::UploadArchive),
        ] {
            assert_eq!(parse(command), Some((service, "my-app")), "{command}");
        }
        for command in [
            "",
            "ls",
            "git-receive-pack",
            "git-receive-pack ''",
            "git-receive-pack '.git'",
            "git-receive-pack 'my-app'",
            "git-receive-pack '../my-app.git'",
            "git-receive-pack 'a/b.git'",
            "git-upload-pack --exec=sh 'my-app.git'",
            "git-shell 'my-app.git'",
            "sh -c 'git-receive-pack my-app.git'",
        ] {
            assert_eq!(parse(command), None, "{command}");
        }
    }
}
