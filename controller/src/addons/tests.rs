//! Add-ons over the fake engine, as their users see them: over HTTP.

use std::collections::BTreeSet;

use engine::{Mount, Workload};
use model::{AppId, Exit};
use serde_json::{Value, json};

use crate::testing::TestController;
use crate::testing::http::{Caller, Server};

async fn settle(server: &Server) {
    // The image is made on a thread of its own, which then wakes the loop; the tests have no loop.
    for _ in 0..1000 {
        server.test.controller.settle_addons().await;
        let addons = server.test.controller.store.addons().await.expect("readable");
        if addons.iter().all(|addon| addon.state != super::AddonState::Provisioning) {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.test.controller.settle_addons().await;
}

async fn create(server: &Server, caller: &Caller, app: &str, plan: &str) -> String {
    let made = caller.send("POST", &format!("/apps/{app}/addons"), &[], json!({"plan": {"name": plan}})).await;
    assert_eq!((made.status, &made.body["state"]), (201, &json!("provisioning")), "{}", made.text);
    settle(server).await;
    let name = made.body["name"].as_str().expect("a name").to_owned();
    assert_eq!(caller.get(&format!("/addons/{name}")).await.body["state"], "provisioned");
    name
}

fn server_of(test: &TestController) -> Workload {
    test.engine.applied().into_iter().find(|workload| workload.service.is_some()).expect("a server")
}

fn clients(test: &TestController) -> BTreeSet<AppId> {
    server_of(test).service.expect("a service").clients
}

async fn app_id(server: &Server, name: &str) -> AppId {
    let apps = server.test.controller.store.apps().await.expect("readable");
    apps.iter().find(|app| app.name.as_str() == name).expect("the app").id
}

async fn descriptions(caller: &Caller, app: &str) -> Vec<String> {
    let releases = caller.get(&format!("/apps/{app}/releases")).await;
    releases.each("description").into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn an_add_on_gets_a_server_with_a_volume_and_tells_its_app_where_it_is() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let name = create(&server, &ada, "shop", "heroku-postgresql:mini").await;

    let workload = server_of(&server.test);
    assert_eq!(workload.process_type.as_str(), "postgres");
    assert_eq!(clients(&server.test), BTreeSet::from([app_id(&server, "shop").await]));
    assert!(matches!(&workload.container.mounts[..], [Mount::Volume { target, .. }] if target.ends_with("data")));

    let config = ada.get("/apps/shop/config-vars").await;
    let url = config.body["DATABASE_URL"].as_str().expect("a URL");
    assert!(url.starts_with("postgres://u") && url.contains(":5432/d"), "{url}");
    assert_eq!(descriptions(&ada, "shop").await[1], format!("Attach DATABASE (@ref:{name})"));

    let whole = [("accept-expansion", "addon_service,plan")];
    let info = ada.send("GET", &format!("/addons/{name}"), &whole, Value::Null).await.body;
    assert_eq!((&info["plan"]["name"], &info["plan"]["price"]["cents"]), (&json!("postgres:mini"), &json!(0)));
    assert_eq!((&info["addon_service"]["human_name"], &info["app"]["name"]), (&json!("PostgreSQL"), &json!("shop")));
    assert_eq!(info["config_vars"], json!(["DATABASE_URL"]));
    let attachments = ada.get("/apps/shop/addon-attachments").await;
    assert_eq!(
        (&attachments.body[0]["name"], &attachments.body[0]["addon"]["name"]),
        (&json!("DATABASE"), &json!(name))
    );
}

#[tokio::test]
async fn what_comes_from_an_attachment_is_changed_by_attachments_only() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.deploy("shop", &["web"]).await;
    ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"REDIS_URL": "mine"})).await;
    let name = create(&server, &ada, "shop", "postgres").await;
    let url = ada.get("/apps/shop/config-vars").await.body["DATABASE_URL"].clone();

    for value in [json!("mine"), Value::Null] {
        let refused = ada.send("PATCH", "/apps/shop/config-vars", &[], json!({"DATABASE_URL": value})).await;
        assert_eq!((refused.status, refused.id()), (422, "invalid_params"));
        assert!(refused.text.contains("Cannot overwrite attachment values DATABASE_URL"), "{}", refused.text);
    }
    // The name of a config var that a user set is not free.
    create(&server, &ada, "shop", "redis").await;
    let config = ada.get("/apps/shop/config-vars").await.body;
    assert_eq!(config["REDIS_URL"], "mine");
    assert!(config["REDIS_AMBER_URL"].as_str().is_some_and(|url| url.starts_with("redis://:p")), "{config}");
    let taken = json!({"plan": "redis", "attachment": {"name": "REDIS"}});
    assert_eq!(ada.send("POST", "/apps/shop/addons", &[], taken).await.status, 422);

    // Going back to before there was a database ends its use; the database stays.
    let rollback = async |version: u64| {
        let back = ada.send("POST", "/apps/shop/releases", &[], json!({"release": version})).await;
        (back.status, ada.get("/apps/shop/config-vars").await.body)
    };
    assert!(url.is_string());
    assert_eq!(rollback(2).await, (201, json!({})));
    assert_eq!(ada.get(&format!("/addons/{name}")).await.body["state"], "provisioned");
    let gone = ada.send("DELETE", &format!("/apps/shop/addons/{name}"), &[], json!({"force": false})).await;
    assert_eq!((gone.status, &gone.body["state"]), (200, &json!("deprovisioned")));
    assert_eq!(descriptions(&ada, "shop").await.pop().expect("a release"), "Rollback to v2");
    assert_eq!(rollback(2).await, (200, json!({})), "there is nothing left to change");
}

