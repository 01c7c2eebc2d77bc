use std::time::Duration;

use engine::Engine;
use model::VolumeSize;
use serde_json::{Value, json};

use crate::testing::http::{Caller, Server};

async fn add(caller: &Caller, app: &str, wish: Value) -> crate::testing::http::Answer {
    caller.send("POST", &format!("/apps/{app}/volumes"), &[], wish).await
}

async fn world() -> (Server, Caller) {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.deploy("shop", &["web", "worker"]).await;
    (server, ada)
}

/// Lets every release get live that is on its way.
async fn settle(server: &Server) {
    for release in server.test.controller.store.pending_releases(None).await.expect("readable") {
        server.test.finish(&release, crate::store::Outcome::Succeeded).await;
    }
}

/// The names of all kept volumes.
async fn kept(caller: &Caller) -> Vec<String> {
    let list = caller.get("/volumes").await.body;
    let name = |volume: &Value| format!("{} of {}", volume["name"], volume["kept_from"]).replace('"', "");
    list.as_array().expect("a list").iter().map(name).collect()
}

#[tokio::test]
async fn a_volume_makes_a_release_and_lets_its_process_type_run_one_dyno() {
    let (server, ada) = world().await;
    let wish = json!({ "name": "data", "path": "/data", "size_bytes": 5u64 << 30 });
    let made = add(&ada, "shop", wish).await;
    assert_eq!(
        (made.status, &made.body["type"], &made.body["used_bytes"]),
        (201, &json!("web"), &json!(0)),
        "{}",
        made.text
    );
    let releases = ada.get("/apps/shop/releases").await.body;
    let newest = releases.as_array().and_then(|all| all.last()).expect("a release").clone();
    assert_eq!(newest["description"], "Add volume data");
    assert_eq!(ada.get("/apps/shop/volumes/data").await.body, made.body);

    let scale = async |process_type: &str, quantity: u32| {
        let path = format!("/apps/shop/formation/{process_type}");
        ada.send("PATCH", &path, &[], json!({ "quantity": quantity })).await
    };
    let refused = scale("web", 2).await;
    assert!(refused.status == 422 && refused.text.contains("have the volume data"), "{}", refused.text);
    assert_eq!(scale("web", 0).await.status, 200);
    assert_eq!(scale("worker", 3).await.status, 200);
    let policy = "/apps/shop/formation/web/scaling-policy";
    let refused = ada.send("PATCH", policy, &[], json!({ "metric": "cpu" })).await;
    assert!(refused.status == 422 && refused.text.contains("volume data"), "{}", refused.text);
    for (wish, word) in [
        (json!({ "name": "queue", "path": "/queue", "type": "worker" }), "cannot run 3 dynos"),
        (json!({ "name": "data", "path": "/other" }), "already taken"),
        (json!({ "name": "inner", "path": "/data/inner" }), "volume data of this process type"),
        (json!({ "name": "Data", "path": "/d" }), "lowercase"),
        (json!({ "name": "proc", "path": "/proc" }), "something else"),
        (json!({ "name": "tiny", "path": "/t", "size_bytes": 1 }), "16MiB"),
        (json!({ "name": "phase", "path": "/t", "type": "release" }), "release process"),
        (json!({ "name": "where" }), "path is missing"),
    ] {
        let refused = add(&ada, "shop", wish).await;
        assert!(refused.status == 422 && refused.text.contains(word), "{word}: {}", refused.text);
    }
    server.test.controller.sweep().await.expect("swept");
    assert_eq!(server.test.engine.volumes().len(), 1, "what was refused leaves nothing");
}

#[tokio::test]
async fn a_volume_grows_and_never_shrinks() {
    let (server, ada) = world().await;
    add(&ada, "shop", json!({ "name": "data", "path": "/data", "size_bytes": 64 << 20 })).await;
    let resize =
        async |bytes: u64| ada.send("PATCH", "/apps/shop/volumes/data", &[], json!({ "size_bytes": bytes })).await;
    let grown = resize(128 << 20).await;
    assert_eq!((grown.status, &grown.body["size_bytes"]), (200, &json!(128 << 20)), "{}", grown.text);
    let refused = resize(64 << 20).await;
    assert!(refused.status == 422 && refused.text.contains("cannot shrink"), "{}", refused.text);
    assert_eq!(resize(128 << 20).await.status, 200, "the same again is no error");
    let disk = server.test.engine.volumes().remove(0);
    let engine = &server.test.engine;
    engine.make_volume(&disk, 128 << 20).await.expect("the engine's is as large");
    let told = ada.get("/apps/shop/events?resource=volume").await.body;
    assert_eq!(told.as_array().map(Vec::len), Some(2), "made and resized: {told}");

    server.test.engine.set_capacity(1 << 50, 1 << 30, 1000);
    let refused = resize(2 << 30).await;
    assert!(refused.status == 409 && refused.text.contains("1 GiB are free"), "{}", refused.text);
}

#[tokio::test]
async fn who_removes_a_volume_says_what_becomes_of_it() {
    let (server, ada) = world().await;
    let disks = || server.test.engine.volumes().len();
    add(&ada, "shop", json!({ "name": "data", "path": "/data" })).await;
    let delete =
        async |query: &str| ada.send("DELETE", &format!("/apps/shop/volumes/data{query}"), &[], Value::Null).await;
    let refused = delete("").await;
    assert!(refused.status == 422 && refused.text.contains("data (1GiB)"), "{}", refused.text);
    assert_eq!(ada.send("POST", "/apps/shop/volumes/data/snapshots", &[], Value::Null).await.status, 201);
    let refused = delete("?data=delete").await;
    assert!(refused.status == 422 && refused.text.contains("1 snapshot"), "{}", refused.text);
    let gone = delete("?data=delete&snapshots=delete").await;
    assert_eq!((gone.status, disks()), (200, 2), "{}", gone.text);
    assert_eq!(ada.get("/apps/shop/volumes").await.body, json!([]));
    server.test.controller.sweep().await.expect("swept");
    // A release that is on its way mounts it.
    assert_eq!(disks(), 1, "the snapshot is gone at once");
    settle(&server).await;
    server.test.controller.sweep().await.expect("swept");
    assert_eq!(disks(), 0);
}

