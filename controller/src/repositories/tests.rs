use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, Mac};
use model::Exit;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::testing::TestController;
use crate::testing::http::{Answer, Caller, Server};

/// What the origin wants to see: ada and her token.
const SIGNED_IN: &str = "Basic YWRhOnMzY3JldA==";

/// A private repository on a web server, and a platform with an app that may be deployed from it.
struct World {
    server: Server,
    ada: Caller,
    origin: Origin,
}

struct Origin {
    folder: tempfile::TempDir,
    url: String,
}

impl Origin {
    /// Files behind a password are all that git needs.
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_owned();
        let routes =
            Router::new().fallback(async move |uri: Uri, headers: header::HeaderMap| read(&root, &uri, &headers));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let origin = Self { folder, url: format!("http://ada:s3cret@{address}/shop.git") };
        origin.git(&["init", "-q", "--bare", "-b", "release"]);
        origin
    }

    fn git(&self, args: &[&str]) -> String {
        let people = ["AUTHOR", "COMMITTER"]
            .map(|who| [(format!("GIT_{who}_NAME"), "Ada"), (format!("GIT_{who}_EMAIL"), "ada@example.com")]);
        let repository = self.folder.path().join("shop.git");
        let git = Command::new("git").args(args).env("GIT_DIR", repository).envs(people.into_iter().flatten()).output();
        let output = git.expect("git is installed");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Moves the branch to a new commit, which is returned.
    fn commit(&self, message: &str) -> String {
        let tree = self.git(&["mktree", "--missing"]);
        let commit = self.git(&["commit-tree", &tree, "-m", message]);
        self.git(&["update-ref", "refs/heads/release", &commit]);
        self.git(&["update-server-info"]);
        commit
    }
}