#[tokio::test]
async fn apps_share_an_add_on_and_lose_it_once_nothing_of_them_uses_it() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    ada.send("POST", "/apps", &[], json!({"name": "stats"})).await;
    let name = create(&server, &ada, "shop", "postgres").await;
    let stats = app_id(&server, "stats").await;
    let wish = json!({"addon": name, "app": "stats", "name": "SHOP_DB"});
    let made = ada.send("POST", "/addon-attachments", &[], wish.clone()).await;
    assert_eq!((made.status, &made.body["name"]), (201, &json!("SHOP_DB")));
    assert!(clients(&server.test).contains(&stats));
    assert!(ada.get("/apps/stats/config-vars").await.body["SHOP_DB_URL"].is_string());
    assert_eq!(ada.send("POST", "/addon-attachments", &[], wish).await.status, 422, "the name is taken");
    assert_eq!(ada.get("/apps/stats/addons").await.each("name"), [name.as_str()]);

    let refused = ada.send("DELETE", &format!("/apps/shop/addons/{name}"), &[], Value::Null).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("also attached to stats as SHOP_DB"), "{}", refused.text);

    let id = made.body["id"].as_str().expect("an id");
    assert_eq!(ada.send("DELETE", &format!("/addon-attachments/{id}"), &[], Value::Null).await.status, 200);
    assert_eq!(ada.get("/apps/stats/config-vars").await.body, json!({}));
    settle(&server).await;
    assert!(!clients(&server.test).contains(&stats));

    let eve = server.user_with_app("eve@example.com", "spy").await;
    assert_eq!(eve.get(&format!("/addons/{name}")).await.status, 404);
    let wish = json!({"addon": name, "app": "spy"});
    assert_eq!(eve.send("POST", "/addon-attachments", &[], wish).await.status, 404);
}

#[tokio::test]
async fn an_app_takes_its_add_ons_with_it_and_other_apps_are_told() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    ada.send("POST", "/apps", &[], json!({"name": "stats"})).await;
    let name = create(&server, &ada, "shop", "postgres").await;
    ada.send("POST", "/addon-attachments", &[], json!({"addon": name, "app": "stats"})).await;
    assert_eq!(ada.send("DELETE", "/apps/shop", &[], Value::Null).await.status, 200);
    settle(&server).await;
    settle(&server).await;
    assert!(server.test.engine.applied().is_empty());
    assert!(server.test.controller.store.addons().await.expect("readable").is_empty());
    assert_eq!(ada.get("/apps/stats/config-vars").await.body, json!({}));
}

