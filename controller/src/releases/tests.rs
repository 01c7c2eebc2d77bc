//! Releases that never change, and rollbacks that restore them.

use std::collections::BTreeMap;

use model::AttachmentName;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::addons::AddonRequest;
use crate::formation::ScaleRequest;
use crate::store::{Contents, Outcome, User};
use crate::testing::http::{Caller, Server};
use crate::testing::{TestController, image, make_deploy};

/// An app and whoever works on it.
struct World {
    test: TestController,
    user: User,
    actor: Actor,
    app: App,
}

/// Something that somebody does.
#[derive(Debug, Clone)]
enum Act {
    Set(u8, u8),
    Unset(u8),
    RunOnly(u8),
    Deploy(u8),
    Scale(u8, u8),
    Attach(u8),
    Detach(u8),
    Destroy(u8),
    /// To one of the releases that one can go back to.
    Rollback(prop::sample::Index, bool),
    /// The oldest pending release comes up, or does not.
    Finish(bool),
}

impl World {
    async fn new() -> Self {
        let test = TestController::new().await;
        let user = test.user("ada@example.com").await;
        let app = test.app(&user, "shop").await;
        let actor = test.actor(&user);
        Self { test, user, actor, app }
    }

    async fn set(&self, name: &str, value: Option<&str>) -> Option<Release> {
        let patch = BTreeMap::from([(name.to_owned(), value.map(str::to_owned))]);
        self.test.controller.set_config(&self.app, &self.actor, &patch).await.expect("set")
    }

    async fn deploy(&self, types: &[&str]) -> Release {
        self.test.deploy(&self.app, types).await
    }

    async fn scale(&self, process_type: &str, quantity: u8) {
        let (process_type, quantity) = (process_type.to_owned(), Some(quantity.to_string()));
        let request = ScaleRequest { process_type, quantity, size: None };
        self.test.controller.scale(&self.app, &self.actor, &[request]).await.expect("scaled");
    }

    async fn attach(&self, name: &str) -> Result<(), Error> {
        let config = BTreeMap::from([("url".to_owned(), format!("mysql://u:p@{}.example.com/", name.to_lowercase()))]);
        let (plan, attachment) = ("external".to_owned(), Some(name.to_owned()));
        let request = AddonRequest { plan, name: None, attachment, config };
        self.test.controller.create_addon(&self.app, &self.actor, request).await?;
        // Found, provisioned, told of.
        for _ in 0..3 {
            self.test.controller.settle_addons().await;
        }
        Ok(())
    }

    async fn attachment(&self, name: &str) -> Option<crate::store::Attachment> {
        let all = self.test.controller.store.attachments_of_app(self.app.id).await.expect("readable");
        all.into_iter().find(|attachment| attachment.name.as_str() == name)
    }

    async fn detach(&self, name: &str) {
        let attachment = self.attachment(name).await.expect("attached");
        self.test.controller.detach_addon(&attachment, &self.actor).await.expect("detached");
    }

    async fn destroy(&self, name: &str) {
        let id = self.attachment(name).await.expect("attached").addon;
        let addon = self.test.controller.store.addon(id).await.expect("readable").expect("there");
        self.test.controller.destroy_addon(&addon, &self.actor, true).await.expect("destroyed");
    }

    async fn finish(&self, release: &Release, outcome: Outcome) {
        self.test.finish(release, outcome).await;
    }

    async fn back(&self, target: &Release, keep_formation: bool) -> RolledBack {
        let wish = RollbackWish { keep_formation, reason: None };
        let target = self.now(target).await;
        self.test.controller.rollback((&self.app, &self.actor), &target, &wish).await.expect("rolled back")
    }

    async fn preview(&self, target: &Release) -> RollbackPreview {
        let (by, target) = ((&self.app, &self.actor), self.now(target).await);
        self.test.controller.preview_rollback(by, &target, false).await.expect("looked at")
    }

    /// A release as it is by now.
    async fn now(&self, release: &Release) -> Release {
        self.test.controller.store.release(release.id).await.expect("readable").expect("there")
    }

    async fn present(&self) -> Contents {
        self.test.controller.store.present(self.app.id).await.expect("readable")
    }

    async fn contents(&self, release: &Release) -> Contents {
        self.test.controller.store.contents(release).await.expect("readable")
    }

    async fn releases(&self) -> Vec<Release> {
        self.test.controller.store.releases(self.app.id).await.expect("readable")
    }