fn read(root: &Path, uri: &Uri, headers: &header::HeaderMap) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != SIGNED_IN) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic")]).into_response();
    }
    // git runs right now. Whoever is on the machine may read its arguments.
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let arguments = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    if arguments.into_iter().any(|line| line.contains("s3cret") || line.contains(&SIGNED_IN["Basic ".len()..])) {
        return StatusCode::IM_A_TEAPOT.into_response();
    }
    let path: PathBuf = root.join(uri.path().trim_start_matches('/'));
    std::fs::read(path).map_or_else(|_| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

impl World {
    async fn new() -> Self {
        let test = TestController::new().await;
        test.controller.live.set_ready();
        let buildpacks = &test.controller.builder.buildpacks;
        std::fs::create_dir_all(buildpacks).expect("a folder");
        std::fs::write(buildpacks.join("order.toml"), "").expect("an order");
        let controller = Arc::clone(&test.controller);
        let routes = super::routes(Arc::clone(&controller)).merge(crate::api::routes(controller));
        let server = Server::serve(test, routes).await;
        let ada = server.user_with_app("ada@example.com", "shop").await;
        Self { server, ada, origin: Origin::start().await }
    }

    async fn link(&self) -> Value {
        let wish = json!({ "url": self.origin.url, "branch": "release" });
        let linked = self.ada.send("PUT", "/apps/shop/repository", &[], wish).await;
        assert_eq!(linked.status, 200, "{}", linked.text);
        linked.body
    }

    /// What a code host says of a branch, with a signature over it or whatever else it proves itself with.
    async fn tell(
        &self,
        linked: &Value,
        proof: impl Fn(&str, &[u8]) -> (&'static str, String),
        branch: &str,
    ) -> Answer {
        let body = json!({ "ref": format!("refs/heads/{branch}"), "after": "anything" }).to_string().into_bytes();
        let webhook = &linked["webhook"];
        let path = webhook["url"].as_str().expect("a URL").replace("http://localhost:8080", "");
        let (name, value) = proof(webhook["secret"].as_str().expect("a secret"), &body);
        let event = if name == "x-gitlab-token" { ("x-gitlab-event", "Push Hook") } else { ("x-github-event", "push") };
        self.server.stranger().send_bytes("POST", &path, &[(name, &value), event], body).await
    }

    /// The build that is under way ends, failed; which commit it was of.
    async fn fail_next(&self) -> String {
        let container = self.server.test.engine.next_run().await;
        let builds = self.ada.get("/apps/shop/builds").await.body;
        let builds = builds.as_array().expect("a list").clone();
        let pending = builds.into_iter().find(|build| build["status"] == "pending").expect("one that runs");
        container.exit(Exit::Code(1));
        while !self.server.test.controller.live.building.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        pending["source_blob"]["version"].as_str().expect("a commit").to_owned()
    }
}

fn hash(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key is good");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn github(secret: &str, body: &[u8]) -> (&'static str, String) {
    ("x-hub-signature-256", format!("sha256={}", hash(secret, body)))
}

fn gitea(secret: &str, body: &[u8]) -> (&'static str, String) {
    ("x-gitea-signature", hash(secret, body))
}

fn gitlab(secret: &str, _: &[u8]) -> (&'static str, String) {
    ("x-gitlab-token", secret.to_owned())
}

#[tokio::test]
async fn what_is_linked_is_fetched_with_its_password_and_built_when_asked_for() {
    let world = World::new().await;
    let commit = world.origin.commit("first");
    let linked = world.link().await;
    assert!(!linked.to_string().contains("s3cret"), "{linked}");
    assert!(linked["url"].as_str().expect("a URL").ends_with("/shop.git"));

    let begun = world.ada.send("POST", "/apps/shop/repository/deploys", &[], Value::Null).await;
    assert_eq!((begun.status, &begun.body["source_blob"]["version"]), (201, &json!(commit)), "{}", begun.text);
    assert_eq!(begun.body["source_blob"]["version_description"], "first");
    let busy = world.ada.send("POST", "/apps/shop/repository/deploys", &[], Value::Null).await;
    assert_eq!(busy.status, 409, "{}", busy.text);
    assert_eq!(world.fail_next().await, commit);
    let events = world
        .server
        .test
        .controller
        .store
        .events(&crate::store::EventFilter::default(), &crate::store::Slice { max: 1000, ..Default::default() })
        .await;
    assert!(!format!("{events:?}").contains("s3cret"));
}

#[tokio::test]
async fn every_code_host_is_believed_by_its_own_signature_and_nobody_without_one() {
    let world = World::new().await;
    world.origin.commit("first");
    let linked = world.link().await;
    for proof in [github, gitea, gitlab] {
        let commit = world.origin.commit("next");
        let told = world.tell(&linked, proof, "release").await;
        assert_eq!(told.status, 202, "{}", told.text);
        assert_eq!(world.fail_next().await, commit, "the newest commit is built");
        let other = world.tell(&linked, proof, "main").await;
        assert_eq!((other.status, other.text.as_str()), (200, "Heard. Only the branch release is deployed.\n"));
        let forged = world.tell(&linked, |_, body| proof("another secret", body), "release").await;
        assert_eq!(forged.status, 401, "{}", forged.text);
    }
    let unsigned = world.tell(&linked, |_, _| ("x-nothing", String::new()), "release").await;
    assert_eq!(unsigned.status, 401);
    assert!(world.server.test.controller.live.building.lock().is_empty());

    let again = world.link().await;
    assert_eq!(again["webhook"], linked["webhook"], "the code host need not be told again");
    assert_eq!(world.ada.send("DELETE", "/apps/shop/repository", &[], Value::Null).await.status, 200);
    assert_eq!(world.tell(&linked, github, "release").await.status, 404);
    assert_eq!(world.ada.get("/apps/shop/repository").await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_fetched_is_refused_with_the_reason() {
    let world = World::new().await;
    world.origin.commit("first");
    let link = async |url: &str, branch: &str| {
        let refused =
            world.ada.send("PUT", "/apps/shop/repository", &[], json!({ "url": url, "branch": branch })).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        refused.body["message"].as_str().expect("a message").to_owned()
    };
    let stranger = world.origin.url.replace("ada:s3cret@", "");
    let host = stranger.split('/').nth(2).expect("a host");
    let unknown = link(&stranger, "release").await;
    assert!(
        unknown.contains(&format!("there are no credentials for {host}. `platform credentials:set {host}`")),
        "{unknown}"
    );
    let wrong = world.origin.url.replace("s3cret", "wrong");
    assert!(link(&wrong, "release").await.contains("refuses the user and password of the URL"));
    assert!(link(&world.origin.url, "nope").await.contains("it has no branch nope"));
    assert!(link("http://10.0.0.1/shop.git", "main").await.contains("outbound_networks"));
    for url in ["file:///etc", "ssh://-oProxyCommand=id/x", "ext::sh -c id", "/etc", "ssh://-x@example.com/x"] {
        assert!(link(url, "main").await.contains("url must be a URL of https, http or ssh"), "{url}");
    }
    for branch in ["", "-x", "a..b", "a b", "refs/heads/../x", "x.lock", "a:b", "*"] {
        assert!(link(&world.origin.url, branch).await.contains("branch must be the name of a branch"), "{branch}");
    }
    assert_eq!(world.ada.get("/apps/shop/repository").await.status, 404, "nothing was linked");
}

impl World {
    /// What the API says to a wish to link the repository, without anything secret in its URL.
    async fn try_link(&self, url: &str) -> Answer {
        self.ada.send("PUT", "/apps/shop/repository", &[], json!({ "url": url, "branch": "release" })).await
    }

    async fn set(&self, path: &str, credential: Value) -> Value {
        let set = self.ada.send("PUT", path, &[], credential).await;
        assert_eq!(set.status, 200, "{}", set.text);
        set.body
    }

    /// What credentials an app has: of which host, and whose.
    async fn credentials(&self) -> Vec<(String, &'static str)> {
        let all = self.ada.get("/apps/shop/credentials").await;
        assert!(!all.text.contains("s3cret") && !all.text.contains("PRIVATE"), "{}", all.text);
        let whose = |one: &Value| match (one["app"].is_null(), one["team"].is_null()) {
            (false, _) => "app",
            (true, false) => "team",
            (true, true) => "platform",
        };
        let row = |one: &Value| (one["username"].as_str().expect("a name").to_owned(), whose(one));
        all.body.as_array().expect("a list").iter().map(row).collect()
    }
}

#[tokio::test]
async fn credentials_of_the_app_its_team_or_the_platform_are_shown_to_the_host_and_to_nobody_else() {
    let world = World::new().await;
    world.origin.commit("first");
    let url = world.origin.url.replace("ada:s3cret@", "");
    let host = url.split('/').nth(2).expect("a host");
    let of = |user: &str, password: &str| json!({ "host": host, "username": user, "password": password });

    let set = world.set("/apps/shop/credentials", of("ada", "wrong")).await;
    assert_eq!((&set["host"], &set["kind"], &set["app"]["name"]), (&json!(host), &json!("password"), &json!("shop")));
    let refused = world.try_link(&url).await;
    let text = format!("{host} refuses the credentials of this app (user ada)");
    assert!(refused.status == 422 && refused.text.contains(&text), "{}", refused.text);
    let set = world.set("/apps/shop/credentials", of("ada", "s3cret")).await;
    let linked = world.try_link(&url).await;
    assert_eq!(linked.status, 200, "{}", linked.text);

    assert_eq!(world.ada.send("POST", "/teams", &[], json!({ "name": "ours" })).await.status, 201);
    assert_eq!(world.ada.send("PATCH", "/teams/apps/shop", &[], json!({ "owner": "ours" })).await.status, 200);
    world.set("/teams/ours/credentials", of("team", "wrong")).await;
    world.set("/credentials", of("all", "wrong")).await;
    let names = [("ada", "app"), ("team", "team"), ("all", "platform")].map(|(name, whose)| (name.to_owned(), whose));
    assert_eq!(world.credentials().await, names, "the app's own are used first");
    assert_eq!(world.try_link(&url).await.status, 200);
    let path = format!("/apps/shop/credentials/{}", set["id"].as_str().expect("an id"));
    assert_eq!(world.ada.send("DELETE", &path, &[], Value::Null).await.status, 200);
    assert_eq!(world.ada.send("DELETE", &path, &[], Value::Null).await.status, 404);
    let refused = world.try_link(&url).await;
    assert!(refused.text.contains("of the team ours (user team)"), "{}", refused.text);
    assert!(refused.text.contains("--team ours` replaces them"), "{}", refused.text);
    world.set("/teams/ours/credentials", of("ada", "s3cret")).await;
    assert_eq!(world.try_link(&url).await.status, 200);

    let bob = world.server.user_with_app("bob@example.com", "blog").await;
    let others = bob.send("PUT", "/apps/blog/repository", &[], json!({ "url": url, "branch": "release" })).await;
    assert!(others.text.contains("of all apps (user all)"), "{}", others.text);
    assert_eq!(bob.get("/credentials").await.status, 403);
    assert_eq!(bob.send("PUT", "/teams/ours/credentials", &[], of("bob", "x")).await.status, 404);

    let told = world.ada.get("/apps/shop/events?resource=credential").await;
    assert!(!told.text.contains("s3cret") && !told.text.contains("wrong"), "{}", told.text);
    let actions: Vec<_> = told.body.as_array().expect("a list").iter().map(|event| event["action"].clone()).collect();
    assert_eq!(actions, ["create", "update", "destroy"]);
}

#[tokio::test]
async fn credentials_that_cannot_be_are_refused() {
    let world = World::new().await;
    let rows = [
        (json!({ "host": "https://x/y", "username": "a", "password": "b" }), "host must be the name of a host"),
        (json!({ "host": "x", "password": "b" }), "username must say"),
        (json!({ "host": "x", "username": "a:b", "password": "b" }), "no colon"),
        (json!({ "host": "x", "username": "a" }), "Either password or private_key"),
        (json!({ "host": "x", "private_key": "ssh-ed25519 AAAA" }), "private_key must be a private key"),
        (json!({ "host": "x", "username": "a", "password": "b", "host_key": "c" }), "host_key is for an SSH key"),
    ];
    for (wish, reason) in rows {
        let refused = world.ada.send("PUT", "/apps/shop/credentials", &[], wish).await;
        assert!(refused.status == 422 && refused.text.contains(reason), "{}", refused.text);
    }
}

/// OpenSSH's server with the repository of an [`Origin`], for whoever has its key.
struct Sshd {
    process: std::process::Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Sshd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Freed just before it is taken.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        for key in ["host", "guest", "stranger"] {
            keygen(folder.path(), key);
        }
        std::fs::copy(folder.path().join("guest.pub"), folder.path().join("authorized")).expect("copied");
        // Where it locks itself up.
        std::fs::create_dir_all("/run/sshd").expect("a folder");
        drop(listener);
        let process = Self::run(folder.path(), port);
        let sshd = Self { process, folder, port };
        sshd.wait();
        sshd
    }

    fn run(folder: &Path, port: u16) -> std::process::Child {
        let path = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n",
            path("host"),
            path("authorized")
        );
        std::fs::write(folder.join("config"), config).expect("written");
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f", &path("config")]).stderr(std::process::Stdio::null());
        sshd.spawn().expect("openssh-server is installed")
    }

    fn wait(&self) {
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
    }

    /// The same server with another key: as if it had been replaced, or as if somebody were in between.
    fn replace(&mut self) {
        self.stop();
        for name in ["host", "host.pub"] {
            std::fs::remove_file(self.folder.path().join(name)).expect("removed");
        }
        keygen(self.folder.path(), "host");
        self.process = Self::run(self.folder.path(), self.port);
        self.wait();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).expect("readable")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn keygen(folder: &Path, name: &str) {
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(folder.join(name));
    assert!(keygen.status().expect("openssh-client is installed").success());
}

#[tokio::test]
async fn over_ssh_a_key_is_shown_to_a_server_that_is_known_since_it_was_met() {
    let world = World::new().await;
    world.origin.commit("first");
    let mut sshd = Sshd::start();
    let host = format!("127.0.0.1:{}", sshd.port);
    let url = format!("ssh://root@{host}{}", world.origin.folder.path().join("shop.git").display());
    let refused = async || {
        let refused = world.try_link(&url).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        refused.body["message"].as_str().expect("a message").to_owned()
    };
    let set = async |key: &str, host_key: Value| {
        let key = sshd.read(key);
        world.set("/apps/shop/credentials", json!({ "host": host, "private_key": key, "host_key": host_key })).await
    };
    assert!(refused().await.contains(&format!("`platform credentials:set {host} --ssh-key FILE` adds one")));
    set("stranger", Value::Null).await;
    assert!(refused().await.contains("refuses the credentials of this app (user git)"));
    let made = set("guest", Value::Null).await;
    assert_eq!(made["public_key"].as_str().map(str::trim), Some(sshd.read("guest.pub").trim()));
    assert_eq!(made["host_fingerprints"], json!([]), "it was not met yet");
    let linked = world.try_link(&url).await;
    assert_eq!(
        (linked.status, linked.body["url"].as_str()),
        (200, Some(&*url.replace("root@", ""))),
        "{}",
        linked.text
    );

    let line = sshd.read("host.pub");
    let met = crate::keys::fingerprint(&russh::keys::PublicKey::from_openssh(&line).expect("a key"));
    let known = world.ada.get("/apps/shop/credentials").await.body;
    assert_eq!(known[0]["host_fingerprints"], json!([met]));
    assert_eq!(world.try_link(&url).await.status, 200);
    let home = &world.server.test.controller.settings.home;
    let found = Command::new("grep").args(["-rlF", "PRIVATE KEY"]).arg(home).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the key is on no disk");

    sshd.replace();
    let replaced = refused().await;
    assert!(replaced.contains(&format!("showed another key than {met}")), "{replaced}");
    let new = sshd.read("host.pub");
    let key = sshd.read("guest");
    let wish = json!({ "host": host, "private_key": key, "host_key": format!("{host} {new}") });
    world.set("/apps/shop/credentials", wish).await;
    assert_eq!(world.try_link(&url).await.status, 200);
}
