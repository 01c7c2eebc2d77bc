//! The rules of the buildpack specification that show from inside a build. A row begins with the section of the specification's
//! digest; what its script checks, it checks by failing. What shows only from build to build or in the image is in
//! [`super::layers`], what shows when the image runs in the launcher's own tests.

mod building;
mod extensions;

use std::fs;

use crate::buildpack::{Buildpacks, Kind};
use crate::testing::Folders;

/// How a build of one buildpack ended: nothing, or what went wrong.
fn ended(api: &str, detect: &str, build: &str) -> String {
    let outcome = Folders::one(api, detect, build).file("app/app.txt", "").run();
    outcome.failure.map(|failure| failure.to_string()).unwrap_or_default()
}

#[test]
fn descriptors() {
    let id = |id: &str| format!("api = '0.10'\n[buildpack]\nid = '{id}'\nversion = '1.0.0'");
    let version = |version: &str| format!("api = '0.10'\n[buildpack]\nid = 'a'\nversion = '{version}'");
    let more = |more: &str| format!("{}\n{more}", id("a"));
    let rows = [
        ("2.2 an id has letters, digits, dots, slashes, dashes", id("a.b/C-9"), ""),
        ("2.2 an id that the lifecycle uses", id("sbom"), "is not an id"),
        ("2.2 an id that leads elsewhere", id("../a"), "is not an id"),
        ("2.2 an id with a space", id("a b"), "is not an id"),
        ("2.2 a version has three numbers", version("10.0.3"), ""),
        ("2.2 a version of two", version("1.0"), "is not a version"),
        ("2.2 a number with a zero before it", version("1.02.0"), "is not a version"),
        ("2.1 an API from before our time", id("a").replace("0.10", "0.6"), "Buildpack API 0.6 is not supported"),
        ("2.1 the oldest API", id("a").replace("0.10", "0.7"), ""),
        ("2.1 the newest API", id("a").replace("0.10", "0.12"), ""),
        ("2.7 keys that nobody knows", more("exec-env = ['test']\n[metadata]\nanything = [1]\n[odd]\nx = 1"), ""),
        (
            "2.1 licences, keywords and formats",
            more("sbom-formats = ['a/b']\nkeywords = ['x']\nlicenses = [{type = 'MIT'}]"),
            "",
        ),
        ("2.1 no TOML", "api = ".to_owned(), "buildpack.toml cannot be used"),
    ];
    for (rule, toml, problem) in rows {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/1.0.0")).unwrap();
        fs::write(folder.path().join("a/1.0.0/buildpack.toml"), toml).unwrap();
        let said = Buildpacks::load(Kind::Buildpack, folder.path())
            .err()
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
    }
}

#[test]
fn detection() {
    let rows = [
        ("3.1 it runs in the app's folder", "test -f app.txt", ""),
        (
            "3.1 it is given the platform's folder and the plan",
            "test -d \"$1/env\"; test -f \"$2\"; test ! -s \"$2\"",
            "",
        ),
        (
            "3.2 both are in its environment",
            "test \"$1\" = \"$CNB_PLATFORM_DIR\"; test \"$2\" = \"$CNB_BUILD_PLAN_PATH\"",
            "",
        ),
        ("3.2 it knows where it lies", "test -x \"$CNB_BUILDPACK_DIR/bin/detect\"", ""),
        (
            "3.2 it knows the target, as far as that is known",
            "test $CNB_TARGET_OS = linux; test -z \"${CNB_TARGET_ARCH_VARIANT+x}\"",
            "",
        ),
        ("5.1 nothing else of the lifecycle's environment", "test -z \"$SECRET$CNB_LAYERS_DIR$CNB_APP_DIR\"", ""),
        ("3.1 it has no input", "! read -r line", ""),
        ("3.3 100 means no", "echo needs: that; exit 100", "t/a  needs: that"),
        ("3.3 anything else is an error", "echo oops >&2; exit 1", "t/a  bin/detect failed (exit status: 1): oops"),
        ("3.4 a plan must be TOML", "echo 'provides = 1' > $2", "wrote a build plan that is not valid"),
        ("3.4 no plan is read of one that says no", "echo 'provides = 1' > $2; exit 100", "t/a  did not say why"),
        (
            "3.4 a version of a require belongs into its metadata",
            "printf '[[requires]]\nname = \"x\"\nversion = \"1\"' > $2",
            "the version of `x`",
        ),
        (
            "3.9 what is provided must be required",
            "printf '[[provides]]\nname = \"x\"' > $2",
            "provides x, which no buildpack requires",
        ),
        (
            "3.9 one may require what one provides",
            "printf '[[provides]]\nname = \"x\"\n[[requires]]\nname = \"x\"' > $2",
            "",
        ),
        ("3.8 an alternative may do", "printf '[[provides]]\nname = \"x\"\n[[or]]' > $2", ""),
    ];
    for (rule, script, problem) in rows {
        let said = ended("0.10", script, "true");
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
    }
}