    async fn formation(&self) -> Vec<(String, u32)> {
        let rows = self.test.controller.store.formation(self.app.id).await.expect("readable");
        rows.into_iter().map(|row| (row.process_type.to_string(), row.quantity)).collect()
    }

    async fn act(&self, act: &Act) {
        const TYPES: [&[&str]; 3] = [&["web"], &["web", "worker"], &["release", "web"]];
        let attachment = |number: &u8| format!("SHOP{number}");
        match act {
            Act::Set(name, value) => drop(self.set(&format!("VAR{name}"), Some(&value.to_string())).await),
            Act::Unset(name) => drop(self.set(&format!("VAR{name}"), None).await),
            Act::RunOnly(name) => {
                let scopes = [(format!("VAR{name}"), Some(crate::store::Scope::Run))].into();
                let wish = crate::config_vars::ConfigWish { scopes, ..Default::default() };
                // Refused while it is not set.
                let _ = self.test.controller.change_config(&self.app, &self.actor, &wish).await;
            }
            Act::Deploy(types) => {
                let types = TYPES[usize::from(*types) % TYPES.len()];
                make_deploy(&self.test.controller.store, &self.app, &image(types)).await;
            }
            Act::Scale(process_type, quantity) => {
                let name = ["web", "worker"][usize::from(*process_type) % 2].to_owned();
                let request = ScaleRequest { process_type: name, quantity: Some(quantity.to_string()), size: None };
                // Refused if the app has no such process type.
                let _ = self.test.controller.scale(&self.app, &self.actor, &[request]).await;
            }
            // Refused if the name is taken.
            Act::Attach(number) => drop(self.attach(&attachment(number)).await),
            Act::Detach(number) => {
                if self.attachment(&attachment(number)).await.is_some() {
                    self.detach(&attachment(number)).await;
                }
            }
            Act::Destroy(number) => {
                if self.attachment(&attachment(number)).await.is_some() {
                    self.destroy(&attachment(number)).await;
                }
            }
            Act::Rollback(index, keep_formation) => self.go_back(index, *keep_formation).await,
            Act::Finish(well) => {
                let pending = self.test.controller.store.pending_releases(None).await.expect("readable");
                if let Some(oldest) = pending.first() {
                    let outcome = if *well { Outcome::Succeeded } else { Outcome::Failed("crashed".to_owned()) };
                    self.finish(oldest, outcome).await;
                }
            }
        }
    }

    /// Goes back to a release, and checks that what comes next is that release as far as its add-ons are there.
    async fn go_back(&self, index: &prop::sample::Index, keep_formation: bool) {
        let releases = self.releases().await;
        let deployed = releases.iter().any(|release| release.image.is_some());
        let eligible: Vec<_> = releases.iter().filter(|release| is_eligible(release, deployed)).collect();
        if eligible.is_empty() {
            return;
        }
        let target = *index.get(&eligible);
        let (before, then) = (self.present().await, self.contents(target).await);
        let preview = self.preview(target).await;
        let done = self.back(target, keep_formation).await;
        let now = self.present().await;
        assert_eq!(done.warnings, preview.warnings, "what was said before is said again");
        assert_eq!(done.is_new, before != now, "a release is made if something changes");
        assert_eq!(now.image, then.image);
        let own = |contents: &Contents| -> BTreeMap<String, String> {
            let all = contents.config.iter().filter(|(name, _)| !contents.attached.contains_key(*name));
            all.map(|(name, value)| (name.to_string(), value.to_owned())).collect()
        };
        assert_eq!(own(&now), own(&then));
        let gone = |name: &AttachmentName| {
            done.warnings.iter().any(|warning| warning.message.starts_with(&format!("{name}: the add-on")))
        };
        for (name, it) in &then.attachments {
            match now.attachments.get(name) {
                Some(attached) if attached.addon == it.addon => {
                    let url = format!("{name}_URL").parse().expect("a name");
                    assert_eq!(now.config.get(&url), then.config.get(&url));
                }
                other => assert!(gone(name) && before.attachments.get(name) == other, "{name}: {done:?}"),
            }
        }
        let extra: Vec<_> = now.attachments.keys().filter(|name| !then.attachments.contains_key(*name)).collect();
        assert!(extra.is_empty(), "{extra:?}");
        if keep_formation {
            assert_eq!(now.formation, before.formation);
        } else {
            assert!(then.formation.iter().all(|(name, scale)| now.formation.get(name) == Some(scale)));
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..3_u8, 0..3_u8).prop_map(|(name, value)| Act::Set(name, value)),
        1 => (0..3_u8).prop_map(Act::Unset),
        1 => (0..3_u8).prop_map(Act::RunOnly),
        2 => (0..3_u8).prop_map(Act::Deploy),
        2 => (0..2_u8, 0..4_u8).prop_map(|(process_type, quantity)| Act::Scale(process_type, quantity)),
        1 => (0..2_u8).prop_map(Act::Attach),
        1 => (0..2_u8).prop_map(Act::Detach),
        1 => (0..2_u8).prop_map(Act::Destroy),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(index, keep)| Act::Rollback(index, keep)),
        5 => prop::bool::weighted(0.8).prop_map(Act::Finish),
    ];
    prop::collection::vec(act, 1..25)
}

