//! Whole builds, one after the other, over shell-script buildpacks. Only the container is missing.

mod images;
mod layers;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use engine::{Engine, LayerStore, RootFs};
use model::clock::SystemRandom;
use model::{AppId, BuildId, Image};
use tokio::sync::{Notify, mpsc};

use crate::packages::PackageAccess;
use crate::testing::{FakePackages, Uncontained, listing, write_buildpack};
use crate::{Budget, BuildError, BuildLimits, BuildRequest, Builder, Buildpacks, Built, Queue, Source, diff_id};

/// Keeps dependencies between builds as our own buildpacks do: `deps` for launch and cache, changed only when `lock` changes;
/// `downloads` for the cache alone; `conf` for launch alone, reused by its name.
const BUILD: &str = r#"
cd $CNB_LAYERS_DIR
test ! -f $OLDPWD/fail || exit 9
if ! grep -qs "$(cat $OLDPWD/lock)" deps.toml; then
    mkdir -p deps; test -e deps/first || touch deps/first; cp $OLDPWD/lock deps/lock
fi
test -e $OLDPWD/clean && rm -r deps && mkdir deps && touch deps/only
printf '[types]\nlaunch = true\ncache = true\n[metadata]\nlock = "%s"' "$(cat $OLDPWD/lock)" > deps.toml
mkdir -p downloads; echo again >> downloads/log
printf '[types]\ncache = true' > downloads.toml
grep -qs made conf.toml || { mkdir conf; echo conf > conf/file; }
printf '[types]\nlaunch = true\n[metadata]\nmade = true' > conf.toml
printf '[[processes]]\ntype = "web"\ncommand = ["run"]\ndefault = true' > launch.toml
test ! -f $OLDPWD/slices || cat $OLDPWD/slices >> launch.toml
test ! -f $OLDPWD/bills || . $OLDPWD/bills
"#;

/// What it may write beside its layers.
const FORMATS: &str = "sbom-formats = ['application/vnd.cyclonedx+json', 'application/spdx+json']";

/// Asks for the Debian packages that a file lists.
const DETECT: &str = r#"
test -f lock || { echo needs: lock; exit 100; }
test ! -f packages || printf '[[requires]]\nname = "apt"\n[requires.metadata]\n%s' "$(cat packages)" > $CNB_BUILD_PLAN_PATH
"#;

