//! The rules of the specification that show from build to build, and in the image. Rows begin with the section of its digest.

use std::fs;

use model::Image;
use serde_json::{Value, json};

use super::World;
use crate::metadata::{BUILD_LABEL, LIFECYCLE_LABEL};
use crate::testing::write_buildpack;
use crate::{BuildError, Built};

/// Makes the layer `x` of these types, with a file and metadata of this number.
fn layer(types: &str, number: u8) -> String {
    format!("mkdir -p $1/x; echo {number} > $1/x/file; {}", only_toml(types, number))
}

/// Says what it is for without making it.
fn only_toml(types: &str, number: u8) -> String {
    let types = types.split_whitespace().map(|flag| format!("{flag} = true\\n")).collect::<Vec<_>>().concat();
    format!("printf '[types]\\n{types}[metadata]\\nv = {number}' > $1/x.toml")
}

/// One of an image's own labels.
fn label(image: &Image, name: &str) -> Value {
    serde_json::from_str(&image.config.labels[name]).unwrap()
}

impl World {
    /// Builds one script and then the other.
    async fn twice(&self, first: &str, second: &str) -> (Built, Result<Built, BuildError>) {
        self.script(first);
        let first = self.build(&[("lock", "1")], None).await.unwrap();
        self.script(second);
        let second = self.build(&[("lock", "1")], Some(&first.image)).await;
        (first, second)
    }

    /// A file of the app as the build left it.
    fn app_file(&self, built: &Built, name: &str) -> String {
        fs::read_to_string(self.layer(&built.image, "Application Layer").join("app").join(name)).unwrap()
    }
}

#[tokio::test]
async fn what_a_build_finds_of_the_layers_of_the_last_one() {
    let rows = [
        ("6.1 launch: what it knew", "launch", "x.toml 1"),
        ("6.1 cache: all of it", "cache", "x.toml 1 x/file"),
        ("6.1 launch and cache: all of it", "launch cache", "x.toml 1 x/file"),
        ("6.1 build and cache: all of it", "build cache", "x.toml 1 x/file"),
        ("6.1 build: nothing", "build", ""),
        ("6.1 launch and build: nothing", "launch build", ""),
        ("6.1 nothing: nothing", "", ""),
    ];
    let look = "
        if test -e $1/x.toml; then echo -n x.toml $(sed -n 's/^v = //p' $1/x.toml); grep types $1/x.toml || true; fi > found
        test ! -e $1/x/file || echo -n ' x/file' >> found; test ! -e $1/x.ignore";
    for (rule, types, expected) in rows {
        let world = World::new();
        let (_, second) = world.twice(&layer(types, 1), look).await;
        let second = second.unwrap();
        assert_eq!(world.app_file(&second, "found"), expected, "{rule}");
        let is_there = second.image.layers.iter().any(|layer| layer.created_by.starts_with("Layer:"));
        assert!(!is_there, "6.2 a buildpack says anew what a layer is for: {rule}");
        let third = world.build(&[("lock", "1")], Some(&second.image)).await.unwrap();
        assert_eq!(world.app_file(&third, "found"), "", "6.2 one that nobody wanted is gone: {rule}");
    }
}

#[tokio::test]
async fn a_layer_without_contents_is_that_of_the_last_image() {
    let (launch, both, cache) = (only_toml("launch", 2), only_toml("launch cache", 2), only_toml("cache", 2));
    let emptied = |toml: &str| format!("rm -r $1/x; {toml}");
    let missing = "neither made it in this build";
    let rows = [
        ("6.5 with what is known now", layer("launch", 1), launch.clone(), ""),
        ("6.5 also if it came back and is removed", layer("launch cache", 1), emptied(&launch), ""),
        ("6.5 a cached one has contents", layer("launch", 1), both, missing),
        ("6.5 the last image must have it", layer("cache", 1), emptied(&launch), missing),
        ("6.5 there must be one", "true".to_owned(), launch, missing),
        ("6.5 what is only cached may have none", layer("cache", 1), emptied(&cache), ""),
    ];
    for (rule, first, second, problem) in rows {
        let world = World::new();
        let (first, second) = world.twice(&first, &second).await;
        let said = second.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
        let x = |image: &Image| label(image, LIFECYCLE_LABEL)["buildpacks"][0]["layers"]["x"].clone();
        if let Ok(second) = second {
            let (old, new) = (x(&first.image), x(&second.image));
            assert_eq!(old["sha"], new["sha"], "{rule}");
            assert!(new.is_null() || new["data"]["v"] == 2, "{rule}: {new}");
        }
    }
}

