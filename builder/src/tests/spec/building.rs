//! Build and its environment.

use std::fmt::Write;
use std::fs;

use super::ended;
use crate::formats::LaunchProcess;
use crate::testing::Folders;

#[test]
fn building() {
    let launch = |toml: &str| format!("cat > $1/launch.toml <<'X'\n{toml}\nX");
    let rows = [
        ("0.10", "4.1 it runs in the app's folder", "test -f app.txt".to_owned(), ""),
        ("0.10", "4.1 its folders and plan", "test -d \"$1\"; test -d \"$2\"; test -f \"$3\"; test \"$1\" = $CNB_LAYERS_DIR; test \"$3\" = $CNB_BP_PLAN_PATH".to_owned(), ""),
        ("0.10", "4.3 a failure ends the build", "exit 9".to_owned(), "failed with exit code 9"),
        ("0.10", "4.5 flags belong into [types]", "echo 'cache = true' > $1/x.toml".to_owned(), "`cache` belongs into the table [types]"),
        ("0.10", "2.7 odd keys are nobody's matter", "printf '[types]\nlaunch = true\nmetadata = \"x\"\nodd = 1' > $1/x.toml; mkdir $1/x".to_owned(), ""),
        ("0.10", "4.5 a layer's file is TOML", "echo '[' > $1/x.toml".to_owned(), "x.toml:"),
        ("0.10", "4.5 launch, build and store are no layers", "touch $1/build.toml $1/launch.toml $1/store.toml".to_owned(), ""),
        ("0.10", "4.2 unmet is what was planned", "printf '[[unmet]]\nname = \"y\"' > $1/build.toml".to_owned(), "\"y\" unmet"),
        ("0.10", "4.6 one default of a file", launch("processes = [{type='a',command=['x'],default=true},{type='b',command=['x'],default=true}]"), "more than one process is the default"),
        ("0.10", "4.7 a type is letters, digits, dots, dashes", launch("processes = [{type='a/b',command=['x']}]"), "has a type that is not"),
        ("0.9", "4.7 since 0.9 a command is a list", launch("processes = [{type='a',command='x'}]"), "has a string as its command"),
        ("0.9", "4.7 since 0.9 nothing is said of directness", launch("processes = [{type='a',command=['x'],direct=true}]"), "has the key `direct`"),
        ("0.8", "4.7 before, a command is a string", launch("processes = [{type='a',command=['x']}]"), "has a list as its command"),
        ("0.8", "4.7 and may be direct", launch("processes = [{type='a',command='x',direct=true}]"), ""),
        ("0.10", "7.11 a bill of materials of a format that was not announced", "mkdir $1/x; printf '[types]\nlaunch=true' > $1/x.toml; echo {} > $1/x.sbom.cdx.json".to_owned(), "its sbom-formats do not list application/vnd.cyclonedx+json"),
    ];
    for (api, rule, script, problem) in rows {
        let said = ended(api, "true", &script);
        assert!(said.contains(problem) && said.is_empty() == problem.is_empty(), "{rule}: {said}");
    }
}

#[test]
fn what_a_buildpack_leaves_for_those_that_follow() {
    let layer = |name: &str, types: &str| {
        format!(
            "mkdir -p $1/{name}/bin; printf '#!/bin/sh\ntrue' > $1/{name}/bin/{name}-tool; chmod +x $1/{name}/bin/*\n{types}"
        )
    };
    let of_types = |name: &str, types: &str| layer(name, &format!("printf '[types]\n{types}' > $1/{name}.toml"));
    let rows = [
        ("4.4 programs of build layers", of_types("x", "build = true"), "x-tool"),
        (
            "4.4 and of no others",
            of_types("x", "launch = true\ncache = true"),
            "command -v x-tool && exit 1; test -d $OTHER/x",
        ),
        ("4.4 a folder without a file is no layer", layer("x", ""), "command -v x-tool && exit 1; test -d $OTHER/x"),
        (
            "4.4 a layer for nothing is put aside",
            of_types("x", "build = false"),
            "test ! -e $OTHER/x; test -d $OTHER/x.ignore",
        ),
        (
            "4.4 so is one that does not say",
            layer("x", "touch $1/x.toml"),
            "test ! -e $OTHER/x; test -d $OTHER/x.ignore",
        ),
        ("4.4 a file without a folder is not in the way", "touch $1/x.toml".to_owned(), "test ! -e $OTHER/x.ignore"),
    ];
    for (rule, first, second) in rows {
        let folders = Folders::new("[[order]]\ngroup = [{id = 't/a'}, {id = 't/b'}]")
            .buildpack("t/a", "true", &first)
            .buildpack("t/b", "true", &format!("OTHER=${{1%_b}}_a\n{second}"));
        assert_eq!(folders.run().failure, None, "{rule}");
    }
}

/// Digest 4.7.
#[test]
fn a_process_may_have_a_folder_since_0_8() {
    for (api, command, folder) in [("0.7", "'x'", None), ("0.8", "'x'", Some("sub")), ("0.10", "['x']", Some("sub"))] {
        let launch = format!("echo \"processes=[{{type='a',command={command},working-dir='sub'}}]\" > $1/launch.toml");
        let outcome = Folders::one(api, "true", &launch).run();
        assert_eq!(outcome.processes[0].working_dir.as_deref(), folder, "{api}");
    }
}