/// All of a release that must never change.
fn fixed(release: &Release, contents: &Contents) -> String {
    let Release { id, version, description, image, build, formation, attachments, config_changes, .. } = release;
    // `Debug` of config vars shows no values; here they matter.
    let values: Vec<_> = contents.config.iter().collect();
    format!(
        "{id} {version} {description} {image:?} {build:?} {formation:?} {attachments:?} {config_changes:?} {contents:?} {values:?}"
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_changes_and_rollbacks_changes_a_release(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new().await;
            let mut known: Vec<String> = Vec::new();
            for act in &acts {
                world.act(act).await;
                for (number, release) in world.releases().await.iter().enumerate() {
                    let now = fixed(release, &world.contents(release).await);
                    match known.get(number) {
                        Some(before) => assert_eq!(*before, now, "after {act:?}"),
                        None => known.push(now),
                    }
                    assert_eq!(release.version, number as u64 + 1, "numbers have no gaps");
                }
            }
        });
    }
}

#[tokio::test]
async fn a_rollback_restores_the_formation_once_it_is_current_and_not_if_it_fails() {
    let world = World::new().await;
    let first = world.deploy(&["web", "worker"]).await;
    world.scale("web", 3).await;
    let scaled = world.set("A", Some("1")).await.expect("a release");
    world.finish(&scaled, Outcome::Succeeded).await;
    let formation = |web, worker| vec![("web".to_owned(), web), ("worker".to_owned(), worker)];

    let failed = world.back(&first, false).await.release;
    assert_eq!(world.formation().await, formation(3, 0), "the present release stays as it is");
    world.finish(&failed, Outcome::Failed("crashed".to_owned())).await;
    assert_eq!(world.formation().await, formation(3, 0));

    let kept = world.back(&first, true).await.release;
    world.finish(&kept, Outcome::Succeeded).await;
    assert_eq!(world.formation().await, formation(3, 0), "as it was asked for");

    let back = world.back(&first, false).await.release;
    world.scale("worker", 2).await;
    world.finish(&back, Outcome::Succeeded).await;
    assert_eq!(world.formation().await, formation(1, 2), "whoever scales meanwhile has the last word");

    let forward = world.back(&scaled, false).await.release;
    let meanwhile = world.set("B", Some("1")).await.expect("a release");
    world.finish(&forward, Outcome::Failed("crashed".to_owned())).await;
    world.finish(&meanwhile, Outcome::Succeeded).await;
    assert_eq!(world.formation().await, formation(3, 0), "what is made on top of a rollback goes on with it");
}

#[tokio::test]
async fn a_rollback_to_what_is_there_makes_no_release() {
    let world = World::new().await;
    let first = world.deploy(&["web"]).await;
    let done = world.back(&first, false).await;
    assert!(!done.is_new && world.preview(&first).await.changes.is_empty());
    assert_eq!((done.release.id, world.releases().await.len()), (first.id, 2));
    assert!(world.set("A", None).await.is_none(), "and neither does another change without effect");
    assert_eq!(world.releases().await.len(), 2);
}

