//! Builds whose container is played by the test, over a real repository.

use std::process::Command;

use bytes::Bytes;
use engine::fake::FakeRun;
use model::Exit;
use sha2::Digest;
use tokio::task::JoinHandle;

use super::*;
use crate::actors::By;
use crate::store::Status;
use crate::testing::TestController;
use crate::testing::http::{Caller, Server};

/// One app with one commit.
struct World {
    test: TestController,
    app: App,
    owner: crate::Actor,
    commit: String,
}

/// A push: what it was told, and whether it is live.
struct Pushed {
    lines: mpsc::Receiver<String>,
    deploy: JoinHandle<bool>,
}

impl World {
    async fn new() -> Self {
        let test = TestController::new().await;
        test.controller.clean_up().await.expect("nothing to clean up");
        test.controller.live.set_ready();
        let ada = test.user("ada@example.com").await;
        let app = test.app(&ada, "shop").await;
        let buildpacks = &test.controller.builder.buildpacks;
        std::fs::create_dir_all(buildpacks).expect("a folder");
        std::fs::write(buildpacks.join("order.toml"), "").expect("an order");
        let commit = commit(&repository(&test.controller.settings, app.id));
        let owner = test.actor(&ada);
        Self { test, app, owner, commit }
    }

    fn push(&self) -> Pushed {
        let (client, lines) = mpsc::channel(4);
        let commit = Commit {
            app: self.app.id,
            by: By { user: self.app.owner.clone(), via: "test".to_owned(), origin: crate::Origin::default() },
            insists: false,
            reason: None,
            id: self.commit.clone(),
            branch: "refs/heads/main".to_owned(),
            before: None,
            env: BTreeMap::new(),
            received: Duration::ZERO,
        };
        let controller = Arc::clone(&self.test.controller);
        Pushed { lines, deploy: tokio::spawn(async move { controller.deploy(commit, client).await }) }
    }

    async fn builds(&self) -> Vec<Status> {
        let builds = self.test.controller.store.builds(self.app.id).await.expect("readable");
        builds.into_iter().map(|build| build.status).collect()
    }
}

impl Pushed {
    /// The container of its build.
    async fn container(&mut self, world: &World) -> FakeRun {
        tokio::select! {
            container = world.test.engine.next_run() => container,
            _ = &mut self.deploy => panic!("it was over before its container started"),
        }
    }

    /// Everything that it was told, once it is over.
    async fn end(mut self) -> (bool, String) {
        let mut text = String::new();
        while let Some(line) = self.lines.recv().await {
            text += &line;
            text.push('\n');
        }
        (self.deploy.await.expect("no panic"), text)
    }
}

/// Makes a bare repository with a commit.
fn commit(repository: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .env("GIT_DIR", repository)
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_COMMITTER_NAME", "Ada")])
            .envs([("GIT_AUTHOR_EMAIL", "ada@example.com"), ("GIT_COMMITTER_EMAIL", "ada@example.com")])
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    std::fs::create_dir_all(repository).expect("a folder");
    git(&["init", "-q", "--bare"]);
    let tree = git(&["mktree", "--missing"]);
    git(&["commit-tree", &tree, "-m", "first"])
}

#[tokio::test]
async fn a_second_push_is_told_what_is_built_and_refused() {
    let world = World::new().await;
    let mut first = world.push();
    let container = first.container(&world).await;
    world.test.clock.advance(Duration::from_secs(42));
    let (live, said) = world.push().end().await;
    assert!(!live);
    let commit = short(&world.commit);
    assert_eq!(
        said,
        format!(
            " !     A build of shop is running: commit {commit}, for 42 s now. Wait until it is over and push again.\n"
        )
    );
    assert_eq!(world.builds().await.len(), 1, "the refused push is no build");

    container.exit(Exit::Code(1));
    assert!(!first.end().await.0);
    let mut third = world.push();
    third.container(&world).await.exit(Exit::Code(1));
    let (_, said) = third.end().await;
    assert!(said.contains("-----> Building shop from"), "{said}");
}

#[tokio::test]
async fn a_push_to_a_branch_that_moved_meanwhile_is_refused_before_it_is_built() {
    let world = World::new().await;
    let repository = repository(&world.test.controller.settings, world.app.id);
    let git = Command::new("git").arg("--git-dir").arg(repository).args(["branch", "main", &world.commit]).status();
    assert!(git.is_ok_and(|status| status.success()));
    let (live, said) = world.push().end().await;
    assert!(!live && said.contains("moved by another push"), "{said}");
    assert!(world.builds().await.is_empty() && world.test.controller.live.building.lock().is_empty());
}