/// Digest 3.10 and 4.2.
#[test]
fn a_process_may_be_for_other_execution_environments_since_0_12() {
    for (api, exec_env, kept) in [
        ("0.11", "['test']", true),
        ("0.12", "['test']", false),
        ("0.12", "['test', 'production']", true),
        ("0.12", "['*']", true),
        ("0.12", "[]", true),
    ] {
        let launch = format!("echo \"processes=[{{type='a',command=['x'],exec-env={exec_env}}}]\" > $1/launch.toml");
        let outcome = Folders::one(api, "true", &launch).run();
        assert_eq!((outcome.failure, !outcome.processes.is_empty()), (None, kept), "{api} {exec_env}");
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
            "4.8 the last definition wins whole",
            "{type='a',command=['1'],args=['x']}",
            "{type='a',command=['2']}",
            "a:2",
            "",
        ),
        ("4.8 they are sorted", "{type='b',command=['1']}", "{type='a',command=['2']}", "a:2 b:1", ""),
        (
            "4.8 the last default wins",
            "{type='a',command=['1'],default=true}",
            "{type='b',command=['2'],default=true}",
            "a:1 b:2",
            "b",
        ),
        ("4.8 a default stays", "{type='a',command=['1'],default=true}", "{type='b',command=['2']}", "a:1 b:2", "a"),
        (
            "4.8 unless it is defined anew",
            "{type='a',command=['1'],default=true}",
            "{type='a',command=['2']}",
            "a:2",
            "",
        ),
        ("7.3 web is no default by itself", "{type='web',command=['1']}", "", "web:1", ""),
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
    const ROWS: [(&str, &str, &str, &str); 19] = [
        (
            "5.4 bin is before PATH, the last layer first",
            "l1/bin/x= l2/bin/x=",
            "PATH",
            "L/l2/bin:L/l1/bin:/usr/bin:/bin",
        ),
        ("5.4 lib serves the linker too", "l1/lib/x=", "LIBRARY_PATH", "L/l1/lib"),
        ("5.4 lib serves programs", "l1/lib/x=", "LD_LIBRARY_PATH", "L/l1/lib"),
        ("5.4 include", "l1/include/x=", "CPATH", "L/l1/include"),
        ("5.4 pkgconfig", "l1/pkgconfig/x=", "PKG_CONFIG_PATH", "L/l1/pkgconfig"),
        ("5.5 a later layer comes later", "l1/env/A.append=1 l2/env/A.append=2", "A", "12"),
        (
            "5.8 layer after layer, folders and files",
            "l1/env/PATH.prepend=/p l1/env/PATH.delim=: l2/bin/x=",
            "PATH",
            "L/l2/bin:/p:/usr/bin:/bin",
        ),
        ("5.6 no delimiter is none", "l1/env/A=1 l2/env/A.prepend=2", "A", "21"),
        ("5.6 the delimiter of its own folder", "l1/env/A=1 l1/env/A.delim=- l1/env.build/A.append=2", "A", "12"),
        ("5.6 a delimiter is between two values", "l1/env/A.append=1 l1/env/A.delim=-", "A", "1"),
        ("5.7 the last override wins", "l1/env/A.override=1 l2/env/A=2", "A", "2"),
        ("5.5 a suffix begins at the first dot", "l1/env/A.x.append=1", "A", ""),
        ("5.7 an empty value is not there for a default", "l1/env/A= l2/env/A.default=2", "A", "2"),
        ("5.5 env before env.build", "l1/env/A=1 l1/env.build/A=2", "A", "2"),
        ("5.5 env.launch is for launching", "l1/env.launch/A=1", "A", ""),
        ("5.7 the first default wins", "l1/env/A.default=1 l2/env/A.default=2", "A", "1"),
        ("5.2 the user's value replaces", "l1/env/USERS=1", "USERS", "mine"),
        ("5.3 the operator's is a default", "l1/env/A=1", "OPS", "ops"),
        ("5.3 an operator may insist", "l1/env/USERS=1", "FORCED", "ops"),
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

/// Digest 5.4 and 5.2.
#[test]
fn what_a_later_buildpack_adds_to_a_path_comes_first() {
    let layer = "mkdir -p $1/l/bin; printf '[types]\nbuild = true' > $1/l.toml";
    let folders = Folders::new("[[order]]\ngroup = [{id = 't/a'}, {id = 't/b'}, {id = 't/c'}]")
        .buildpack("t/a", "true", layer)
        .buildpack("t/b", "true", layer)
        .buildpack("t/c", "true", "echo -n $PATH > seen")
        .file("platform/env/PATH", "/mine");
    assert_eq!(folders.run().failure, None);
    let seen = fs::read_to_string(folders.path("app/seen")).unwrap();
    let layers = folders.path("layers").display().to_string();
    assert_eq!(seen.replace(&layers, "L"), "/mine:L/t_b/l/bin:L/t_a/l/bin:/usr/bin:/bin", "but the user's before all");
}

/// Digest 5.2 and 5.3.
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