#[tokio::test]
async fn an_outside_service_is_attached_by_its_url() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let wish = |url: &str| json!({"plan": "external", "config": {"url": url}, "attachment": {"name": "SEARCH"}});
    assert_eq!(ada.send("POST", "/apps/shop/addons", &[], wish("no url")).await.status, 422);
    let made = ada.send("POST", "/apps/shop/addons", &[], wish("https://user:pw@search.example.com/x")).await;
    assert_eq!((made.status, &made.body["config_vars"]), (201, &json!(["SEARCH_URL"])));
    settle(&server).await;
    let config = ada.get("/apps/shop/config-vars").await.body;
    assert_eq!(config["SEARCH_URL"], "https://user:pw@search.example.com/x");
    assert!(server.test.engine.applied().is_empty());
}

#[tokio::test]
async fn a_controller_that_was_killed_carries_on_and_another_program_replaces_the_server() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    create(&server, &ada, "shop", "redis").await;
    let before = server_of(&server.test);
    let next = server.test.next_life().await;
    next.controller.settle_addons().await;
    assert_eq!(server_of(&next), before, "the same server runs on");

    // As if the server had been started by a program that ran it otherwise.
    let mut other = before.clone();
    other.container.env.insert("OLD".to_owned(), "1".to_owned());
    engine::Engine::delete(&next.engine, &before.id).await.expect("deleted");
    engine::Engine::apply(&next.engine, other).await.expect("applied");
    let last = next.next_life().await;
    for _ in 0..3 {
        last.controller.settle_addons().await;
    }
    assert_eq!(last.engine.applied().len(), 1);
    let after = server_of(&last);
    assert!(after.id != before.id && !after.container.env.contains_key("OLD"));
}

#[tokio::test]
async fn backups_are_kept_whole_or_not_at_all() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let name = create(&server, &ada, "shop", "postgres").await;
    server.test.controller.live.set_ready();
    let home = server.test.controller.settings.home.clone();
    let folder =
        home.join("backups").join(ada.get(&format!("/addons/{name}")).await.body["id"].as_str().expect("an id"));
    server.test.engine.answer_runs(move |oneoff| {
        let [.., action, _, file] = &oneoff.container.args[..] else { return None };
        if action.contains("pg_dump") {
            std::fs::write(folder.join(file.strip_prefix("/backups/").expect("in sight")), "dump").expect("written");
            return Some((bytes::Bytes::new(), Exit::Code(0)));
        }
        Some((bytes::Bytes::from("not a dump\n"), Exit::Code(1)))
    });
    let over = async |backup: &str| loop {
        let answer = ada.get(&format!("/addons/{name}/backups/{backup}")).await.body;
        if answer["state"] != "running" {
            break answer;
        }
    };
    let begun = ada.send("POST", &format!("/addons/{name}/backups"), &[], Value::Null).await;
    assert_eq!((begun.status, &begun.body["name"]), (201, &json!("b001")));
    let captured = over("b001").await;
    assert_eq!((&captured["state"], &captured["bytes"]), (&json!("succeeded"), &json!(4)));
    assert_eq!(ada.get(&format!("/addons/{name}/backups/b001/content")).await.text, "dump");

    let octets = [("content-type", "application/octet-stream")];
    let sent = ada.send_bytes("POST", &format!("/addons/{name}/backups"), &octets, b"rubbish".to_vec()).await;
    assert_eq!((&sent.body["name"], &sent.body["state"]), (&json!("b002"), &json!("succeeded")));
    let restore = ada.send("POST", &format!("/addons/{name}/backups/b002/actions/restore"), &[], Value::Null).await;
    assert_eq!(restore.body["name"], "r003");
    let refused = over("r003").await;
    assert_eq!((&refused["state"], &refused["failure"]), (&json!("failed"), &json!("not a dump")));
    let again = ada.send("POST", &format!("/addons/{name}/backups/r003/actions/restore"), &[], Value::Null).await;
    assert_eq!(again.status, 422, "a restore is no backup");
    assert_eq!(ada.send("DELETE", &format!("/addons/{name}/backups/b001"), &[], Value::Null).await.status, 200);
    assert_eq!(ada.get(&format!("/addons/{name}/backups")).await.each("name"), ["b002", "r003"]);
}

