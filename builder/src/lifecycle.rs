//! The phases that run inside the build container, as the app's own uid: detect and build.
//!
//! What they found goes to the host in one file, `<layers>/config/outcome.json`. Everything under the layers directory may have
//! been written by the app's own code: the host treats it so.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::buildpack::{Buildpack, Buildpacks, Fit, Kind};
use crate::debian::{self, Packages};
use crate::env::Env;
use crate::errors::Failure;
use crate::extension::Generated;
use crate::formats::{Api, Distro, EXEC_ENV, Target, escaped};
use crate::order::Installed;
use crate::outcome::{Missing, Outcome};
use crate::usage::Watch;
use crate::{build, detect, extension};

/// Variable that lets buildpacks of other distributions take part.
pub(crate) const OTHER_DISTROS: &str = "PLATFORM_OTHER_DISTROS";

/// Runs detect and build over the mounted folders.
pub fn main(_argv: &[OsString]) -> ExitCode {
    let paths = Paths::new(std::env::vars_os());
    let watch = Watch::start(Path::new("/sys/fs/cgroup"));
    let mut outcome = run(&paths);
    outcome.usage = watch.map(Watch::end);
    let mut code = outcome.failure.as_ref().map_or(0, Failure::exit_code);
    if let Err(error) = outcome.write(&paths.layers) {
        complain(&error);
        code = 52;
    }
    ExitCode::from(code)
}

#[expect(clippy::print_stderr, reason = "this is a process of its own and the host reads its output")]
fn complain(error: &io::Error) {
    eprintln!("cannot write the outcome of the build: {error}");
}

/// Both phases; how they failed, if they did, is in the outcome.
pub(crate) fn run(paths: &Paths) -> Outcome {
    let mut outcome = Outcome::default();
    if let Err(failure) = phases(paths, &mut outcome) {
        outcome.failure = Some(failure);
    }
    outcome
}

fn phases(paths: &Paths, outcome: &mut Outcome) -> Result<(), Failure> {
    let started = Instant::now();
    std::fs::create_dir_all(paths.layers.join("config")).map_err(|error| Failure::io("prepare the build", &error))?;
    let installed = paths.installed()?;
    let found = detect::detect(paths, &installed)?;
    let (group, resolution) = (&found.buildpacks, &found.resolution);
    outcome.group = group.iter().map(|buildpack| buildpack.member()).collect();
    outcome.extensions = found.extensions.iter().map(|extension| extension.member()).collect();
    outcome.detect = started.elapsed();
    let packages = Packages::of(resolution)?;
    let generated = if paths.extended == extension::JUST_NOW || found.extensions.is_empty() {
        Generated::default()
    } else {
        say(&format!("-----> Generating with {}", names(&found.extensions)));
        extension::generate(paths, &found.extensions, resolution)?
    };
    if packages != paths.packages || !paths.is_extended_by(&generated) {
        outcome.missing = Some(Missing { packages, generated });
        return Ok(());
    }
    say(&format!("-----> Building with {}", names(group)));
    for buildpack in group {
        if let Fit::OtherDistro(theirs) = buildpack.fit(&paths.target) {
            say(&format!(
                " !     Warning: {} is made for {theirs}; this stack is {}.",
                buildpack.name(),
                paths.distro()
            ));
        }
    }
    let started = Instant::now();
    let built = build::build(paths, group, (resolution, extension::met(&found.extensions, resolution)), outcome);
    outcome.build = started.elapsed();
    built
}

fn names(group: &[&Buildpack]) -> String {
    group.iter().map(|buildpack| buildpack.name()).collect::<Vec<_>>().join(", ")
}