/// Digest 3.2 and 4.1.
#[test]
fn each_api_has_its_variables() {
    let names = "CNB_PLATFORM_DIR CNB_BUILD_PLAN_PATH CNB_LAYERS_DIR CNB_BP_PLAN_PATH CNB_TARGET_OS CNB_EXEC_ENV";
    let told = format!("for name in {names}; do test -z \"${{!name}}\" || echo -n \" $name\"; done");
    let rows = [
        ("0.7", "", ""),
        ("0.8", " CNB_PLATFORM_DIR CNB_BUILD_PLAN_PATH", " CNB_PLATFORM_DIR CNB_LAYERS_DIR CNB_BP_PLAN_PATH"),
        (
            "0.10",
            " CNB_PLATFORM_DIR CNB_BUILD_PLAN_PATH CNB_TARGET_OS",
            " CNB_PLATFORM_DIR CNB_LAYERS_DIR CNB_BP_PLAN_PATH CNB_TARGET_OS",
        ),
        (
            "0.12",
            " CNB_PLATFORM_DIR CNB_BUILD_PLAN_PATH CNB_TARGET_OS CNB_EXEC_ENV",
            " CNB_PLATFORM_DIR CNB_LAYERS_DIR CNB_BP_PLAN_PATH CNB_TARGET_OS CNB_EXEC_ENV",
        ),
    ];
    for (api, detect, build) in rows {
        let folders = Folders::one(api, &format!("{told} > detect"), &format!("{told} > build"));
        assert_eq!(folders.run().failure, None);
        let read = |name: &str| fs::read_to_string(folders.path("app").join(name)).unwrap();
        assert_eq!((read("detect").as_str(), read("build").as_str()), (detect, build), "{api}");
    }
}

/// Digest 3.5.
#[test]
fn a_buildpack_of_several_groups_is_asked_once() {
    let order = "[[order]]\ngroup = [{id = 't/a'}, {id = 't/no'}]\n[[order]]\ngroup = [{id = 't/a'}]";
    let folders = Folders::new(order).buildpack("t/a", "echo asked >> asked", "").buildpack("t/no", "exit 100", "");
    assert_eq!(folders.run().failure, None);
    assert_eq!(fs::read_to_string(folders.path("app/asked")).unwrap(), "asked\n");
}

/// Order and groups: what `bin/detect` of a, b and c does, and who builds then, with the names of its plan, or how it ends.
#[test]
fn groups() {
    /// Provides and requires, `+x -y`, with alternatives after `|`.
    fn plan(words: &str) -> String {
        let table = |or: &str, word: &str| {
            let key = if word.starts_with('+') { "provides" } else { "requires" };
            format!("[[{or}{key}]]\\nname = \"{}\"\\n", &word[1..])
        };
        let section = |(index, section): (usize, &str)| {
            let (or, begin) = if index == 0 { ("", "") } else { ("or.", "[[or]]\\n") };
            section.split_whitespace().fold(begin.to_owned(), |text, word| text + &table(or, word))
        };
        let toml: String = words.split('|').enumerate().map(section).collect();
        format!("printf '{toml}' > $CNB_BUILD_PLAN_PATH")
    }
    let yes = || "true".to_owned();
    let (no, broken) = (|| "exit 100".to_owned(), || "exit 1".to_owned());
    let rows = [
        ("3.7 the first that fits", "a\nb", [yes(), yes(), yes()], "a"),
        ("3.7 all that are required must fit", "a b\nc", [yes(), no(), yes()], "c"),
        ("3.3 and not be broken", "a b\nc", [yes(), broken(), yes()], "c"),
        ("3.3 who is optional may say no", "a b?", [yes(), no(), yes()], "a"),
        ("3.3 or be broken", "a b?", [yes(), broken(), yes()], "a"),
        ("3.7 but takes part if it fits", "a b?", [yes(), yes(), yes()], "a b"),
        ("3.7 somebody must be left", "a? b?", [no(), no(), yes()], "20"),
        ("1.4 nobody fits", "a\nb", [no(), no(), yes()], "20"),
        ("1.4 nobody fits and one is broken", "a\nb", [no(), broken(), yes()], "21"),
        ("3.6 nobody is in a group twice", "a b a", [yes(), yes(), yes()], "a b"),
        ("2.3 each group of a composite in turn, with those around it", "abc b", [no(), yes(), yes()], "c b"),
        ("3.6 a composite may be optional as a whole", "abc? b", [no(), yes(), no()], "b"),
        ("3.9 what is required is provided before", "a b", [plan("-x"), plan("+x"), yes()], "20"),
        ("3.9 by somebody who is there", "a? b", [plan("-x"), yes(), yes()], "b"),
        ("3.9 who goes for that may take others along", "a? b? c", [plan("+x"), plan("-x -y"), yes()], "c"),
        ("3.10 a second provider too must be required", "a b c", [plan("+x"), plan("-x"), plan("+x")], "20"),
        ("3.7 a group whose plan does not resolve gives way", "a\nb", [plan("+x"), yes(), yes()], "b"),
        ("3.8 an alternative of one may serve another", "a b", [plan("+x | +y"), plan("-y"), yes()], "a:y b"),
        ("3.8 the earliest ones that fit together", "a b", [plan("+x -x | +y -y"), plan("| +z"), yes()], "a:x b"),
        ("3.8 those of the last change first", "a b", [plan("+x | +y"), plan("-z | -x | -y"), yes()], "a:x b"),
        ("3.9 an optional one is worth its last alternative", "a? b", [plan("+y | +x -x"), yes(), yes()], "a:x b"),
    ];
    for (rule, order, scripts, expected) in rows {
        let entry = |word: &str| format!("{{id='t/{}',optional={}}}", word.trim_end_matches('?'), word.ends_with('?'));
        let group = |line: &str| line.split(' ').map(entry).collect::<Vec<_>>().join(",");
        let order: String =
            order.lines().map(|line| format!("[[order]]\ngroup = [{}]\n", group(line))).collect::<Vec<_>>().concat();
        let composite = "api='0.10'\n[buildpack]\nid='t/abc'\nversion='1.0.0'\n\
                         [[order]]\ngroup=[{id='t/a',version='1.0.0'}]\n[[order]]\ngroup=[{id='t/c',version='1.0.0'}]";
        let folders = ["t/a", "t/b", "t/c"].iter().zip(&scripts).fold(Folders::new(&order), |folders, (id, script)| {
            folders.buildpack(id, script, "sed -n 's/^name = \"\\(.*\\)\"/:\\1/p' $3 > plan-${CNB_LAYERS_DIR##*_}")
        });
        let folders = folders.file("buildpacks/t_abc/1.0.0/buildpack.toml", composite);
        let outcome = folders.run();
        let names: Vec<String> = (outcome.group.iter().map(|member| member.id.trim_start_matches("t/").to_owned()))
            .map(|id| fs::read_to_string(folders.path(&format!("app/plan-{id}"))).map(|plan| id.clone() + plan.trim()))
            .collect::<Result<_, _>>()
            .unwrap();
        let said = outcome.failure.map_or_else(|| names.join(" "), |failure| failure.exit_code().to_string());
        assert_eq!(said, expected, "{rule}");
    }
}