#[tokio::test]
async fn a_store_outlives_builds_that_do_not_write_it_and_a_purged_cache_which_no_layer_does() {
    let world = World::new();
    let first = format!("{}; printf '[metadata]\nn = 7\n' > $1/store.toml", layer("launch cache", 1));
    let keep = only_toml("launch cache", 1);
    let look = format!("mv $1/store.toml found; if test -e $1/x.toml; then echo x >> found; {keep}; fi");
    let (_, second) = world.twice(&first, &look).await;
    let second = second.unwrap();
    assert_eq!(world.app_file(&second, "found"), "[metadata]\nn = 7\nx\n", "4.9 it is there in the next build");
    world.builder.purge_cache(world.app).await.unwrap();
    let third = world.build(&[("lock", "1")], Some(&second.image)).await.unwrap();
    assert_eq!(world.app_file(&third, "found"), "[metadata]\nn = 7\n", "1.5 and when no layer is");
}

#[tokio::test]
async fn a_damaged_label_costs_the_layers_and_nothing_else() {
    let world = World::new();
    let mut first = world.build(&[("lock", "1")], None).await.unwrap();
    first.image.config.labels.insert(LIFECYCLE_LABEL.to_owned(), "{".to_owned());
    let second = world.build(&[("lock", "1")], Some(&first.image)).await.unwrap();
    assert_eq!(second.image.layers, first.image.layers);
}

/// An image of two app layers, with bills of materials and a label.
async fn described(world: &World) -> Image {
    let slices = "\n[[slices]]\npaths = ['*.md']\n[[labels]]\nkey = 'a'\nvalue = 'label'\n";
    let files = [("lock", "1"), ("slices", slices), ("a.md", ""), ("bills", "echo 1 > deps.sbom.cdx.json")];
    world.build(&files, None).await.unwrap().image
}