/// Where everything is, and for what target. Each has the specification's variable to override it.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) app: PathBuf,
    pub(crate) layers: PathBuf,
    pub(crate) platform: PathBuf,
    pub(crate) buildpacks: PathBuf,
    pub(crate) extensions: PathBuf,
    /// Where extensions write.
    pub(crate) generated: PathBuf,
    pub(crate) order: PathBuf,
    pub(crate) build_config: PathBuf,
    pub(crate) target: Target,
    /// Debian packages that are installed here for the app.
    pub(crate) packages: Packages,
    /// What image extensions wrote that this container and the run image are extended by: its key, or [`extension::JUST_NOW`].
    extended: String,
    /// Whether buildpacks that list only other distributions take part.
    pub(crate) other_distros: bool,
    own: Vec<(OsString, OsString)>,
}

impl Paths {
    /// From the process's environment.
    pub(crate) fn new(own: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let own: Vec<(OsString, OsString)> = own.collect();
        let value = |name: &str| own.iter().find(|(key, _)| key == OsStr::new(name)).map(|(_, value)| value.clone());
        let path = |name: &str, default: &str| value(name).map_or_else(|| PathBuf::from(default), PathBuf::from);
        let text = |name: &str| value(name).map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let distro = Distro { name: text("CNB_TARGET_DISTRO_NAME"), version: text("CNB_TARGET_DISTRO_VERSION") };
        let layers = path("CNB_LAYERS_DIR", "/layers");
        Self {
            app: path("CNB_APP_DIR", "/app"),
            generated: value("CNB_GENERATED_DIR").map_or_else(|| layers.join("generated"), PathBuf::from),
            layers,
            platform: path("CNB_PLATFORM_DIR", "/platform"),
            buildpacks: path("CNB_BUILDPACKS_DIR", "/cnb/buildpacks"),
            extensions: path("CNB_EXTENSIONS_DIR", "/cnb/extensions"),
            order: path("CNB_ORDER_PATH", "/cnb/order.toml"),
            build_config: path("CNB_BUILD_CONFIG_DIR", "/cnb/build-config"),
            target: Target {
                os: text("CNB_TARGET_OS"),
                arch: text("CNB_TARGET_ARCH"),
                variant: text("CNB_TARGET_ARCH_VARIANT"),
                distros: if distro.name.is_empty() { Vec::new() } else { vec![distro] },
            },
            packages: Packages::from_variable(&text(debian::VARIABLE)),
            extended: text(extension::VARIABLE),
            other_distros: value(OTHER_DISTROS).is_some(),
            own,
        }
    }

    /// What an order can name. Most builds have no extensions, and then there is no folder of them.
    fn installed(&self) -> Result<Installed, Failure> {
        let extensions = if self.extensions.is_dir() {
            Buildpacks::load(Kind::Extension, &self.extensions)?
        } else {
            Buildpacks::default()
        };
        Ok(Installed { buildpacks: Buildpacks::load(Kind::Buildpack, &self.buildpacks)?, extensions })
    }

    /// Whether the images are what these Dockerfiles make of them.
    fn is_extended_by(&self, generated: &Generated) -> bool {
        let wanted = (!generated.steps.is_empty()).then_some(&generated.key);
        match wanted {
            _ if self.extended == extension::JUST_NOW => true,
            None => self.extended.is_empty(),
            Some(key) => key.as_ref().is_some_and(|key| *key == self.extended),
        }
    }

    /// The stack's distribution, as a person calls it.
    pub(crate) fn distro(&self) -> String {
        self.target.distros.first().map_or_else(|| "unknown".to_owned(), ToString::to_string)
    }

    /// What every buildpack's environment starts from.
    pub(crate) fn base_env(&self) -> Env {
        Env::for_build(self.own.iter().cloned())
    }

