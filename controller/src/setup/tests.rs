//! First deploys over the fake engine, from the files of an app.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use model::Exit;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::Actor;
use crate::store::Release;
use crate::testing::TestController;

/// One app with a folder of files.
struct World {
    test: TestController,
    actor: Actor,
    app: App,
    folder: tempfile::TempDir,
    /// Provides add-ons.
    worker: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl World {
    async fn new() -> Self {
        let test = TestController::new().await;
        let ada = test.user("ada@example.com").await;
        let app = test.app(&ada, "shop").await;
        test.controller.live.set_ready();
        let worker = tokio::spawn(crate::addons::work(Arc::clone(&test.controller)));
        let folder = tempfile::tempdir().expect("a folder");
        Self { actor: test.actor(&ada), test, app, folder, worker }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// What a push says before it builds; the refusal comes last.
    async fn push(&self) -> (bool, Vec<String>) {
        let (client, mut lines) = mpsc::channel(100);
        let mut output = Output::new(Arc::clone(&self.test.controller), self.app.id, Some(client));
        let result = self.prepare(&mut output).await;
        drop(output);
        let mut said = Vec::new();
        while let Some(line) = lines.recv().await {
            said.push(line);
        }
        match result {
            Ok(()) => (true, said),
            Err(Refused::Said(text) | Refused::Logged(text)) => {
                said.extend(text.lines().map(str::to_owned));
                (false, said)
            }
            Err(Refused::Failed(error)) => panic!("failed: {error:?}"),
        }
    }

    async fn prepare(&self, output: &mut Output) -> Result<(), Refused> {
        let controller = &self.test.controller;
        let app = controller.store.app(self.app.id).await?.expect("the app");
        let manifest = controller.read_manifest(&app, self.folder.path(), output).await?;
        controller.set_up((&app, &self.actor), &manifest, output).await.map(drop)
    }

    async fn config(&self) -> BTreeMap<String, String> {
        self.test.controller.store.config(self.app.id).await.expect("readable").to_env()
    }

    async fn versions(&self) -> usize {
        self.test.controller.store.releases(self.app.id).await.expect("readable").len()
    }
}

#[tokio::test]
async fn the_first_deploy_gives_an_app_what_it_wants_and_the_next_one_finds_it() {
    let world = World::new().await;
    world.write(
        "app.json",
        r#"{
            "env": {"GREETING": "hello", "KEY": {"generator": "secret"}, "DATABASE_URL": {"required": true},
                    "DSN": {"required": false}},
            "addons": ["heroku-postgresql:mini", {"plan": "redis", "as": "cache"}],
            "buildpacks": [{"url": "platform/nodejs"}]
        }"#,
    );
    let (ready, said) = world.push().await;
    assert!(ready, "{said:?}");
    let config = world.config().await;
    assert_eq!((config["GREETING"].as_str(), config["KEY"].len()), ("hello", 64));
    assert!(config["DATABASE_URL"].starts_with("postgres://") && config["CACHE_URL"].starts_with("redis://"));
    assert!(!config.contains_key("DSN"));
    let app = world.test.controller.store.app(world.app.id).await.expect("readable").expect("the app");
    assert_eq!(app.buildpacks, ["platform/nodejs"]);
    let text = said.join("\n");
    for part in [
        "Buildpacks: platform/nodejs",
        "Config vars: GREETING, KEY (made up)",
        "(heroku-postgresql:mini) as DATABASE",
        "(redis) as CACHE",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(&config["KEY"]), "no secret is shown");

    let before = (world.versions().await, world.test.controller.store.addons().await.expect("readable").len());
    let (ready, _) = world.push().await;
    assert!(ready && world.config().await == config);
    let after = (world.versions().await, world.test.controller.store.addons().await.expect("readable").len());
    assert_eq!(before, after, "the next push finds it all there");
}

#[tokio::test]
async fn a_required_config_var_that_is_missing_refuses_the_push_and_nothing_is_done() {
    let world = World::new().await;
    let text = r#"{"env": {"A": "1", "MAIL_FROM": {"description": "Sender of mail"}, "DSN": {}}, "addons": ["redis"]}"#;
    world.write("app.json", text);
    let (ready, said) = world.push().await;
    assert!(!ready);
    insta::assert_snapshot!(said.join("\n"), @r"
    shop cannot do without config vars that are not set (app.json, env):
      DSN
      MAIL_FROM  Sender of mail

    Set them and push again:
      platform config:set DSN=… MAIL_FROM=… -a shop
    ");
    assert!(
        world.config().await.is_empty() && world.test.controller.store.addons().await.expect("readable").is_empty()
    );

    world.test.deploy(&world.app, &["web"]).await;
    let (ready, said) = world.push().await;
    assert!(ready && world.config().await.is_empty(), "an app that was live is left as it is");
    assert!(said[0].contains("requires DSN, which is not set: platform config:set DSN=… -a shop"), "{said:?}");
}

#[tokio::test]
async fn a_file_with_an_error_refuses_the_push_with_its_line() {
    let world = World::new().await;
    world.write("app.json", "{\n  \"evn\": {},\n  \"addons\": [\"papertrail\"]\n}");
    let (ready, said) = world.push().await;
    assert!(!ready);
    assert!(said[0].starts_with(" !     app.json:2:3: warning: evn is not known"), "{said:?}");
    assert!(said[1].starts_with("app.json:3:14: addons: There is no add-on service \"papertrail\""), "{said:?}");

    let request = crate::addons::AddonRequest {
        plan: "external".to_owned(),
        attachment: Some("PAPERTRAIL".to_owned()),
        config: [("url".to_owned(), "https://logs.example.com".to_owned())].into(),
        ..crate::addons::AddonRequest::default()
    };
    world.test.controller.create_addon(&world.app, &world.actor, request).await.expect("attached");
    let (ready, said) = world.push().await;
    assert!(ready, "a service from outside stands in: {said:?}");
}

#[tokio::test]
async fn a_link_is_not_followed_out_of_the_app() {
    let world = World::new().await;
    let elsewhere = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(elsewhere.path(), "{secret").expect("written");
    symlink(elsewhere.path(), world.folder.path().join("app.json")).expect("linked");
    let (ready, said) = world.push().await;
    assert!(ready && said.is_empty(), "{said:?}");
}

#[tokio::test]
async fn heroku_yml_gives_an_app_without_procfile_its_process_types() {
    let world = World::new().await;
    world.write("heroku.yml", "run:\n  web: ./serve\nrelease:\n  command:\n    - ./migrate\n");
    let (ready, said) = world.push().await;
    assert!(ready && said.join("").contains("Process types of heroku.yml: release, web"), "{said:?}");
    let procfile = world.folder.path().join("Procfile");
    assert_eq!(std::fs::read_to_string(&procfile).expect("readable"), "release: ./migrate\nweb: ./serve\n");
    assert_eq!(procfile.metadata().expect("there").uid(), world.app.uid);
    world.write("Procfile", "web: ./other\n");
    assert!(world.push().await.0);
    assert_eq!(std::fs::read_to_string(&procfile).expect("readable"), "web: ./other\n", "a Procfile counts more");
}

/// An app that was just deployed for the first time, and whose script is due.
async fn with_postdeploy(world: &World, output: &mut Output) -> (Release, Option<manifest::Script>) {
    let controller = &world.test.controller;
    world.write("app.json", r#"{"scripts": {"postdeploy": "./seed"}}"#);
    let manifest = controller.read_manifest(&world.app, world.folder.path(), output).await;
    let Ok(manifest) = manifest else { panic!("refused") };
    assert!(controller.set_up((&world.app, &world.actor), &manifest, output).await.is_ok());
    let release = world.test.deploy(&world.app, &["web"]).await;
    (release, manifest.postdeploy.map(|script| script.value))
}

/// All that was said by an output that is gone.
async fn all(mut lines: mpsc::Receiver<String>) -> String {
    let mut said = Vec::new();
    while let Some(line) = lines.recv().await {
        said.push(line);
    }
    said.join("\n")
}

#[tokio::test]
async fn a_postdeploy_script_runs_once_after_the_first_live_release() {
    let world = World::new().await;
    let (client, lines) = mpsc::channel(100);
    let controller = Arc::clone(&world.test.controller);
    let mut output = Output::new(Arc::clone(&controller), world.app.id, Some(client));
    let (release, script) = with_postdeploy(&world, &mut output).await;

    let run = controller.postdeploy((&world.app, &release), script.as_ref(), &mut output);
    let played = async {
        let container = world.test.engine.next_run().await;
        assert_eq!(container.oneoff.container.args.last().map(String::as_str), Some("./seed"));
        container.output.send(Bytes::from("seeded 3 rows\n")).await.expect("a reader");
        container.exit(Exit::Code(3));
    };
    let (done, ()) = tokio::join!(run, played);
    done.expect("run");
    // Once is enough, also if it failed.
    controller.postdeploy((&world.app, &release), script.as_ref(), &mut output).await.expect("nothing to do");
    drop(output);
    insta::assert_snapshot!(all(lines).await, @r"
    -----> Running postdeploy: ./seed
           seeded 3 rows
     !     postdeploy exited with code 3. The app is live all the same; to run it again: platform run -a shop -- ./seed
    ");
}

#[tokio::test]
async fn a_postdeploy_script_that_does_not_fit_does_not_run_and_says_what_is_free() {
    let world = World::new().await;
    let (client, lines) = mpsc::channel(100);
    let controller = Arc::clone(&world.test.controller);
    let mut output = Output::new(Arc::clone(&controller), world.app.id, Some(client));
    let (release, script) = with_postdeploy(&world, &mut output).await;
    world.test.engine.set_capacity(16 << 20, 1 << 50, 1000);
    controller.postdeploy((&world.app, &release), script.as_ref(), &mut output).await.expect("said");
    assert_eq!(engine::Engine::oneoffs(&world.test.engine).await.expect("reachable"), []);
    drop(output);
    insta::assert_snapshot!(all(lines).await, @r"
    -----> Running postdeploy: ./seed
     !     postdeploy did not run: A dyno of standard-1x needs 0.1 GiB (of its 0.5 GiB one in 16: `memory_overcommit`); 0 of 0 GiB are free. Take fewer or smaller ones (`platform ps:sizes`), or make room. The app is live all the same; to run it again: platform run -a shop -- ./seed
    ");
}

#[tokio::test]
async fn process_types_start_as_app_json_says_and_keep_what_they_were_scaled_to() {
    let world = World::new().await;
    let text = r#"{"formation": {"web": {"quantity": 2}, "worker": {"quantity": 3, "size": "standard-2x"}},
                   "cron": [{"command": "x", "schedule": "@daily"}]}"#;
    let (manifest, _) = manifest::read(manifest::Files { app_json: Some(text.as_bytes()), heroku_yml: None });
    let (starts, kept) =
        (Controller::starts(&manifest, &crate::sizes::Sizes::built_in()), Controller::kept(&manifest).expect("JSON"));
    let store = &world.test.controller.store;
    let image = crate::testing::image(&["web", "worker", "clock"]);
    let release = crate::testing::make_deploy_of(store, &world.app, &image, (&starts, kept.as_deref())).await;
    let scales = || async {
        let rows = store.formation(world.app.id).await.expect("readable");
        rows.iter().map(|row| format!("{}={}:{}", row.process_type, row.quantity, row.size)).collect::<Vec<_>>()
    };
    let first = scales().await;
    assert_eq!(first, ["clock=0:Standard-1X", "web=2:Standard-1X", "worker=3:Standard-2X"]);
    let stamp = world.test.controller.own_stamp();
    let ending = crate::store::Ending::default();
    store.finish_release(&release, (crate::store::Outcome::Succeeded, &ending), &stamp).await.expect("finished");
    let kept = world.test.controller.kept_of(&release).await.expect("readable");
    assert_eq!(kept.cron[0].settings["schedule"], "@daily");

    let more = BTreeMap::from([("web".parse().expect("a name"), Start { quantity: Some(9), size: None })]);
    let later = crate::testing::make_deploy_of(store, &world.app, &image, (&more, None)).await;
    assert_eq!(scales().await, first, "what is there stays");
    let kept_of = async |release| world.test.controller.kept_of(release).await.expect("readable");
    assert!(kept_of(&later).await.cron.is_empty(), "the same image came with another manifest");
    assert_eq!(kept_of(&release).await, kept, "and what the first one came with stays with it");
}