struct World {
    dir: tempfile::TempDir,
    engine: Arc<Uncontained>,
    builder: Builder,
    app: AppId,
    /// See [`FakePackages`].
    forever: Arc<Notify>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_buildpack(&path("buildpacks"), ("t/deps", "0.10", FORMATS), DETECT, BUILD);
        fs::write(path("buildpacks/order.toml"), "[[order]]\ngroup = [{id = 't/deps'}]").unwrap();
        fs::write(path("program"), "the launcher").unwrap();
        let layers = LayerStore::open(&path("layers")).unwrap();
        let base = layers.staging().join("base");
        fs::create_dir_all(base.join("usr/bin")).unwrap();
        fs::write(base.join("usr/bin/tini-static"), "the first process").unwrap();
        let digest = diff_id(&base).unwrap();
        layers.insert(&digest, &base).unwrap();
        let stack = crate::stack::Stack {
            name: "test-1".into(),
            version: "1".into(),
            recipe: String::new(),
            build: digest.clone(),
            run: digest,
            distro_name: "test".into(),
            distro_version: "1".into(),
            os: "linux".into(),
            arch: "amd64".into(),
        };
        let engine = Arc::new(Uncontained { dir: tempfile::tempdir().unwrap(), roots: Mutex::default() });
        let forever = Arc::new(Notify::new());
        let builder = Builder {
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
            debian: Arc::new(FakePackages {
                layers: layers.clone(),
                made: Mutex::default(),
                forever: Arc::clone(&forever),
            }),
            layers,
            stack: Arc::new(move || Ok(Some(stack.clone()))),
            buildpacks: path("buildpacks"),
            program: path("program"),
            cache: path("cache"),
            other_distros: false,
            packages: PackageAccess::default(),
            limits: BuildLimits {
                memory_bytes: 1 << 30,
                time: Duration::from_secs(60),
                disk_bytes: 1 << 30,
                free_disk_bytes: 1,
                full_disk_percent: 101,
            },
            queue: Arc::new(Queue::new(1)),
        };
        Self { dir, engine, builder, app: AppId::random(&SystemRandom), forever }
    }

    /// What `t/deps` does from now on.
    fn script(&self, build: &str) {
        write_buildpack(&self.dir.path().join("buildpacks"), ("t/deps", "0.10", FORMATS), DETECT, build);
    }

    async fn build(&self, files: &[(&str, &str)], previous: Option<&Image>) -> Result<Built, BuildError> {
        let source = self.dir.path().join("source");
        for (name, content) in files {
            let path = source.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let request = BuildRequest {
            build: BuildId::random(&SystemRandom),
            app: self.app,
            uid: 100_007,
            fetch: Arc::new(crate::NoFetch),
            previous: previous.cloned(),
            source: Source::Buildpacks(Buildpacks {
                files: source.clone(),
                env: BTreeMap::from([("CONFIG".to_owned(), "value".to_owned())]),
                chosen: Vec::new(),
            }),
        };
        let result = self.builder.build(request, mpsc::channel(100).0).await;
        assert!(!source.exists(), "the build takes its source over");
        result
    }

    /// What the layers `downloads` of all builds hold, sorted.
    fn downloads(&self) -> Vec<String> {
        let layers = self.builder.layers.list().unwrap();
        let log = |digest| self.builder.layers.path(digest).join("layers/t_deps/downloads/log");
        let mut logs: Vec<String> =
            layers.iter().filter_map(|(digest, _)| fs::read_to_string(log(digest)).ok()).collect();
        logs.sort();
        logs
    }

    /// Where a layer of the image is in the store, by a part of what made it.
    fn layer(&self, image: &Image, made_by: &str) -> PathBuf {
        let layer = image.layers.iter().find(|layer| layer.created_by.contains(made_by)).unwrap();
        self.builder.layers.path(&layer.diff_id)
    }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[tokio::test]
async fn an_image_has_a_layer_for_each_part_and_says_what_made_it() {
    let world = World::new();
    let built = world.build(&[("lock", "1"), ("app.txt", "hello")], None).await.unwrap();
    assert_eq!(built.buildpacks, ["t/deps@1.0.0"]);
    let made_by: Vec<&str> = built.image.layers.iter().map(|layer| layer.created_by.as_str()).collect();
    assert_eq!(
        made_by,
        [
            "Run image test-1",
            "Layer: 'conf', Created by buildpack: t/deps@1.0.0",
            "Layer: 'deps', Created by buildpack: t/deps@1.0.0",
            "Application Layer",
            "Application Launcher",
            "Buildpacks Launcher Config and Process Types",
        ]
    );
    let all: String = made_by[1..].iter().map(|made_by| listing(&world.layer(&built.image, made_by))).collect();
    insta::assert_snapshot!(all, @r#"
    layers /
    layers/t_deps /
    layers/t_deps/conf /
    layers/t_deps/conf/file conf

    layers /
    layers/t_deps /
    layers/t_deps/deps /
    layers/t_deps/deps/first 
    layers/t_deps/deps/lock 1
    app /
    app/app.txt hello
    app/lock 1
    cnb /
    cnb/lifecycle /
    cnb/lifecycle/launcher the launcher
    cnb /
    cnb/process /
    cnb/process/web -> /cnb/lifecycle/launcher
    layers /
    layers/config /
    layers/config/metadata.toml [[buildpacks]]
    id = "t/deps"
    version = "1.0.0"
    api = "0.10"

    [[processes]]
    type = "web"
    command = ["run"]
    args = []
    direct = true
    buildpackID = "t/deps"
    "#);
    for layer in &built.image.layers {
        assert_eq!(diff_id(&world.builder.layers.path(&layer.diff_id)).unwrap(), layer.diff_id, "{}", layer.created_by);
    }
    assert_eq!(built.image.config.entrypoint, ["/cnb/process/web"]);
    assert_eq!(built.image.processes[0].process_type.as_str(), "web");
    let app = world.layer(&built.image, "Application Layer").join("app/app.txt");
    assert_eq!(fs::metadata(app).unwrap().uid(), 100_007);
    let phases: Vec<&str> = built.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, ["queue", "analyze", "restore", "container", "detect", "build", "export"]);
}

#[test]
fn builds_that_need_a_launcher_at_once_do_not_get_in_each_others_way() {
    let world = World::new();
    fs::write(&world.builder.program, vec![7; 8 << 20]).unwrap();
    let dir = |number: u8| world.builder.layers.staging().join(number.to_string());
    let layers: Vec<_> = std::thread::scope(|scope| {
        let make = |number| crate::launcher_layer::ensure(&world.builder, &dir(number)).unwrap();
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || make(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(layers.iter().all(|layer| *layer == layers[0]));
    assert_eq!(diff_id(&world.builder.layers.path(&layers[0])).unwrap(), layers[0]);
}

#[tokio::test]
async fn the_same_commit_gives_the_same_image_and_a_changed_line_only_a_new_app_layer() {
    let world = World::new();
    let first = world.build(&[("lock", "1"), ("app.txt", "hello")], None).await.unwrap();
    let second = world.build(&[("lock", "1"), ("app.txt", "hello")], Some(&first.image)).await.unwrap();
    assert_eq!(first.image, second.image);
    assert_eq!(first.size_bytes, second.size_bytes);
    let third = world.build(&[("lock", "1"), ("app.txt", "goodbye")], Some(&second.image)).await.unwrap();
    let changed: Vec<&str> = (third.image.layers.iter().zip(&second.image.layers))
        .filter(|(new, old)| new.diff_id != old.diff_id)
        .map(|(new, _)| new.created_by.as_str())
        .collect();
    assert_eq!(changed, ["Application Layer"]);
    assert_ne!(third.image.digest, second.image.digest);
}

#[tokio::test]
async fn a_changed_dependency_layer_shares_what_did_not_change() {
    let world = World::new();
    let first = world.build(&[("lock", "1")], None).await.unwrap();
    let second = world.build(&[("lock", "2")], Some(&first.image)).await.unwrap();
    let (old, new) = (world.layer(&first.image, "'deps'"), world.layer(&second.image, "'deps'"));
    assert_ne!(old, new);
    let at = |root: &Path, name: &str| root.join("layers/t_deps/deps").join(name);
    assert_eq!(fs::read_to_string(at(&old, "lock")).unwrap(), "1");
    assert_eq!(fs::read_to_string(at(&new, "lock")).unwrap(), "2");
    assert_eq!(diff_id(&old).unwrap().hex(), old.file_name().unwrap().to_str().unwrap(), "the old layer is unharmed");
    let third = world.build(&[("lock", "2"), ("clean", "")], Some(&second.image)).await.unwrap();
    let fresh = world.layer(&third.image, "'deps'").join("layers/t_deps/deps");
    assert_eq!(listing(&fresh), "only \n");
    let fourth = world.build(&[("lock", "3")], Some(&second.image)).await.unwrap();
    let merged = world.layer(&fourth.image, "'deps'");
    assert_eq!(fs::read_to_string(at(&merged, "lock")).unwrap(), "3");
    assert_eq!(inode(&at(&merged, "first")), inode(&at(&new, "first")), "unchanged files are shared");
}

#[tokio::test]
async fn a_cache_layer_comes_back_and_is_in_no_image() {
    let world = World::new();
    let first = world.build(&[("lock", "1")], None).await.unwrap();
    let second = world.build(&[("lock", "1")], Some(&first.image)).await.unwrap();
    assert!(second.image.layers.iter().all(|layer| !layer.created_by.contains("downloads")));
    assert_eq!(world.downloads(), ["again\n", "again\nagain\n"]);
}

#[tokio::test]
async fn after_a_purge_a_build_starts_from_nothing() {
    let world = World::new();
    let first = world.build(&[("lock", "1")], None).await.unwrap();
    world.builder.purge_cache(world.app).await.unwrap();
    let second = world.build(&[("lock", "1")], Some(&first.image)).await.unwrap();
    assert_eq!(world.downloads(), ["again\n"], "the same as of the first");
    world.build(&[("lock", "1")], Some(&second.image)).await.unwrap();
    assert_eq!(world.downloads(), ["again\n", "again\nagain\n"], "only one build was meant");
}

#[tokio::test]
async fn garbage_is_what_neither_images_nor_caches_need() {
    let world = World::new();
    let first = world.build(&[("lock", "1"), ("app.txt", "1")], None).await.unwrap();
    let second = world.build(&[("lock", "1"), ("app.txt", "2")], Some(&first.image)).await.unwrap();
    let in_use: BTreeSet<_> = second.image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    assert_eq!(
        world.builder.collect_garbage(in_use.clone(), Budget::ENDLESS).await.unwrap().layers,
        0,
        "young layers stay"
    );
    for (digest, _) in world.builder.layers.list().unwrap() {
        let layer = fs::File::open(world.builder.layers.path(&digest)).unwrap();
        layer.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    let waiting = world.builder.garbage(in_use.clone()).await.unwrap();
    assert_eq!(waiting.len(), 2, "the first build's app layer and its outdated cache");
    assert!(waiting.iter().all(|garbage| garbage.bytes > 0));
    let little = Budget { bytes: 1, ..Budget::ENDLESS };
    let first_round = world.builder.collect_garbage(in_use.clone(), little).await.unwrap();
    assert_eq!((first_round.layers, first_round.more), (1, true), "more than it may is left for the next round");
    let second_round = world.builder.collect_garbage(in_use.clone(), little).await.unwrap();
    assert_eq!((second_round.layers, second_round.more), (1, false));
    assert_eq!(first_round.bytes + second_round.bytes, waiting.iter().map(|garbage| garbage.bytes).sum::<u64>());
    assert!(in_use.iter().all(|digest| world.builder.layers.contains(digest)));
    let third = world.build(&[("lock", "1"), ("app.txt", "2")], Some(&second.image)).await.unwrap();
    assert_eq!(third.image, second.image);
    world.builder.recover().await.unwrap();
}

#[tokio::test]
async fn a_failed_build_says_why_and_leaves_the_last_image_alone() {
    let world = World::new();
    let first = world.build(&[("lock", "1")], None).await.unwrap();
    let error = world.build(&[("lock", "2"), ("fail", "")], Some(&first.image)).await.unwrap_err();
    assert!(error.to_string().starts_with("Buildpack t/deps@1.0.0 failed with exit code 9."), "{error}");
    let error = world.build(&[("readme", "")], Some(&first.image)).await.unwrap_err();
    assert!(error.to_string().contains("t/deps  needs: lock"), "{error}");
    let second = world.build(&[("lock", "1")], Some(&first.image)).await.unwrap();
    assert_eq!(second.image, first.image);
}

#[tokio::test]
async fn slices_are_layers_of_their_own() {
    let world = World::new();
    let slices = "\n[[slices]]\npaths = ['*.md', 'docs']\n[[slices]]\npaths = ['docs/*', 'nothing']\n";
    let files = [("lock", "1"), ("slices", slices), ("a.md", ""), ("docs/b", "")];
    let built = world.build(&files, None).await.unwrap();
    let show = |made_by: &str| listing(&world.layer(&built.image, made_by).join("app"));
    assert_eq!(show("Application Slice: 1"), "a.md \ndocs /\ndocs/b \n");
    assert_eq!(show("Application Slice: 2"), "");
    assert!(show("Application Layer").starts_with("lock 1\n"));
}

#[tokio::test]
async fn bills_of_materials_are_kept_with_the_image_and_come_back_with_their_layers() {
    const BILLS: &str = "
        test ! -f deps.sbom.cdx.json || cp deps.sbom.cdx.json $OLDPWD/came-back
        for name in deps downloads launch build gone; do echo $name > $name.sbom.cdx.json; done
        echo spdx > deps.sbom.spdx.json";
    let world = World::new();
    let first = world.build(&[("lock", "1"), ("bills", BILLS)], None).await.unwrap();
    insta::assert_snapshot!(listing(&world.layer(&first.image, "Bill-of-Materials").join("layers/sbom")), @r"
    launch /
    launch/t_deps /
    launch/t_deps/deps /
    launch/t_deps/deps/sbom.cdx.json deps

    launch/t_deps/deps/sbom.spdx.json spdx

    launch/t_deps/sbom.cdx.json launch
    ");
    let show = |sboms: Vec<crate::Sbom>| {
        let line = |sbom: crate::Sbom| {
            format!("{} {} {}", sbom.layer.unwrap_or("-".into()), sbom.launch, sbom.document.trim())
        };
        sboms.into_iter().map(line).collect::<Vec<_>>()
    };
    let sboms = show(world.builder.sboms(world.app, &first.image).await.unwrap());
    assert_eq!(
        sboms,
        ["deps true deps", "deps true spdx", "- true launch", "downloads false downloads", "- false build"]
    );
    let second = world.build(&[("lock", "1"), ("bills", BILLS)], Some(&first.image)).await.unwrap();
    assert_eq!(listing(&world.layer(&second.image, "Application Layer")).matches("came-back deps").count(), 1);
    let sboms = show(world.builder.sboms(world.app, &first.image).await.unwrap());
    assert_eq!(
        sboms,
        ["deps true deps", "deps true spdx", "- true launch"],
        "what only builds need is kept of the last one"
    );
}

#[tokio::test]
async fn a_bill_of_materials_that_is_a_link_is_refused() {
    let world = World::new();
    let bills = "mkdir -p ../sbom/launch/t_deps; ln -s /etc/passwd ../sbom/launch/t_deps/sbom.cdx.json";
    let error = world.build(&[("lock", "1"), ("bills", bills)], None).await.unwrap_err();
    assert!(matches!(&error, BuildError::Dishonest(why) if why.contains("is no file")), "{error}");
}

/// Beside what a build always needs.
const PACKAGES: (&str, &str) = ("packages", "run = ['ruby3.3']\nbuild = ['gcc', 'ruby3.3']");

impl World {
    /// How many layers each container so far stood on.
    fn roots(&self) -> Vec<usize> {
        let roots = self.engine.roots.lock().unwrap();
        roots.iter().map(|RootFs::Layers(layers)| layers.len()).collect()
    }
}

#[tokio::test]
async fn packages_of_the_plan_lie_under_the_app_and_the_next_build_starts_with_them() {
    let world = World::new();
    let first = world.build(&[("lock", "1"), PACKAGES], None).await.unwrap();
    assert_eq!(world.roots(), [1, 2], "only detect ran without the packages");
    let packages = &first.image.layers[1];
    assert_eq!(packages.created_by, "Debian packages: ruby3.3");
    let sboms = world.builder.sboms(world.app, &first.image).await.unwrap();
    assert!(sboms[0].document.contains("pkg:deb/debian/ruby3.3@1?"), "{sboms:?}");
    let base = first.image.layers[0].diff_id.hex();
    assert_eq!(
        listing(&world.builder.layers.path(&packages.diff_id).join("usr")),
        format!("share /\nshare/ruby3.3 {base}\n")
    );
    assert_eq!(first.image.config.labels["io.buildpacks.rebasable"], "false");

    let second = world.build(&[("lock", "1"), PACKAGES], Some(&first.image)).await.unwrap();
    assert_eq!(second.image, first.image);
    assert_eq!(world.roots(), [1, 2, 2]);
    let in_use: BTreeSet<_> = second.image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    for (digest, _) in world.builder.layers.list().unwrap() {
        let layer = fs::File::open(world.builder.layers.path(&digest)).unwrap();
        layer.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    world.builder.collect_garbage(in_use, Budget::ENDLESS).await.unwrap();
    world.build(&[("lock", "1"), PACKAGES], Some(&second.image)).await.unwrap();
    assert_eq!(world.roots(), [1, 2, 2, 2], "what the next build starts with is no garbage");

    let without = world.build(&[("lock", "1")], Some(&second.image)).await.unwrap();
    assert_eq!(world.roots(), [1, 2, 2, 2, 2, 1]);
    assert!(without.image.layers.iter().all(|layer| !layer.created_by.contains("Debian")));
}

#[tokio::test]
async fn packages_that_cannot_be_had_are_named_and_what_is_no_name_never_gets_to_apt() {
    let world = World::new();
    let build = async |list: &str| {
        let built = world.build(&[("lock", "1"), ("packages", list)], None).await;
        built.unwrap_err().to_string()
    };
    let error = build("run = ['missing', 'gcc']").await;
    assert!(error.contains("gcc, missing") && error.contains("Unable to locate package missing"), "{error}");
    for name in ["-o", "a", "A", "x=1", "a b", "a;b", "../a", "~n", "?all"] {
        let error = build(&format!("run = ['{name}']")).await;
        assert!(error.contains("is not the name of a Debian package"), "{name}: {error}");
    }
}

#[tokio::test]
async fn packages_that_do_not_come_are_given_up_in_time_and_with_the_build() {
    let forever = [("lock", "1"), ("packages", "run = ['forever']")];
    let mut world = World::new();
    world.builder.limits.time = Duration::from_secs(3600);
    tokio::select! {
        _ = world.build(&forever, None) => unreachable!("it never comes"),
        () = world.forever.notified() => {}
    }
    world.forever.notified().await;

    let mut world = World::new();
    world.builder.limits.time = Duration::ZERO;
    let error = world.build(&forever, None).await.unwrap_err();
    assert!(matches!(error, BuildError::TimeLimit { .. }), "{error}");
}

#[tokio::test]
async fn an_exported_image_has_the_digests_that_it_says() {
    use std::io::Read;
    let world = World::new();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let built = world.build(&[("lock", "1"), ("app.txt", "hello"), (&long, "x")], None).await.unwrap();
    let mut bytes = Vec::new();
    crate::write_layout(&world.builder.layers, &built.image, "v1", &mut bytes).unwrap();
    let mut again = Vec::new();
    crate::write_layout(&world.builder.layers, &built.image, "v1", &mut again).unwrap();
    assert!(bytes == again, "the same image is the same file");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    let blob = |digest: &serde_json::Value| {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let content = &files[&format!("blobs/sha256/{hex}")];
        assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(content)), hex);
        content.clone()
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let manifest = json(&blob(&json(&files["index.json"])["manifests"][0]["digest"]));
    assert_eq!(manifest["config"]["digest"], built.image.digest.as_str());
    let kinds = manifest["layers"].as_array().unwrap().iter().chain([&manifest, &manifest["config"]]);
    for kind in kinds.map(|part| part["mediaType"].as_str().unwrap()) {
        assert!(kind.starts_with("application/vnd.oci.image."), "digest 7.8: {kind}");
    }
    let config = json(&blob(&manifest["config"]["digest"]));
    for (layer, diff_id) in
        manifest["layers"].as_array().unwrap().iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap())
    {
        assert_eq!((&layer["digest"], layer["size"].as_u64()), (diff_id, Some(blob(diff_id).len() as u64)));
    }
    assert_eq!(manifest["layers"].as_array().unwrap().len(), built.image.layers.len());
}

#[tokio::test]
async fn a_rebased_image_differs_in_its_run_image_alone() {
    let world = World::new();
    let built = world.build(&[("lock", "1")], None).await.unwrap();
    let stack = (world.builder.stack)().unwrap().unwrap();
    assert_eq!(crate::rebase(&built.image, &stack), Ok(None), "it lies on the newest already");
    let newer = crate::stack::Stack { run: built.image.digest.clone(), version: "2".into(), ..stack.clone() };
    let rebased = crate::rebase(&built.image, &newer).unwrap().unwrap();
    assert_eq!(rebased.layers[0].diff_id, newer.run);
    assert_eq!(rebased.layers[1..], built.image.layers[1..]);
    assert_ne!(rebased.digest, built.image.digest);
    assert_eq!(
        rebased.digest.hex(),
        hex::encode(<sha2::Sha256 as sha2::Digest>::digest(crate::oci_config(&rebased, "amd64")))
    );
    assert_eq!(crate::rebase(&rebased, &newer), Ok(None));
    assert_eq!(crate::rebase(&rebased, &stack).unwrap().unwrap(), built.image, "and back");
    let other = crate::stack::Stack { name: "other-1".into(), ..newer.clone() };
    assert_eq!(crate::rebase(&built.image, &other), Err(crate::RebaseError::OtherStack));
    let mut fixed = built.image.clone();
    fixed.config.labels.insert("io.buildpacks.rebasable".into(), "false".into());
    assert_eq!(crate::rebase(&fixed, &newer), Err(crate::RebaseError::NotRebasable));
    let next = world.build(&[("lock", "1")], Some(&rebased)).await.unwrap();
    assert_eq!(next.image, built.image, "the next build finds its layers in it");
}
