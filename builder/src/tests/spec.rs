//! The rules of the buildpack specification that show from inside a build, one table a section. What a row's script checks, it
//! checks by failing.

use std::fmt::Write;
use std::fs;

use crate::buildpack::Buildpacks;
use crate::formats::LaunchProcess;
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
        ("an id has letters, digits, dots, slashes, dashes", id("a.b/C-9"), ""),
        ("an id that the lifecycle uses", id("sbom"), "is not an id"),
        ("an id that leads elsewhere", id("../a"), "is not an id"),
        ("an id with a space", id("a b"), "is not an id"),
        ("a version has three numbers", version("10.0.3"), ""),
        ("a version of two", version("1.0"), "is not a version"),
        ("a number with a zero before it", version("1.02.0"), "is not a version"),
        ("an API from before our time", id("a").replace("0.10", "0.6"), "Buildpack API 0.6 is not supported"),
        ("the oldest API", id("a").replace("0.10", "0.7"), ""),
        ("the newest API", id("a").replace("0.10", "0.12"), ""),
        ("keys that nobody knows", more("exec-env = ['test']\n[metadata]\nanything = [1]\n[odd]\nx = 1"), ""),
        (
            "licences, keywords and formats",
            more("sbom-formats = ['a/b']\nkeywords = ['x']\nlicenses = [{type = 'MIT'}]"),
            "",
        ),
        ("no TOML", "api = ".to_owned(), "buildpack.toml cannot be used"),
    ];
    for (rule, toml, problem) in rows {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/1.0.0")).unwrap();
        fs::write(folder.path().join("a/1.0.0/buildpack.toml"), toml).unwrap();
        let said = Buildpacks::load(folder.path()).err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
    }
}

#[test]
fn detection() {
    let rows = [
        ("it runs in the app's folder", "test -f app.txt", ""),
        ("it is given the platform's folder and the plan", "test -d \"$1/env\"; test -f \"$2\"; test ! -s \"$2\"", ""),
        (
            "both are in its environment",
            "test \"$1\" = \"$CNB_PLATFORM_DIR\"; test \"$2\" = \"$CNB_BUILD_PLAN_PATH\"",
            "",
        ),
        ("it knows where it lies", "test -x \"$CNB_BUILDPACK_DIR/bin/detect\"", ""),
        (
            "it knows the target, as far as that is known",
            "test $CNB_TARGET_OS = linux; test -z \"${CNB_TARGET_ARCH_VARIANT+x}\"",
            "",
        ),
        ("nothing else of the lifecycle's environment", "test -z \"$SECRET$CNB_LAYERS_DIR$CNB_APP_DIR\"", ""),
        ("it has no input", "! read -r line", ""),
        ("100 means no", "echo needs: that; exit 100", "t/a  needs: that"),
        ("anything else is an error", "echo oops >&2; exit 1", "t/a  bin/detect failed (exit status: 1): oops"),
        ("a plan must be TOML", "echo 'provides = 1' > $2", "wrote a build plan that is not valid"),
        ("no plan is read of one that says no", "echo 'provides = 1' > $2; exit 100", "t/a  did not say why"),
        (
            "a version of a require belongs into its metadata",
            "printf '[[requires]]\nname = \"x\"\nversion = \"1\"' > $2",
            "the version of `x`",
        ),
        (
            "what is provided must be required",
            "printf '[[provides]]\nname = \"x\"' > $2",
            "provides x, which no buildpack requires",
        ),
        (
            "one may require what one provides",
            "printf '[[provides]]\nname = \"x\"\n[[requires]]\nname = \"x\"' > $2",
            "",
        ),
        ("an alternative may do", "printf '[[provides]]\nname = \"x\"\n[[or]]' > $2", ""),
    ];
    for (rule, script, problem) in rows {
        let said = ended("0.10", script, "true");
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
    }
}

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

#[test]
fn a_buildpack_of_several_groups_is_asked_once() {
    let order = "[[order]]\ngroup = [{id = 't/a'}, {id = 't/no'}]\n[[order]]\ngroup = [{id = 't/a'}]";
    let folders = Folders::new(order).buildpack("t/a", "echo asked >> asked", "").buildpack("t/no", "exit 100", "");
    assert_eq!(folders.run().failure, None);
    assert_eq!(fs::read_to_string(folders.path("app/asked")).unwrap(), "asked\n");
}

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