#[tokio::test]
async fn a_build_outlives_the_client_that_pushed_it() {
    let world = World::new().await;
    let mut pushed = world.push();
    let container = pushed.container(&world).await;
    pushed.lines.close();
    for line in 0..1000 {
        container.output.send(Bytes::from(format!("line {line}\n"))).await.expect("a reader");
    }
    container.exit(Exit::Code(1));
    assert!(!pushed.deploy.await.expect("no panic"));
    assert_eq!(world.builds().await, [Status::Failed]);
    let build = &world.test.controller.store.builds(world.app.id).await.expect("readable")[0];
    let output = std::fs::read_to_string(world.test.controller.build_output(world.app.id, build.id));
    assert!(output.expect("all of its output").contains("\nline 999\n"));
}

#[tokio::test]
async fn a_client_that_takes_no_line_is_given_up() {
    let world = World::new().await;
    let (client, mut lines) = mpsc::channel(2);
    let controller = Arc::clone(&world.test.controller);
    let mut output =
        Output { controller, app: world.app.id, file: None, client: Some(client), patience: Duration::ZERO };
    for text in ["one", "two", "three", "four"] {
        output.line(text).await;
    }
    assert_eq!(lines.recv().await.as_deref(), Some("one"));
    assert_eq!(lines.recv().await.as_deref(), Some("two"));
    assert_eq!(lines.recv().await, None, "nobody waits for it any more");
}

#[tokio::test]
async fn an_app_that_is_removed_during_its_build_ends_it_with_a_word() {
    let world = World::new().await;
    let mut pushed = world.push();
    let container = pushed.container(&world).await;
    world.test.controller.delete_app(&world.app, &world.owner, None).await.expect("removed");
    world.test.controller.sweep().await.expect("swept");
    container.exit(Exit::Signal(9));
    let (live, said) = pushed.end().await;
    assert!(!live && said.contains(" !     "), "{said}");
    assert!(world.test.controller.live.building.lock().is_empty());
}

#[tokio::test]
async fn the_next_life_of_a_controller_ends_what_the_last_one_was_building() {
    let world = World::new().await;
    let mut pushed = world.push();
    let container = pushed.container(&world).await;
    pushed.deploy.abort();
    let next = world.test.next_life().await;
    next.controller.clean_up().await.expect("ended");
    drop(container);
    assert_eq!(engine::Engine::oneoffs(&next.engine).await.expect("reachable"), []);
    assert_eq!(world.builds().await, [Status::Failed]);
    assert!(!next.controller.checkouts().exists());
}

/// An archive of one file.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    builder.append_data(&mut header, "Procfile", &b"web: "[..]).expect("written");
    builder.into_inner().expect("whole").finish().expect("packed")
}

/// The API and the sources, with a user whose app can be built.
async fn server() -> (Server, Caller) {
    let world = World::new().await;
    let controller = Arc::clone(&world.test.controller);
    let routes = crate::sources::routes(Arc::clone(&controller)).merge(crate::api::routes(controller));
    let server = Server::serve(world.test, routes).await;
    let caller = server.token_of(&world.owner.user).await;
    (server, caller)
}

/// Path and query of a URL of the platform's.
fn path(url: &serde_json::Value) -> String {
    url.as_str().expect("a URL").replace("http://localhost:8080", "")
}