#[tokio::test]
async fn a_backup_whose_controller_was_killed_failed_and_leaves_nothing() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let name = create(&server, &ada, "shop", "postgres").await;
    server.test.controller.live.set_ready();
    let begun = ada.send("POST", &format!("/addons/{name}/backups"), &[], Value::Null).await;
    assert_eq!(begun.body["state"], "running");
    let busy = ada.send("POST", &format!("/addons/{name}/backups"), &[], Value::Null).await;
    assert_eq!((busy.status, busy.id()), (409, "conflict"));
    let addon = begun.body["addon"]["id"].as_str().expect("an id");
    let draft = server.test.controller.settings.home.join(format!("backups/{addon}/b001.dump.new"));
    std::fs::create_dir_all(draft.parent().expect("a folder")).expect("a folder");
    std::fs::write(&draft, "half").expect("written");

    let next = server.test.next_life().await;
    super::recover_backups(&next.controller).await.expect("recovered");
    assert!(!draft.exists());
    let failed = ada.get(&format!("/addons/{name}/backups/b001")).await.body;
    assert_eq!(failed["state"], "failed");
    assert!(failed["failure"].as_str().is_some_and(|text| text.contains("restarted")), "{failed}");
}

#[tokio::test]
async fn another_plan_gives_the_server_other_limits_and_keeps_its_volume() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let name = create(&server, &ada, "shop", "heroku-postgresql:mini").await;
    let before = server_of(&server.test);
    let change = async |plan: &str| {
        ada.send("PATCH", &format!("/apps/shop/addons/{name}"), &[], json!({"plan": {"name": plan}})).await
    };
    let changed = change("heroku-postgresql:standard").await;
    assert_eq!((changed.status, &changed.body["plan"]["name"]), (200, &json!("postgres:standard")));
    settle(&server).await;
    settle(&server).await;
    let after = server_of(&server.test);
    assert!(after.id != before.id && after.container.mounts == before.container.mounts);
    assert_eq!(after.container.limits.memory_bytes, 2 << 30);
    assert_eq!(server.test.engine.applied().len(), 1, "the one before is gone");
    assert_eq!(change("redis:mini").await.status, 422);
    assert_eq!(change("postgres:huge").await.status, 422);
}

#[tokio::test]
async fn a_server_that_does_not_fit_is_refused_before_anything_is_made() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let room = |mib: u64| server.test.engine.set_capacity(mib << 20, 1 << 50, 1000);
    let ask = async |plan: &str| ada.send("POST", "/apps/shop/addons", &[], json!({"plan": {"name": plan}})).await;
    room(64);
    let refused = ask("postgres:standard").await;
    let words = "postgres:standard needs 0.2 GiB (of its 2 GiB one in 16: `memory_overcommit`); 0 of 0 GiB are free.";
    assert!(refused.status == 409 && refused.text.contains(words), "{}", refused.text);
    assert_eq!(ada.get("/apps/shop/addons").await.body, json!([]));
    assert_eq!(server.test.engine.applied().len(), 0);
    let name = create(&server, &ada, "shop", "postgres:mini").await;
    let change = async |plan: &str| {
        ada.send("PATCH", &format!("/apps/shop/addons/{name}"), &[], json!({"plan": {"name": plan}})).await
    };
    let refused = change("postgres:standard").await;
    assert!(refused.status == 409 && refused.text.contains("postgres:standard needs"), "{}", refused.text);
    assert_eq!(ada.get(&format!("/addons/{name}")).await.body["plan"]["name"], "postgres:mini");
    room(128);
    assert_eq!(change("postgres:standard").await.status, 200, "it takes the place of the old one");
    settle(&server).await;
    settle(&server).await;
    room(1);
    assert_eq!(change("postgres:mini").await.status, 200, "less always fits");
    // What there was room for is gone by the time its image is there.
    room(256);
    let made = ask("redis").await;
    assert_eq!(made.status, 201, "{}", made.text);
    room(1);
    settle(&server).await;
    let failed = ada.get(&format!("/addons/{}", made.body["name"].as_str().expect("a name"))).await;
    assert!(failed.text.contains("redis:mini needs"), "{}", failed.text);
    let servers = server.test.engine.applied();
    assert!(servers.iter().all(|workload| workload.process_type.as_str() == "postgres"), "{servers:?}");
}

