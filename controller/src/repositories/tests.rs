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
    assert!(link(&stranger, "release").await.contains("Put a token that may read it into the URL"));
    assert!(link(&world.origin.url, "nope").await.contains("it has no branch nope"));
    assert!(link("http://10.0.0.1/shop.git", "main").await.contains("outbound_networks"));
    for url in ["file:///etc", "ssh://git@example.com/x", "ext::sh -c id", "/etc", "git@example.com:x.git"] {
        assert!(link(url, "main").await.contains("url must be a URL of https or http"), "{url}");
    }
    for branch in ["", "-x", "a..b", "a b", "refs/heads/../x", "x.lock", "a:b", "*"] {
        assert!(link(&world.origin.url, branch).await.contains("branch must be the name of a branch"), "{branch}");
    }
    assert_eq!(world.ada.get("/apps/shop/repository").await.status, 404, "nothing was linked");
}