#[tokio::test]
async fn an_image_tells_other_programs_how_to_run_it() {
    let image = described(&World::new()).await;
    let made_by: Vec<&str> = image.layers.iter().map(|layer| layer.created_by.as_str()).collect();
    let order = [
        "Run image test-1",
        "Layer: 'conf', Created by buildpack: t/deps@1.0.0",
        "Layer: 'deps', Created by buildpack: t/deps@1.0.0",
        "Software Bill-of-Materials",
        "Application Slice: 1",
        "Application Layer",
        "Application Launcher",
        "Buildpacks Launcher Config and Process Types",
    ];
    assert_eq!(made_by, order, "7.1");
    let document: Value = serde_json::from_slice(&crate::oci_config(&image, "amd64")).unwrap();
    let created = "1980-01-01T00:00:01Z";
    assert_eq!(document["created"], created, "7.5");
    let history = document["history"].as_array().unwrap();
    assert!(history.len() == order.len() && history.iter().all(|layer| layer["created"] == created), "7.5");
    let config = &document["config"];
    assert_eq!(config["Entrypoint"], json!(["/cnb/process/web"]), "7.3");
    assert_eq!((&config["Cmd"], &config["WorkingDir"]), (&Value::Null, &json!("/app")), "7.3");
    let env: Vec<&str> = config["Env"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for variable in ["CNB_LAYERS_DIR=/layers", "CNB_APP_DIR=/app", "PATH=/cnb/process:/cnb/lifecycle:/usr/local/sbin:"]
    {
        assert!(env.iter().any(|set| set.starts_with(variable)), "7.4 {variable}: {env:?}");
    }
    let labels = [("a", "label"), ("io.buildpacks.project.metadata", "{}"), ("io.buildpacks.rebasable", "true")];
    for (name, value) in labels {
        assert_eq!(config["Labels"][name], value, "7.5");
    }
}

#[tokio::test]
async fn an_image_tells_other_programs_what_it_is_made_of() {
    let image = described(&World::new()).await;
    let metadata = label(&image, LIFECYCLE_LABEL);
    let buildpack = &metadata["buildpacks"][0];
    assert_eq!(buildpack["key"], "t/deps", "1.2 labels have the id as it is");
    let (conf, deps) = (&buildpack["layers"]["conf"], &buildpack["layers"]["deps"]);
    let shas = [
        (&metadata["runImage"]["topLayer"], 0),
        (&metadata["stack"]["runImage"]["topLayer"], 0),
        (&conf["sha"], 1),
        (&deps["sha"], 2),
        (&metadata["sbom"]["sha"], 3),
        (&metadata["app"][0]["sha"], 4),
        (&metadata["app"][1]["sha"], 5),
        (&metadata["launcher"]["sha"], 6),
        (&metadata["config"]["sha"], 7),
        (&metadata["process-types"]["sha"], 7),
    ];
    for (sha, number) in shas {
        assert_eq!(sha, image.layers[number].diff_id.as_str(), "7.6 {}", image.layers[number].created_by);
    }
    let flags = (&deps["launch"], &deps["build"], &deps["cache"], &deps["data"]);
    assert_eq!(flags, (&json!(true), &json!(false), &json!(true), &json!({ "lock": "1" })), "7.6");
    let build = label(&image, BUILD_LABEL);
    let process = json!({ "type": "web", "command": ["run"], "args": [], "direct": true, "buildpackID": "t/deps" });
    assert_eq!(build["buildpacks"], json!([{ "id": "t/deps", "version": "1.0.0" }]), "7.7");
    assert_eq!(build["processes"], json!([process]), "7.7");
    assert_eq!(build["buildpack-default-process-type"], "web", "7.7");
}

#[tokio::test]
async fn an_image_without_a_default_process_asks_for_a_command() {
    let world = World::new();
    world.script("echo \"processes = [{type='web', command=['run']}]\" > $1/launch.toml");
    let built = world.build(&[("lock", "1")], None).await.unwrap();
    assert_eq!(built.image.config.entrypoint, ["/cnb/lifecycle/launcher"], "7.3 web is none by itself");
}

/// What a script of a project does: it tells two variables and which of the files are there.
const SCRIPT: &str = r#"
echo "@ $SAID $CONFIG $(ls -d left *.md kept.txt 2>/dev/null)" >> seen
printf '[[labels]]\nkey = "who"\nvalue = "@"' > "$1/launch.toml"
"#;

#[tokio::test]
async fn a_project_descriptor_shapes_the_build() {
    let env = |table: &str| {
        let variable = |name: &str, value: &str| format!("[[{table}]]\nname = '{name}'\nvalue = '{value}'\n");
        variable("SAID", "yes") + &variable("CONFIG", "no")
    };
    let script = |table: &str, id: &str| {
        let text = SCRIPT.replace('@', id);
        format!("[[{table}]]\nid = '{id}'\n[{table}.script]\ninline = '''{text}'''\n")
    };
    let second = [
        "[_]\nschema-version = '0.2'\n[io.buildpacks]\nbuilder = 'some/builder'\nexclude = ['/left', '*.md']\n",
        &env("io.buildpacks.build.env"),
        &script("io.buildpacks.pre.group", "me/pre"),
        &script("io.buildpacks.post.group", "me/post"),
        "[com.example]\nodd = 1\n",
    ];
    let first = [
        "[project]\nid = 'x'\n[build]\nexclude = ['/left', '*.md']\n",
        &env("build.env"),
        &script("build.buildpacks", "me/pre"),
        "[[build.buildpacks]]\nid = 't/deps'\nversion = '1.0.0'\n",
        &script("build.buildpacks", "me/post"),
    ];
    for (version, text) in [("11.1 0.2", second.concat()), ("11.1 0.1", first.concat())] {
        let world = World::new();
        let buildpacks = world.dir.path().join("buildpacks");
        write_buildpack(&buildpacks, ("platform/procfile", "0.10", ""), "exit 100", "true");
        let files = [("lock", "1"), ("project.toml", &*text), ("left/x", ""), ("a.md", ""), ("kept.txt", "")];
        let built = world.build(&files, None).await.unwrap();
        assert_eq!(built.buildpacks, ["me/pre@0.0.0", "t/deps@1.0.0", "me/post@0.0.0"], "{version}");
        let seen = world.app_file(&built, "seen");
        assert_eq!(seen, "me/pre yes value kept.txt\nme/post yes value kept.txt\n", "{version}");
        assert_eq!(built.image.config.labels["who"], "me/post", "4.6 of labels the last one wins: {version}");
        let metadata = label(&built.image, LIFECYCLE_LABEL);
        assert_eq!(metadata["buildpacks"][0]["key"], "me/pre", "1.2 {version}");
    }
}
