//! The buildpacks' executable as the lifecycle runs it, where that needs no package registry. Builds of every language in real
//! containers are among the platform's own tests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folders that a lifecycle hands to one buildpack.
struct World(tempfile::TempDir);

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for folder in ["app", "layers", "platform/env", "bin"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        for phase in ["detect", "build"] {
            let program = env!("CARGO_BIN_EXE_buildpacks");
            std::os::unix::fs::symlink(program, world.path("bin").join(phase)).unwrap();
        }
        fs::write(world.path("plan.toml"), "").unwrap();
        buildpacks::install(&world.path("buildpacks")).unwrap();
        for (name, content) in files {
            world.write(name, content);
        }
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path("app").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, id: &str, phase: &str) -> Command {
        let mut command = Command::new(self.path("bin").join(phase));
        command
            .current_dir(self.path("app"))
            .env("CNB_BUILDPACK_DIR", self.path("buildpacks").join(format!("platform_{id}/0.1.0")))
            .env("CNB_PLATFORM_DIR", self.path("platform"))
            .env("CNB_BUILD_PLAN_PATH", self.path("plan.toml"))
            .env("CNB_BP_PLAN_PATH", self.path("plan.toml"))
            .env("CNB_LAYERS_DIR", self.path("layers"))
            .envs([("CNB_TARGET_OS", "linux"), ("CNB_TARGET_ARCH", "amd64")])
            .envs([("CNB_TARGET_DISTRO_NAME", "debian"), ("CNB_TARGET_DISTRO_VERSION", "13")]);
        // libcnb reads these, whatever the buildpack's API.
        let (layers, platform, plan) = (self.path("layers"), self.path("platform"), self.path("plan.toml"));
        if phase == "detect" {
            command.args([platform, plan])
        } else {
            command.args([layers, platform, plan])
        };
        command
    }

    fn detect(&self, id: &str) -> (Option<i32>, String) {
        let output = self.command(id, "detect").output().unwrap();
        (output.status.code(), said(&output))
    }

    /// Builds; what it said, and launch.toml if there is one.
    fn build(&self, id: &str) -> Built {
        fs::write(self.path("plan.toml"), "").unwrap();
        let output = self.command(id, "build").output().unwrap();
        let launch = fs::read_to_string(self.path("layers/launch.toml")).unwrap_or_default();
        Built { is_good: output.status.success(), said: said(&output), launch }
    }
}