    /// The environment of one buildpack or extension: `base`, the user's and operator's variables, and what the specification promises.
    pub(crate) fn buildpack_env(&self, buildpack: &Buildpack, base: &Env) -> io::Result<Env> {
        let mut env = base.clone();
        if !buildpack.toml.buildpack.clear_env {
            env.add_user(&self.platform.join("env"))?;
        }
        env.add_operator(&self.build_config.join("env"))?;
        let own = match buildpack.kind {
            Kind::Buildpack => "CNB_BUILDPACK_DIR",
            Kind::Extension => "CNB_EXTENSION_DIR",
        };
        env.set(own, &buildpack.dir);
        if buildpack.api() >= Api::new(0, 8) {
            env.set("CNB_PLATFORM_DIR", &self.platform);
        }
        if buildpack.api() >= Api::new(0, 10) {
            let distro = self.target.distros.first();
            let known = [
                ("CNB_TARGET_OS", Some(&self.target.os)),
                ("CNB_TARGET_ARCH", Some(&self.target.arch)),
                ("CNB_TARGET_ARCH_VARIANT", Some(&self.target.variant)),
                ("CNB_TARGET_DISTRO_NAME", distro.map(|distro| &distro.name)),
                ("CNB_TARGET_DISTRO_VERSION", distro.map(|distro| &distro.version)),
            ];
            for (name, value) in known {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    env.set(name, value);
                }
            }
        }
        if buildpack.api() >= Api::new(0, 12) {
            env.set("CNB_EXEC_ENV", EXEC_ENV);
        }
        Ok(env)
    }

    /// The layers directory of one buildpack.
    pub(crate) fn layers_of(&self, id: &str) -> PathBuf {
        self.layers.join(escaped(id))
    }

    /// A fresh directory for what passes between the lifecycle and one buildpack.
    pub(crate) fn scratch(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.layers.join("config").join(name);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// Prints a line among the buildpacks' own output.
pub(crate) fn say(line: &str) {
    // Output that nobody reads must not end the build.
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// The content of a file that may be missing.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::Folders as World;

    const ORDER: &str =
        "[[order]]\ngroup = [{id = 't/a'}, {id = 't/b', optional = true}]\n[[order]]\ngroup = [{id = 't/c'}]";

    #[test]
    fn detects_builds_and_hands_on_plan_environment_and_processes() {
        let world = World::new(ORDER)
            .buildpack(
                "t/a",
                "test -f app.txt; printf '[[provides]]\\nname = \"x\"' > $CNB_BUILD_PLAN_PATH",
                r#"
                mkdir -p $CNB_LAYERS_DIR/tool/bin $CNB_LAYERS_DIR/tool/env.build
                printf '#!/bin/sh\necho tool' > $CNB_LAYERS_DIR/tool/bin/tool; chmod +x $CNB_LAYERS_DIR/tool/bin/tool
                printf 'from a' > $CNB_LAYERS_DIR/tool/env.build/FROM_A
                printf '[types]\nbuild = true\ncache = true\n[metadata]\nv = 1' > $CNB_LAYERS_DIR/tool.toml
                mkdir $CNB_LAYERS_DIR/none; touch $CNB_LAYERS_DIR/none.toml
                printf '[[processes]]\ntype = "web"\ncommand = ["a"]\ndefault = true\n[[processes]]\ntype = "Big_Job"\ncommand = ["j"]' > $CNB_LAYERS_DIR/launch.toml
                printf '[metadata]\nkept = "yes"' > $CNB_LAYERS_DIR/store.toml
                cp $CNB_BP_PLAN_PATH plan-a
                test -z "$SECRET"; test "$CNB_TARGET_DISTRO_NAME" = debian; test "$CONFIG" = $'multi\nline'
                "#,
            )
            .buildpack(
                "t/b",
                "printf '[[requires]]\\nname = \"x\"\\n[requires.metadata]\\nversion = \"9\"' > $CNB_BUILD_PLAN_PATH",
                r#"
                test "$(tool)" = tool; test "$FROM_A" = "from a"
                mkdir $CNB_LAYERS_DIR/dist
                printf '[types]\nlaunch = true' > $CNB_LAYERS_DIR/dist.toml
                printf '[[processes]]\ntype = "web"\ncommand = ["b"]' > $CNB_LAYERS_DIR/launch.toml
                "#,
            )
            .buildpack("t/c", "echo needs: nothing", "");
        fs::write(world.path("app/app.txt"), "").unwrap();
        fs::write(world.path("platform/env/CONFIG"), "multi\nline").unwrap();
        let outcome = world.run();
        assert_eq!(outcome.failure, None);
        assert_eq!(outcome.group.iter().map(|member| member.id.as_str()).collect::<Vec<_>>(), ["t/a", "t/b"]);
        let layers: Vec<_> =
            outcome.layers.iter().map(|layer| (layer.buildpack.as_str(), layer.name.as_str())).collect();
        assert_eq!(layers, [("t/a", "tool"), ("t/b", "dist")]);
        let plan = fs::read_to_string(world.path("app/plan-a")).unwrap();
        assert_eq!(plan, "[[entries]]\nname = \"x\"\n\n[entries.metadata]\nversion = \"9\"\n");
        let processes: Vec<_> =
            outcome.processes.iter().map(|p| (p.process_type.as_str(), p.command.concat())).collect();
        assert_eq!(processes, [("big-job", "j".to_owned()), ("web", "b".to_owned())]);
        assert_eq!(outcome.default_process, None, "redefining the default type without saying default clears it");
        assert_eq!(outcome.stores["t/a"]["kept"].as_str(), Some("yes"));
        outcome.write(&world.path("layers")).unwrap();
        assert_eq!(Outcome::read(&world.path("layers")).unwrap().layers, outcome.layers);
    }

    #[test]
    fn nothing_detected_says_what_each_looked_for() {
        let world = World::new(ORDER)
            .buildpack("t/a", "echo looking; echo needs: app.txt; exit 100", "")
            .buildpack("t/b", "printf '[[requires]]\\nname = \"x\"' > $CNB_BUILD_PLAN_PATH", "")
            .buildpack("t/c", "echo oops; exit 3", "");
        fs::write(world.path("app/README.md"), "").unwrap();
        let failure = world.run().failure.unwrap();
        assert_eq!(failure.exit_code(), 21);
        insta::assert_snapshot!(failure, @r#"
        No buildpack can build this app. What each of them said:

          t/a  needs: app.txt
          t/b  fits, but not without another buildpack
          t/c  bin/detect failed (exit status: 3): oops

        The top folder of the pushed commit contains: README.md.

        Add and commit the file that your language's buildpack looks for, and push again.
        "#);
    }

    #[test]
    fn a_failing_buildpack_ends_the_build_with_its_exit_code() {
        let world = World::new("[[order]]\ngroup = [{id = 't/a'}]").buildpack("t/a", "true", "exit 7");
        let failure = world.run().failure.unwrap();
        assert_eq!(
            failure,
            Failure::BuildpackFailed { buildpack: "t/a@1.0.0".into(), how: "failed with exit code 7".into() }
        );
        assert_eq!(failure.exit_code(), 51);
    }

    #[test]
    fn files_against_the_specification_name_the_buildpack() {
        let cases = [
            ("echo 'launch = true' > $CNB_LAYERS_DIR/x.toml", "x.toml: `launch` belongs into the table [types]"),
            (
                "printf '[[unmet]]\\nname = \"y\"' > $CNB_LAYERS_DIR/build.toml",
                "build.toml calls \"y\" unmet, which is not in its plan",
            ),
            (
                "printf '[[processes]]\\ntype = \"a b\"\\ncommand = [\"x\"]' > $CNB_LAYERS_DIR/launch.toml",
                "launch.toml: process \"a b\" has a type",
            ),
            (
                "printf '[[processes]]\\ntype = \"a\"\\ncommand = \"x\"' > $CNB_LAYERS_DIR/launch.toml",
                "launch.toml: process \"a\" has a string",
            ),
        ];
        for (script, problem) in cases {
            let world = World::new("[[order]]\ngroup = [{id = 't/a'}]").buildpack("t/a", "true", script);
            let failure = world.run().failure.unwrap().to_string();
            assert!(failure.contains("t/a@1.0.0") && failure.contains(problem), "{failure}");
        }
    }
}