#[test]
fn building() {
    let launch = |toml: &str| format!("cat > $1/launch.toml <<'X'\n{toml}\nX");
    let rows = [
        ("0.10", "it runs in the app's folder", "test -f app.txt".to_owned(), ""),
        ("0.10", "its folders and plan", "test -d \"$1\"; test -d \"$2\"; test -f \"$3\"; test \"$1\" = $CNB_LAYERS_DIR; test \"$3\" = $CNB_BP_PLAN_PATH".to_owned(), ""),
        ("0.10", "a failure ends the build", "exit 9".to_owned(), "failed with exit code 9"),
        ("0.10", "flags belong into [types]", "echo 'cache = true' > $1/x.toml".to_owned(), "`cache` belongs into the table [types]"),
        ("0.10", "odd keys are nobody's matter", "printf '[types]\nlaunch = true\nmetadata = \"x\"\nodd = 1' > $1/x.toml; mkdir $1/x".to_owned(), ""),
        ("0.10", "a layer's file is TOML", "echo '[' > $1/x.toml".to_owned(), "x.toml:"),
        ("0.10", "launch, build and store are no layers", "touch $1/build.toml $1/launch.toml $1/store.toml".to_owned(), ""),
        ("0.10", "unmet is what was planned", "printf '[[unmet]]\nname = \"y\"' > $1/build.toml".to_owned(), "\"y\" unmet"),
        ("0.10", "one default of a file", launch("processes = [{type='a',command=['x'],default=true},{type='b',command=['x'],default=true}]"), "more than one process is the default"),
        ("0.10", "a type is letters, digits, dots, dashes", launch("processes = [{type='a/b',command=['x']}]"), "has a type that is not"),
        ("0.9", "since 0.9 a command is a list", launch("processes = [{type='a',command='x'}]"), "has a string as its command"),
        ("0.9", "since 0.9 nothing is said of directness", launch("processes = [{type='a',command=['x'],direct=true}]"), "has the key `direct`"),
        ("0.8", "before, a command is a string", launch("processes = [{type='a',command=['x']}]"), "has a list as its command"),
        ("0.8", "and may be direct", launch("processes = [{type='a',command='x',direct=true}]"), ""),
        ("0.10", "a bill of materials of a format that was not announced", "mkdir $1/x; printf '[types]\nlaunch=true' > $1/x.toml; echo {} > $1/x.sbom.cdx.json".to_owned(), "its sbom-formats do not list application/vnd.cyclonedx+json"),
    ];
    for (api, rule, script, problem) in rows {
        let said = ended(api, "true", &script);
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
    }
}

#[test]
fn what_is_planned_goes_to_its_providers_until_one_meets_it() {
    let provide = "printf '[[provides]]\nname = \"x\"\n[[provides]]\nname = \"y\"\n[[requires]]\nname = \"x\"\n[[requires]]\nname = \"y\"' > $2";
    let order = "[[order]]\ngroup = [{id = 't/a'}, {id = 't/b'}, {id = 't/c'}]";
    let folders = Folders::new(order)
        .buildpack("t/a", provide, "cp $3 a; printf '[[unmet]]\nname = \"y\"' > $1/build.toml")
        .buildpack("t/b", provide, "cp $3 b")
        .buildpack("t/c", provide, "cp $3 c");
    assert_eq!(folders.run().failure, None);
    let names = |file: &str| {
        let text = fs::read_to_string(folders.path("app").join(file)).unwrap();
        text.lines().filter(|line| line.starts_with("name")).map(|line| line[8..9].to_owned()).collect::<String>()
    };
    assert_eq!((names("a"), names("b"), names("c")), ("xxxyyy".into(), "yyy".into(), String::new()));
}

