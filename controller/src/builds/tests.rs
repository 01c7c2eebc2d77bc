//! Builds whose container is played by the test, over a real repository.

use std::process::Command;

use bytes::Bytes;
use engine::fake::FakeRun;
use model::Exit;
use tokio::task::JoinHandle;

use super::*;
use crate::actors::By;
use crate::store::Status;
use crate::testing::TestController;

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
    world.test.controller.delete_app(&world.app, &world.owner).await.expect("removed");
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