#[tokio::test]
async fn heroku_reads_a_database_and_its_backups() {
    let server = Server::serve_all().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    let name = create(&server, &ada, "shop", "postgres").await;
    server.test.controller.live.set_ready();
    let id = ada.get(&format!("/addons/{name}")).await.body["id"].as_str().expect("an id").to_owned();
    let folder = server.test.controller.settings.home.join("backups").join(&id);
    server.test.engine.answer_runs(move |oneoff| {
        if oneoff.container.args.iter().any(|arg| arg.contains("server_version")) {
            return Some((bytes::Bytes::from("17.2|7500000|3|100|12\n"), Exit::Code(0)));
        }
        let file = oneoff.container.args.last().and_then(|file| file.strip_prefix("/backups/"))?;
        std::fs::write(folder.join(file), "dump").expect("written");
        Some((bytes::Bytes::new(), Exit::Code(0)))
    });
    let database = ada.get(&format!("/client/v11/databases/{id}")).await.body;
    let url = ada.get("/apps/shop/config-vars").await.body["DATABASE_URL"].clone();
    assert_eq!((&database["resource_url"], &database["num_tables"]), (&url, &json!(12)));
    let info = database["info"].as_array().expect("a list");
    assert!(info.contains(&json!({"name": "Connections", "values": ["3/100"]})), "{database}");
    assert_eq!(ada.get(&format!("/client/v11/databases/{name}/wait_status")).await.body["waiting?"], json!(false));
    let credential = ada.get(&format!("/postgres/v0/databases/{name}/credentials/default")).await.body;
    let user = credential["credentials"][0]["user"].as_str().expect("a user");
    assert!(url.as_str().is_some_and(|url| url.contains(user)));

    let begun = ada.send("POST", &format!("/client/v11/databases/{id}/backups"), &[], Value::Null).await;
    assert_eq!((begun.status, &begun.body["num"]), (201, &json!(1)), "{}", begun.text);
    let path = format!("/client/v11/apps/shop/transfers/{}", begun.body["uuid"].as_str().expect("an id"));
    while ada.get(&path).await.body["finished_at"].is_null() {
        tokio::task::yield_now().await;
    }
    let done = ada.get("/client/v11/apps/shop/transfers/1?verbose=true").await.body;
    assert_eq!((&done["succeeded"], &done["from_name"]), (&json!(true), &json!(name)));
    assert_eq!((&done["from_type"], &done["to_type"]), (&json!("pg_dump"), &json!("gof3r")));
    let link = ada.send("POST", "/client/v11/apps/shop/transfers/1/actions/public-url", &[], Value::Null).await.body;
    let public = link["url"].as_str().expect("a URL").replace("http://localhost:8080", "");
    assert_eq!(server.stranger().get(&public).await.text, "dump");
    server.test.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(server.stranger().get(&public).await.status, 404, "it has expired");

    let restore = async |url: &Value| {
        ada.send("POST", &format!("/client/v11/databases/{id}/restores"), &[], json!({"backup_url": url})).await
    };
    assert_eq!(restore(&json!("https://example.com/b001")).await.status, 422);
    let restored = restore(&done["to_url"]).await;
    assert_eq!((restored.status, &restored.body["to_type"]), (201, &json!("pg_restore")), "{}", restored.text);
    assert_eq!(ada.get("/redis/v0/databases/DATABASE").await.status, 404);
}