#[tokio::test]
async fn attachments_come_back_with_todays_credentials_or_it_is_said_what_is_gone() {
    let world = World::new().await;
    let store = &world.test.controller.store;
    world.attach("SHOP").await.expect("attached");
    world.attach("MAIL").await.expect("attached");
    let with = world.deploy(&["web"]).await;
    assert_eq!(with.attachments.as_ref().map(BTreeMap::len), Some(2));
    world.detach("SHOP").await;
    world.destroy("MAIL").await;
    world.attach("CACHE").await.expect("attached");

    let preview = world.preview(&with).await;
    let words: Vec<_> = preview.warnings.iter().map(|warning| warning.id).collect();
    assert_eq!(words, ["addon_gone"]);
    assert!(preview.warnings[0].message.contains("MAIL: the add-on external-"), "{:?}", preview.warnings);
    let changed: Vec<_> = preview.changes.attachments.iter().map(|it| (it.name.as_str(), it.to.is_some())).collect();
    assert_eq!(changed, [("CACHE", false), ("SHOP", true)]);

    let back = world.back(&with, false).await.release;
    let vars = store.release_config(back.id).await.expect("readable").to_env();
    assert_eq!(vars.keys().collect::<Vec<_>>(), ["SHOP_URL"]);
    assert!(world.attachment("SHOP").await.is_some() && world.attachment("CACHE").await.is_none());
    world.test.controller.settle_addons().await;
    let newest = world.releases().await.pop().expect("a release");
    assert_eq!(newest.id, back.id, "nothing is left for the loop to say");

    world.finish(&back, Outcome::Succeeded).await;
    world.destroy("SHOP").await;
    world.attach("SHOP").await.expect("attached");
    let other = world.attachment("SHOP").await.expect("attached").addon_name.to_string();
    let done = world.back(&with, false).await;
    let said = done.warnings.iter().find(|warning| warning.message.starts_with("SHOP: ")).expect("said");
    assert!(said.message.ends_with(&format!("SHOP stays {other}.")), "{}", said.message);
}

#[tokio::test]
async fn an_add_on_of_others_is_attached_again_only_by_those_who_may() {
    let world = World::new().await;
    let eve = world.test.user("eve@example.com").await;
    let (hers, by_eve) = (world.test.app(&eve, "eves").await, world.test.actor(&eve));
    world.attach("SHOP").await.expect("attached");
    let attachment = world.attachment("SHOP").await.expect("attached");
    let store = &world.test.controller.store;
    let addon = store.addon(attachment.addon).await.expect("readable").expect("there");
    let shared =
        world.test.controller.attach_addon(&addon, (&hers, &world.actor), Some("SHOP")).await.expect("attached");
    let with = world.test.deploy(&hers, &["web"]).await;
    world.test.controller.detach_addon(&shared, &by_eve).await.expect("detached");

    let done = world.test.controller.rollback((&hers, &by_eve), &with, &RollbackWish::default()).await.expect("done");
    assert_eq!(done.warnings.iter().map(|warning| warning.id).collect::<Vec<_>>(), ["addon_foreign"]);
    assert!(!done.is_new, "{:?}", done.release);
    let _ = &world.user;
}

#[tokio::test]
async fn a_release_command_that_ran_since_with_other_code_is_warned_of() {
    let world = World::new().await;
    let plain = world.deploy(&["web"]).await;
    let phased = world.deploy(&["web", "release"]).await;
    let again = world.set("A", Some("1")).await.expect("a release");
    world.finish(&again, Outcome::Succeeded).await;
    assert!(phased.has_phase && again.has_phase && !plain.has_phase);
    let ids = async |release: &Release| {
        let warnings = world.preview(release).await.warnings;
        warnings.into_iter().map(|warning| (warning.id, warning.message)).collect::<Vec<_>>()
    };
    let back = ids(&plain).await;
    assert_eq!(back.len(), 1);
    assert!(back[0].0 == "phase_ran" && back[0].1.contains("(v3, v4)"), "{back:?}");
    let same = ids(&phased).await;
    assert_eq!(same.iter().map(|it| it.0).collect::<Vec<_>>(), ["phase_runs"], "the code that ran it is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_rollbacks_at_once_come_one_after_the_other() {
    let world = World::new().await;
    let mut targets = Vec::new();
    for number in 0..4 {
        world.set("N", Some(&number.to_string())).await;
        targets.push(world.deploy(if number % 2 == 0 { &["web"] } else { &["web", "worker"] }).await);
    }
    let before = world.releases().await.len();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, target) in targets.iter().cloned().enumerate() {
        let (controller, app, actor) = (world.test.controller.clone(), world.app.clone(), world.actor.clone());
        tasks.spawn(async move {
            let wish = RollbackWish::default();
            let done = controller.rollback((&app, &actor), &target, &wish).await.expect("rolled back");
            done.is_new.then_some(done.release)
        });
        let (controller, app, actor) = (world.test.controller.clone(), world.app.clone(), world.actor.clone());
        tasks.spawn(async move {
            let patch = BTreeMap::from([(format!("EXTRA{number}"), Some("x".to_owned()))]);
            controller.set_config(&app, &actor, &patch).await.expect("set")
        });
    }
    let made = tasks.join_all().await.into_iter().flatten().count();
    let releases = world.releases().await;
    assert_eq!(releases.len(), before + made, "each made one, or said that it made none");
    for pair in releases.windows(2).skip(before - 1) {
        let (old, new) = (world.contents(&pair[0]).await, world.contents(&pair[1]).await);
        assert_eq!(old.config_changes(&new), pair[1].config_changes, "v{}", pair[1].version);
        match pair[1].description.strip_prefix("Rollback to v") {
            Some(version) => {
                let target = releases.iter().find(|it| it.version.to_string() == version).expect("there");
                let mut then = world.contents(target).await;
                // Builds of the same image are as good as each other, and process types that it does not have are nobody's.
                then.slug = new.slug;
                then.formation = new.formation.clone().into_iter().chain(then.formation).collect();
                assert_eq!(new, then, "v{}", pair[1].version);
            }
            None => assert_eq!(pair[1].config_changes.len(), 1, "v{}", pair[1].version),
        }
    }
}