struct Built {
    is_good: bool,
    said: String,
    launch: String,
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn each_buildpack_knows_its_apps_and_says_what_it_looked_for() {
    for (id, file) in [
        ("nodejs", "package.json"),
        ("python", "requirements.txt"),
        ("go", "go.mod"),
        ("deno", "deno.json"),
        ("static", "index.html"),
        ("procfile", "Procfile"),
    ] {
        let world = World::new(&[]);
        let (code, said) = world.detect(id);
        assert_eq!(code, Some(100), "{id}: {said}");
        assert!(said.contains(file), "{id}: {said}");
        world.write(file, "");
        let (code, said) = world.detect(id);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{id}");
        let plan: toml::Table = fs::read_to_string(world.path("plan.toml")).unwrap().parse().unwrap();
        assert_eq!(plan["provides"][0]["name"], plan["requires"][0]["name"]);
    }
}

#[test]
fn a_procfile_becomes_process_types_that_read_profiles_first() {
    let world =
        World::new(&[("Procfile", "web: serve --port $PORT\nWorker_One: work\n"), (".profile", "export A=1\n")]);
    let built = world.build("procfile");
    assert!(built.is_good, "{}", built.said);
    insta::assert_snapshot!(format!("{}\n{}", built.said, built.launch));
}

#[test]
fn a_dotnet_project_is_refused_unless_a_procfile_starts_what_was_published() {
    let world = World::new(&[("Shop.slnx", "")]);
    let built = world.build("dotnet");
    assert!(!built.is_good && built.said.contains(".NET is not offered"), "{}", built.said);
    world.write("Procfile", "web: ./publish/Shop\n");
    let built = world.build("dotnet");
    assert!(built.is_good && built.said.contains("nothing compiles this .NET project"), "{}", built.said);
}

#[test]
fn a_procfile_that_cannot_be_understood_stops_the_build_and_says_where() {
    let built = World::new(&[("Procfile", "web: ok\nworker\n")]).build("procfile");
    assert!(!built.is_good);
    insta::assert_snapshot!(built.said);
}

#[test]
fn the_command_of_a_process_runs_after_its_profiles() {
    let world =
        World::new(&[("Procfile", "web: echo $A $B $C\n"), (".profile", "B=2\n"), (".profile.d/a.sh", "A=1\n")]);
    let launch: toml::Table = world.build("procfile").launch.parse().unwrap();
    let line = launch["processes"][0]["args"][0].as_str().unwrap();
    let output = Command::new("bash").args(["-c", line]).current_dir(world.path("app")).env("C", "3").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 2 3\n");
}

#[test]
fn a_site_gets_a_server_that_starts_on_the_port_it_is_given() {
    let world = World::new(&[("public/index.html", "hello"), ("static.json", r#"{"root": "public"}"#)]);
    let built = world.build("static");
    assert!(built.is_good, "{}", built.said);
    assert!(built.launch.contains(r#"type = "web""#), "{}", built.launch);
    let configuration = started(&world, &[("PORT", "4321")]);
    assert!(configuration.contains("listen 4321;"), "{configuration}");
    assert!(configuration.contains(r#"root "/app/public";"#), "{configuration}");
}

/// The configuration that nginx is given when a dyno with these variables starts, or what is said instead.
fn started(world: &World, variables: &[(&str, &str)]) -> String {
    let fake = world.path("fake");
    fs::create_dir_all(&fake).unwrap();
    let show = "#!/bin/sh\ncat \"$4\" \"$(dirname \"$4\")\"/passwords 2> /dev/null\nrm -r \"$(dirname \"$4\")\"\n";
    fs::write(fake.join("nginx"), show).unwrap();
    make_executable(&fake.join("nginx"));
    let path = format!("{}:/usr/bin:/bin", fake.display());
    let server = world.path("layers/nginx/bin/serve-files");
    let output = Command::new(server).env_clear().env("PATH", path).envs(variables.iter().copied()).output().unwrap();
    said(&output)
}

#[test]
fn config_vars_of_a_dyno_are_put_into_the_settings_of_its_site() {
    let settings = r#"{"root": ".", "basic_auth": true, "canonical_host": "${HOST_NAME}",
        "proxies": {"/api": {"origin": "https://${API}/v1"}}}"#;
    let world = World::new(&[("index.html", "hello"), ("static.json", settings)]);
    let built = world.build("static");
    assert!(built.is_good, "{}", built.said);
    assert!(started(&world, &[]).contains("BASIC_AUTH_USERNAME and BASIC_AUTH_PASSWORD"));
    let user = [("BASIC_AUTH_USERNAME", "ada"), ("BASIC_AUTH_PASSWORD", "secret")];
    let with = |more: &[(&'static str, &'static str)]| started(&world, &[&user, more].concat());
    assert!(with(&[]).contains("static.json: the config var HOST_NAME is not set"));
    let hostile = with(&[("HOST_NAME", "www.example.com"), ("API", "x\"; return 200 \"")]);
    assert!(hostile.contains("the config var API has a character that may not be there"), "{hostile}");
    let good = with(&[("HOST_NAME", "www.example.com"), ("API", "api.example.com")]);
    for part in [
        "if ($host != \"www.example.com\")",
        "location ^~ \"/api/\" {",
        "set $origin \"https://api.example.com\";",
        "rewrite \"^/api/(.*)$\" \"/v1/$1\" break;",
        "ada:$6$",
    ] {
        assert!(good.contains(part), "{part} in {good}");
    }
    assert!(!good.contains("secret"), "{good}");
}

#[test]
fn what_an_app_does_wrong_is_told_before_anything_is_downloaded() {
    for (id, files, expected) in [
        ("nodejs", [("package.json", "{"), ("x", "")], "package.json cannot be understood"),
        ("go", [("go.mod", "module x\ngo one\n"), ("x", "")], "go.mod names no usable Go version"),
        (
            "static",
            [("static.json", r#"{"root": "dist"}"#), ("x", "")],
            "The folder `dist`, whose files are to be served",
        ),
    ] {
        let built = World::new(&files).build(id);
        assert!(!built.is_good, "{id} built");
        assert!(built.said.contains(expected), "{id}: {}", built.said);
    }
}

#[test]
fn a_folder_that_is_no_buildpack_of_ours_is_refused() {
    let world = World::new(&[]);
    let built = world.build("cobol");
    assert!(!built.is_good);
    assert!(built.said.contains("is not a buildpack of this platform"), "{}", built.said);
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