#[tokio::test]
async fn an_archive_is_sent_built_and_cancelled() {
    let (server, ada) = server().await;
    let source = ada.send("POST", "/apps/shop/sources", &[], serde_json::Value::Null).await.body;
    let (put, get) = (&source["source_blob"]["put_url"], &source["source_blob"]["get_url"]);
    let stranger = server.stranger();
    assert_eq!(stranger.get(&path(get)).await.status, 404, "nothing was sent yet");
    assert_eq!(stranger.send_bytes("PUT", &path(get), &[], archive()).await.status, 404, "it is for reading");
    assert_eq!(stranger.send_bytes("PUT", &path(put), &[], archive()).await.status, 200);

    let checksum = format!("SHA256:{}", hex::encode(sha2::Sha256::digest(archive())));
    let wish = |checksum: &str| serde_json::json!({"source_blob": {"url": get, "checksum": checksum, "version": "v1"}});
    let begun = ada.send("POST", "/apps/shop/builds", &[], wish(&checksum)).await;
    assert_eq!((begun.status, &begun.body["status"]), (201, &serde_json::json!("pending")), "{}", begun.text);
    assert_eq!(begun.body["source_blob"]["checksum"], checksum);
    assert!(!begun.text.contains(&path(get)), "who may look at a build may not read the source by that");
    let container = server.test.engine.next_run().await;
    let files = &container.oneoff.container.mounts;
    let app = files.iter().find_map(|mount| match mount {
        engine::Mount::Bind { source, target, .. } if target.ends_with("app") => Some(source.clone()),
        _ => None,
    });
    assert_eq!(std::fs::read_to_string(app.expect("the files").join("Procfile")).expect("there"), "web: ");
    let busy = ada.send("POST", "/apps/shop/builds", &[], wish(&checksum)).await;
    assert_eq!((busy.status, busy.id()), (409, "conflict"));

    let build = format!("/apps/shop/builds/{}", begun.body["id"].as_str().expect("an id"));
    assert_eq!(ada.send("DELETE", &build, &[], serde_json::Value::Null).await.status, 200);
    while ada.get(&build).await.body["status"] == "pending" {
        tokio::task::yield_now().await;
    }
    assert_eq!(ada.get(&build).await.body["status"], "failed");
    assert_eq!(engine::Engine::oneoffs(&server.test.engine).await.expect("reachable"), [], "its container is gone");
    assert_eq!(ada.send("DELETE", &build, &[], serde_json::Value::Null).await.status, 422, "it is over");
}

#[tokio::test]
async fn an_archive_that_is_not_what_was_promised_fails_its_build() {
    let (server, ada) = server().await;
    let missing = serde_json::json!({"source_blob": {"url": "http://localhost:8080/sources/0"}});
    assert_eq!(ada.send("POST", "/apps/shop/builds", &[], missing).await.status, 404);
    for bad in ["ftp://x", "x"] {
        let wish = serde_json::json!({"source_blob": {"url": bad}});
        assert_eq!(ada.send("POST", "/apps/shop/builds", &[], wish).await.status, 422, "{bad}");
    }
    let elsewhere = axum::Router::new()
        .route("/moved", axum::routing::get(|| async { axum::response::Redirect::temporary("/there?again=1") }))
        .route("/there", axum::routing::get(|| async { archive() }))
        .route(
            "/metadata",
            axum::routing::get(|| async { axum::response::Redirect::temporary("http://169.254.1.1/") }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://ada:secret@{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, elsewhere).await });
    let output = async |path: &str, checksum: Option<&str>| {
        let url = format!("{base}{path}?token=secret");
        let wish = serde_json::json!({"source_blob": {"url": url, "checksum": checksum}});
        let begun = ada.send("POST", "/apps/shop/builds", &[], wish).await;
        assert_eq!(begun.status, 201, "{}", begun.text);
        assert!(!begun.text.contains("secret"), "{}", begun.text);
        let id = begun.body["id"].as_str().expect("an id").parse().expect("an id");
        let store = &server.test.controller.store;
        let app = store.apps().await.expect("readable")[0].id;
        while server.test.controller.live.building.lock().contains_key(&app) {
            tokio::task::yield_now().await;
        }
        std::fs::read_to_string(server.test.controller.build_output(app, id)).expect("its output")
    };
    let zero = format!("sha256:{}", "0".repeat(64));
    let said = output("/moved", Some(&zero)).await;
    assert!(said.contains(" !     The archive was refused: its checksum is SHA256:"), "{said}");
    let said = output("/metadata", None).await;
    assert!(said.contains("cannot be fetched: its address is not public"), "{said}");
    let said = output("/nothing", None).await;
    assert!(said.contains("cannot be fetched: the server answered 404 Not Found."), "{said}");
    assert!(server.test.controller.checkouts().read_dir().is_ok_and(|mut left| left.next().is_none()));
}

#[tokio::test]
async fn a_source_goes_after_an_hour() {
    let (server, ada) = server().await;
    let source = ada.send("POST", "/sources", &[], serde_json::Value::Null).await.body;
    let put = path(&source["source_blob"]["put_url"]);
    assert_eq!(server.stranger().send_bytes("PUT", &put, &[], archive()).await.status, 200);
    let controller = &server.test.controller;
    let files = || controller.settings.home.join("sources").read_dir().expect("a folder").count();
    assert_eq!((controller.sweep_sources().await.expect("swept"), files()), (0, 1));
    server.test.clock.advance(Duration::from_secs(3600));
    assert_eq!(server.stranger().send_bytes("PUT", &put, &[], archive()).await.status, 404);
    assert_eq!((controller.sweep_sources().await.expect("swept"), files()), (1, 0));
}