async fn release(caller: &Caller, version: &str) -> serde_json::Value {
    caller.get(&format!("/apps/shop/releases/{version}")).await.body
}

#[tokio::test]
async fn over_http_a_rollback_is_looked_at_first_and_has_a_reason() {
    let server = Server::start().await;
    let ada = server.user_with_app("ada@example.com", "shop").await;
    server.deploy("shop", &["web"]).await;
    let change = json!({"vars": {"A": "secret-1", "B": 2}, "scopes": {"A": "run"}, "reason": "for\nthe sale"});
    let made = ada.send("POST", "/apps/shop/config-changes", &[], change.clone()).await;
    assert_eq!((made.status, &made.body["config_vars"]["B"]), (201, &json!("2")), "{}", made.text);
    assert_eq!(made.body["release"]["reason"], "for the sale");
    let again = ada.send("POST", "/apps/shop/config-changes", &[], change).await;
    assert_eq!((again.status, &again.body["release"]), (200, &json!(null)));
    server.deploy("shop", &["web", "worker"]).await;

    let preview = ada.get("/apps/shop/releases/v2/rollback").await;
    assert_eq!(preview.status, 200, "{}", preview.text);
    let changes = &preview.body["changes"];
    let vars = json!([{"name": "A", "change": "removed"}, {"name": "B", "change": "removed"}]);
    assert_eq!((&changes["config_vars"], preview.text.contains("secret-1")), (&vars, false));
    assert_eq!(changes["process_types"][0]["type"], "worker");
    assert_eq!(changes["code"]["to"]["commit"], "1a2b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8f9a0b");

    let wish = json!({"release": "v2", "keep_formation": "true", "reason": "too slow"});
    let back = ada.send("POST", "/apps/shop/releases", &[], wish.clone()).await;
    assert_eq!((back.status, &back.body["warnings"]), (201, &json!([])), "{}", back.text);
    assert_eq!((&back.body["reason"], &back.body["slug"]), (&json!("too slow"), &release(&ada, "v2").await["slug"]));
    let diff = ada.get("/apps/shop/releases/v2/diff/v5").await;
    assert_eq!((&diff.body["code"], &diff.body["config_vars"]), (&json!(null), &json!([])), "{}", diff.text);

    let history = ada.get("/apps/shop/config-changes").await;
    let versions: Vec<_> = history.body.as_array().expect("a list").iter().map(|it| it["version"].clone()).collect();
    assert_eq!(versions, [5, 3]);
    assert_eq!(history.body[0]["config_changes"], vars);
    for bad in [json!({"release": "v2", "keep_formation": 7}), json!({}), json!({"release": "v99"})] {
        assert!([404, 422].contains(&ada.send("POST", "/apps/shop/releases", &[], bad).await.status));
    }
    let long = json!({"release": "v2", "reason": "x".repeat(501)});
    let refused = ada.send("POST", "/apps/shop/releases", &[], long).await;
    assert!(refused.status == 422 && refused.text.contains("reason"), "{}", refused.text);
}