#[test]
fn processes_of_several_buildpacks() {
    let launch = |processes: &str| format!("echo \"processes = [{processes}]\" > $1/launch.toml");
    let rows = [
        (
            "the last definition wins whole",
            "{type='a',command=['1'],args=['x']}",
            "{type='a',command=['2']}",
            "a:2",
            "",
        ),
        ("they are sorted", "{type='b',command=['1']}", "{type='a',command=['2']}", "a:2 b:1", ""),
        (
            "the last default wins",
            "{type='a',command=['1'],default=true}",
            "{type='b',command=['2'],default=true}",
            "a:1 b:2",
            "b",
        ),
        ("a default stays", "{type='a',command=['1'],default=true}", "{type='b',command=['2']}", "a:1 b:2", "a"),
        ("unless it is defined anew", "{type='a',command=['1'],default=true}", "{type='a',command=['2']}", "a:2", ""),
        ("web is no default by itself", "{type='web',command=['1']}", "", "web:1", ""),
    ];
    for (rule, first, second, processes, default) in rows {
        let folders = Folders::new("[[order]]\ngroup = [{id = 't/a'}, {id = 't/b'}]")
            .buildpack("t/a", "true", &launch(first))
            .buildpack("t/b", "true", &launch(second));
        let outcome = folders.run();
        assert_eq!(outcome.failure, None, "{rule}");
        let show = |process: &LaunchProcess| {
            format!("{}:{}", process.process_type, [&process.command[..], &process.args].concat().concat())
        };
        assert_eq!(outcome.processes.iter().map(show).collect::<Vec<_>>().join(" "), processes, "{rule}");
        assert_eq!(outcome.default_process.unwrap_or_default(), default, "{rule}");
    }
}

#[test]
fn environments_of_builds() {
    /// What the first buildpack leaves in its layers, as `path=content`, and what the second one then sees of a variable.
    const ROWS: [(&str, &str, &str, &str); 12] = [
        ("bin is before PATH, the last layer first", "l1/bin/x= l2/bin/x=", "PATH", "L/l2/bin:L/l1/bin:/usr/bin:/bin"),
        ("lib serves the linker too", "l1/lib/x=", "LIBRARY_PATH", "L/l1/lib"),
        ("lib serves programs", "l1/lib/x=", "LD_LIBRARY_PATH", "L/l1/lib"),
        ("include", "l1/include/x=", "CPATH", "L/l1/include"),
        ("pkgconfig", "l1/pkgconfig/x=", "PKG_CONFIG_PATH", "L/l1/pkgconfig"),
        ("a later layer comes later", "l1/env/A.append=1 l2/env/A.append=2", "A", "12"),
        ("env before env.build", "l1/env/A=1 l1/env.build/A=2", "A", "2"),
        ("env.launch is for launching", "l1/env.launch/A=1", "A", ""),
        ("the first default wins", "l1/env/A.default=1 l2/env/A.default=2", "A", "1"),
        ("the user's value replaces", "l1/env/USERS=1", "USERS", "mine"),
        ("the operator's is a default", "l1/env/A=1", "OPS", "ops"),
        ("an operator may insist", "l1/env/USERS=1", "FORCED", "ops"),
    ];
    for (rule, files, variable, expected) in ROWS {
        let mut script = String::new();
        for (path, content) in files.split(' ').filter_map(|file| file.split_once('=')) {
            let layer = path.split('/').next().unwrap();
            let _ = write!(
                script,
                "mkdir -p $(dirname $1/{path}); echo -n '{content}' > $1/{path}; printf '[types]\nbuild = true' > $1/{layer}.toml\n"
            );
        }
        let folders = Folders::new("[[order]]\ngroup = [{id = 't/a'}, {id = 't/b'}]")
            .buildpack("t/a", "true", &script)
            .buildpack("t/b", "true", &format!("echo -n \"${variable}\" > seen"))
            .file("platform/env/USERS", "mine")
            .file("platform/env/FORCED", "mine")
            .file("build-config/env/OPS", "ops")
            .file("build-config/env/USERS", "ops")
            .file("build-config/env/FORCED.override", "ops");
        assert_eq!(folders.run().failure, None, "{rule}");
        let layers = folders.path("layers/t_a").display().to_string();
        assert_eq!(fs::read_to_string(folders.path("app/seen")).unwrap().replace(&layers, "L"), expected, "{rule}");
    }
}

#[test]
fn a_buildpack_may_want_nothing_of_the_users_environment() {
    let folders = Folders::new("[[order]]\ngroup = [{id = 't/a'}]")
        .described(
            "t/a",
            ("0.10", "clear-env = true"),
            "test -z \"$USERS\"; test $OPS = ops",
            "cat $2/env/USERS > seen",
        )
        .file("platform/env/USERS", "mine")
        .file("build-config/env/OPS", "ops");
    assert_eq!(folders.run().failure, None);
    assert_eq!(fs::read_to_string(folders.path("app/seen")).unwrap(), "mine", "it is still there to be read");
}