#[tokio::test]
async fn data_outlives_its_app_if_somebody_says_so_and_another_one_adopts_it() {
    let (server, ada) = world().await;
    add(&ada, "shop", json!({ "name": "data", "path": "/data" })).await;
    let refused = ada.send("DELETE", "/apps/shop", &[], Value::Null).await;
    assert!(refused.status == 422 && refused.text.contains("data (1GiB)"), "{}", refused.text);
    assert!(refused.text.contains("--keep-volumes"));
    assert_eq!(ada.send("DELETE", "/apps/shop?data=maybe", &[], Value::Null).await.status, 422);
    assert_eq!(ada.send("DELETE", "/apps/shop?data=keep", &[], Value::Null).await.status, 200);
    server.test.controller.sweep().await.expect("swept");
    assert_eq!((kept(&ada).await, server.test.engine.volumes().len()), (vec!["data of shop".to_owned()], 1));
    let bob = server.user_with_app("bob@example.com", "foreign").await;
    assert!(kept(&bob).await.is_empty());
    assert_eq!(add(&bob, "foreign", json!({ "from": "data" })).await.status, 404, "it is not theirs");
    let refused = ada.send("DELETE", "/account", &[], Value::Null).await;
    assert!(refused.status >= 400, "nobody would know of it any more");

    assert_eq!(ada.send("POST", "/apps", &[], json!({ "name": "market" })).await.status, 201);
    let adopted = add(&ada, "market", json!({ "from": "data", "name": "files" })).await;
    assert_eq!((adopted.status, &adopted.body["path"], &adopted.body["name"]), (201, &json!("/data"), &json!("files")));
    assert!(kept(&ada).await.is_empty());
    assert_eq!(ada.send("DELETE", "/apps/market/volumes/files?data=keep", &[], Value::Null).await.status, 200);
    assert_eq!(kept(&ada).await, ["files of market"]);
    assert_eq!(ada.send("DELETE", "/volumes/files", &[], Value::Null).await.status, 200);
    server.test.controller.sweep().await.expect("swept");
    assert_eq!((kept(&ada).await.len(), server.test.engine.volumes().len()), (0, 0));
    // Heroku's program says nothing of volumes.
    assert_eq!(ada.send("DELETE", "/apps/market", &[], Value::Null).await.status, 200);
}

#[tokio::test]
async fn what_a_snapshot_has_comes_back_and_what_was_there_stays_as_one() {
    let (server, ada) = world().await;
    add(&ada, "shop", json!({ "name": "data", "path": "/data" })).await;
    let before = server.test.engine.volumes().remove(0);
    let path = "/apps/shop/volumes/data/snapshots";
    let taken = ada.send("POST", path, &[], Value::Null).await;
    assert_eq!(
        (taken.status, &taken.body["name"], &taken.body["user"]),
        (201, &json!("s1"), &json!("ada@example.com"))
    );
    let content = ada.get("/apps/shop/volumes/data/content").await;
    assert_eq!((content.status, content.text.as_str()), (200, before.as_str()), "the fake archive is its name");
    let content = ada.get(&format!("{path}/s1/content")).await;
    assert_eq!(json!(content.text), taken.body["id"]);

    let restored = ada.send("POST", &format!("{path}/1/actions/restore"), &[], Value::Null).await;
    assert_eq!((restored.status, &restored.body["snapshots"]), (201, &json!(2)), "{}", restored.text);
    let list = ada.get(path).await.body;
    assert_eq!((&list[1]["id"], &list[1]["reason"]), (&json!(before), &json!("before s1 was restored")));
    let now = ada.get("/apps/shop/volumes/data/content").await.text;
    assert!(now != before && server.test.engine.volumes().len() == 3);
    let releases = ada.get("/apps/shop/releases").await.body;
    let newest = releases.as_array().and_then(|all| all.last()).expect("a release").clone();
    assert_eq!(newest["description"], "Restore volume data from s1");

    assert_eq!(ada.send("DELETE", &format!("{path}/s1"), &[], Value::Null).await.status, 200);
    assert_eq!(ada.get(&format!("{path}/s1/content")).await.status, 404);
    server.test.controller.sweep().await.expect("swept");
    assert_eq!(server.test.engine.volumes().len(), 2);
}

#[tokio::test]
async fn a_disk_that_is_nobodys_goes_and_one_that_is_being_made_stays() {
    let (server, _) = world().await;
    let controller = &server.test.controller;
    let disk = model::DiskId::random(&*controller.random);
    // A controller that dies while it makes a volume.
    controller.make_disk(disk, VolumeSize::USUAL.bytes()).await.expect("made");
    server.test.engine.make_volume("not-ours", 1 << 30).await.expect("made");
    controller.sweep().await.expect("swept");
    assert_eq!(server.test.engine.volumes().len(), 2, "it may be on its way");
    server.test.clock.advance(Duration::from_secs(24 * 60 * 60));
    controller.sweep().await.expect("swept");
    assert_eq!(server.test.engine.volumes(), ["not-ours"], "what the store does not know is never touched");
}