/// Digest 2.6; one that may stay away does.
#[test]
fn a_buildpack_for_another_system_is_an_error_where_it_is_required() {
    let other = "[[targets]]\nos = 'windows'";
    for (optional, ended) in [(false, 21), (true, 0)] {
        let order = format!("[[order]]\ngroup = [{{id = 't/a'}}, {{id = 't/other', optional = {optional}}}]");
        let folders = Folders::new(&order).buildpack("t/a", "true", "true");
        let outcome = folders.described("t/other", ("0.10", other), "true", "true").run();
        assert_eq!(outcome.failure.as_ref().map_or(0, crate::Failure::exit_code), ended, "{:?}", outcome.failure);
    }
}

#[test]
fn a_buildpack_may_be_for_other_execution_environments_since_0_12() {
    for (api, more, ended) in [
        ("0.11", "exec-env = ['test']", 0),
        ("0.12", "exec-env = ['test']", 20),
        ("0.12", "exec-env = [{name = 'test'}]", 20),
        ("0.12", "exec-env = [{name = 'test'}, {name = 'production'}]", 0),
        ("0.12", "exec-env = ['*']", 0),
    ] {
        let folders = Folders::new("[[order]]\ngroup = [{id = 't/a'}]");
        let outcome = folders.described("t/a", (api, more), "true", "true").run();
        assert_eq!(outcome.failure.as_ref().map_or(0, crate::Failure::exit_code), ended, "{api} {more}");
    }
}

/// Digest 1.1, with defaults of our own for the app.
#[test]
fn folders_are_where_the_variables_say() {
    let paths = crate::lifecycle::Paths::new(std::iter::empty());
    let show = |paths: &crate::lifecycle::Paths| {
        let all = [&paths.app, &paths.layers, &paths.platform, &paths.buildpacks, &paths.order, &paths.build_config];
        all.map(|path| path.display().to_string()).join(" ")
    };
    assert_eq!(show(&paths), "/app /layers /platform /cnb/buildpacks /cnb/order.toml /cnb/build-config");
    let names = ["APP_DIR", "LAYERS_DIR", "PLATFORM_DIR", "BUILDPACKS_DIR", "ORDER_PATH", "BUILD_CONFIG_DIR"];
    let vars = names.map(|name| (format!("CNB_{name}").into(), name.into()));
    assert_eq!(show(&crate::lifecycle::Paths::new(vars.into_iter())), names.join(" "));
}

/// Digest 1.4.
#[test]
fn exit_codes() {
    let rows = [
        ("exit 100", "", 20),
        ("exit 1", "", 21),
        ("true", "exit 1", 51),
        ("true", "echo 'launch = 1' > $CNB_LAYERS_DIR/x.toml", 52),
    ];
    for (detect, build, code) in rows {
        let failure = Folders::one("0.10", detect, build).run().failure.unwrap();
        assert_eq!(failure.exit_code(), code, "{detect} {build}");
    }
}
