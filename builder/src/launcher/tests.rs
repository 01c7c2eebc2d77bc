use std::os::unix::fs::PermissionsExt;

use super::*;

/// An image's file system, small.
struct World(tempfile::TempDir);

impl World {
    fn new(metadata: &str) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(world.path("app")).unwrap();
        world.file("layers/config/metadata.toml", metadata);
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What the process that `argv` asks for prints.
    fn run(&self, argv: &[&str]) -> Result<String, String> {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let own = [
            ("CNB_APP_DIR", self.path("app").into_os_string()),
            ("CNB_LAYERS_DIR", self.path("layers").into_os_string()),
            ("PATH", "/cnb/process:/usr/bin:/bin".into()),
            ("CONFIG", "it's $HOME\n\"ö\"".into()),
            ("PORT", "99".into()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.into(), value));
        let output = Launch::prepare(&argv, own)?.command()?.output().map_err(|error| error.to_string())?;
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout).unwrap())
    }
}

const METADATA: &str = r#"
    [[buildpacks]]
    id = "a/new"
    version = "1.0.0"
    api = "0.10"
    [[buildpacks]]
    id = "a/old"
    version = "1.0.0"
    api = "0.8"
    [[processes]]
    type = "web"
    command = ["echo", "always"]
    args = ["default"]
    direct = true
    buildpackID = "a/new"
    [[processes]]
    type = "old"
    command = ["echo"]
    args = ["default", "$PORT"]
    direct = false
    buildpackID = "a/old"
    [[processes]]
    type = "line"
    command = ["bash", "-c"]
    args = ["echo \"$FROM_PROFILE $CONFIG\""]
    direct = true
    buildpackID = "a/new"
    [[processes]]
    type = "where"
    command = ["pwd"]
    direct = true
    working-dir = "sub"
    buildpackID = "a/new"
    [[processes]]
    type = "show"
    command = ["printenv"]
    direct = true
    buildpackID = "a/new"
    [[processes]]
    type = "shell"
    command = ["echo $X in $(basename $PWD)"]
    direct = false
    buildpackID = "a/old"
    [[processes]]
    type = "elsewhere"
    command = ["echo $X in $(basename $PWD)"]
    direct = false
    working-dir = "sub"
    buildpackID = "a/old"
"#;

#[test]
fn user_arguments_replace_the_default_ones_or_follow_them_in_old_buildpacks() {
    let world = World::new(METADATA);
    assert_eq!(world.run(&["/cnb/process/web"]).unwrap(), "always default\n");
    assert_eq!(world.run(&["/cnb/process/web", "a", "b"]).unwrap(), "always a b\n");
    assert_eq!(world.run(&["/cnb/process/old", "a b"]).unwrap(), "default 99 a b\n");
}

#[test]
fn commands_run_directly_or_in_a_shell() {
    let world = World::new(METADATA);
    assert_eq!(world.run(&["launcher", "--", "echo", "$PORT"]).unwrap(), "$PORT\n");
    assert_eq!(world.run(&["launcher", "echo $PORT; echo b"]).unwrap(), "99\nb\n");
    assert_eq!(world.run(&["launcher", "echo", "$PORT", "a b"]).unwrap(), "99 a b\n");
    let error = world.run(&["launcher"]).unwrap_err();
    assert_eq!(
        error,
        "a process type or a command is required; process types: web, old, line, where, show, shell, elsewhere"
    );
}

#[test]
fn a_procfile_line_sees_the_profiles_and_its_variables_unharmed() {
    let world = World::new(METADATA);
    assert_eq!(world.run(&["line"]).unwrap(), " it's $HOME\n\"ö\"\n");
    world.file("app/.profile.d/b.sh", "FROM_PROFILE=${FROM_PROFILE}b");
    world.file("app/.profile.d/it's a.sh", "FROM_PROFILE=${FROM_PROFILE}a");
    world.file("app/.profile.d/ignored.txt", "exit 1");
    world.file("app/.profile", "export FROM_PROFILE=${FROM_PROFILE}!");
    assert_eq!(world.run(&["line"]).unwrap(), "ba! it's $HOME\n\"ö\"\n");
    assert_eq!(world.run(&["launcher", "echo $FROM_PROFILE"]).unwrap(), "ba!\n");
}

#[test]
fn layers_lend_their_directories_environment_and_programs() {
    let world = World::new(METADATA);
    world.file("layers/a_new/one/bin/tool", "#!/bin/sh\necho tool $A $B $C $D");
    world.file("layers/a_new/one/env.launch/A.default", "a");
    world.file("layers/a_new/one/env.launch/CONFIG.default", "not this");
    world.file("layers/a_new/one/exec.d/x", "#!/bin/sh\necho 'B = \"b\"' >&3");
    world.file("layers/a_new/two/exec.d/y", "#!/bin/sh\necho \"C = '$B$A'\" >&3");
    world.file("layers/a_new/two/exec.d/web/z", "#!/bin/sh\necho 'D = \"d\"' >&3");
    assert_eq!(world.run(&["launcher", "--", "tool"]).unwrap(), "tool a b ba\n");
    assert_eq!(world.run(&["launcher", "--", "printenv", "CONFIG"]).unwrap(), "it's $HOME\n\"ö\"\n");
    world.file("layers/a_new/two/exec.d/w", "#!/bin/sh\nexit 3");
    let error = world.run(&["launcher", "--", "tool"]).unwrap_err();
    assert!(error.ends_with("exec.d/w: failed: exit status: 3"), "{error}");
}

#[test]
fn a_process_starts_in_its_directory() {
    let world = World::new(METADATA);
    fs::create_dir(world.path("app/sub")).unwrap();
    assert_eq!(world.run(&["where"]).unwrap().trim(), world.path("app/sub").to_str().unwrap());
}

/// A rule by its section of the digest, files of the layers, the words of the process, and what it prints. `R` is the image's root.
type Row = (&'static str, Vec<(&'static str, String)>, &'static [&'static str], &'static str);

fn check(rows: Vec<Row>) {
    for (rule, files, argv, expected) in rows {
        let world = World::new(METADATA);
        for (path, content) in files {
            world.file(&format!("layers/{path}"), &content);
        }
        let printed = world.run(argv).unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(printed.trim_end().replace(&world.path("").display().to_string(), "R/"), expected, "{rule}");
    }
}

#[test]
fn what_layers_set() {
    let plain = |text: &str| text.to_owned();
    check(vec![
        (
            "5.4 directories of a later buildpack come first, and of a later layer",
            vec![("a_new/l/bin/x", plain("")), ("a_new/m/bin/x", plain("")), ("a_old/l/bin/x", plain(""))],
            &["show", "PATH"],
            "R/layers/a_old/l/bin:R/layers/a_new/m/bin:R/layers/a_new/l/bin:/usr/bin:/bin",
        ),
        ("5.4 lib", vec![("a_new/l/lib/x", plain(""))], &["show", "LD_LIBRARY_PATH"], "R/layers/a_new/l/lib"),
        (
            "5.4 include is for builds",
            vec![("a_new/l/include/x", plain(""))],
            &["launcher", "echo ${CPATH-none}"],
            "none",
        ),
        ("5.5 env", vec![("a_new/l/env/X", plain("1"))], &["show", "X"], "1"),
        (
            "5.5 env.launch after env",
            vec![("a_new/l/env/X", plain("1")), ("a_new/l/env.launch/X.append", plain("2"))],
            &["show", "X"],
            "12",
        ),
        (
            "5.5 then what is for the type alone",
            vec![("a_new/l/env.launch/X", plain("1")), ("a_new/l/env.launch/show/X.append", plain("2"))],
            &["show", "X"],
            "12",
        ),
        (
            "5.5 and for no other one",
            vec![("a_new/l/env.launch/X", plain("1")), ("a_new/l/env.launch/web/X.append", plain("2"))],
            &["show", "X"],
            "1",
        ),
        (
            "5.5 env.build is for builds",
            vec![("a_new/l/env.build/X", plain("1"))],
            &["launcher", "echo ${X-none}"],
            "none",
        ),
        (
            "5.7 of overrides the last one",
            vec![("a_new/l/env/X", plain("1")), ("a_old/l/env/X.override", plain("2"))],
            &["show", "X"],
            "2",
        ),
        (
            "5.7 of defaults the first one",
            vec![("a_new/l/env/X.default", plain("1")), ("a_old/l/env/X.default", plain("2"))],
            &["show", "X"],
            "1",
        ),
        (
            "5.9 folders of buildpacks that took no part are nobody's",
            vec![("a_gone/l/env/X", plain("1"))],
            &["launcher", "echo ${X-none}"],
            "none",
        ),
        ("5.10 an override wins over the container's", vec![("a_new/l/env/PORT", plain("1"))], &["show", "PORT"], "1"),
    ]);
}

#[test]
fn what_layers_run_first() {
    /// An `exec.d` program that adds to the variable `X`.
    fn add(what: &str) -> String {
        format!("#!/bin/sh\necho \"X = '${{X}}{what}'\" >&3")
    }
    let plain = |text: &str| text.to_owned();
    let profile = |what: &str| format!("export X=${{X}}{what}");
    check(vec![
        (
            "8.4 programs in the order of layers, and of names, those of the type after the others",
            vec![
                ("a_new/l/exec.d/b", add("2")),
                ("a_new/l/exec.d/a", add("1")),
                ("a_new/l/exec.d/show/a", add("3")),
                ("a_new/l/exec.d/web/a", add("no")),
                ("a_new/m/exec.d/a", add("4")),
                ("a_old/a/exec.d/a", add("5")),
            ],
            &["show", "X"],
            "12345",
        ),
        (
            "8.4 a command is of no type",
            vec![("a_new/l/exec.d/a", add("1")), ("a_new/l/exec.d/web/a", add("2"))],
            &["launcher", "--", "printenv", "X"],
            "1",
        ),
        (
            "8.4 what programs say wins over files and the container",
            vec![("a_new/l/exec.d/a", plain("#!/bin/sh\necho 'PORT = \"1\"' >&3")), ("a_new/m/env/PORT", plain("2"))],
            &["show", "PORT"],
            "1",
        ),
        (
            "8.5 a shell sources the layers' profiles, those of its type, and the app's last",
            vec![
                ("a_new/l/profile.d/1.sh", profile("1")),
                ("a_new/l/profile.d/shell/2.sh", profile("2")),
                ("a_new/l/profile.d/web/no.sh", profile("no")),
                ("a_old/l/profile.d/3.sh", profile("3")),
                ("../app/.profile", profile("4")),
            ],
            &["shell"],
            "1234 in app",
        ),
        (
            "8.5 what runs directly does not",
            vec![("a_new/l/profile.d/1.sh", profile("1")), ("../app/.profile", profile("2"))],
            &["launcher", "--", "sh", "-c", "echo ${X-none}"],
            "none",
        ),
        (
            "8.3 profiles are sourced in the app's folder, before the process goes to its own",
            vec![("a_new/l/profile.d/1.sh", profile("$(basename $PWD)")), ("../app/sub/x", plain(""))],
            &["elsewhere"],
            "app in sub",
        ),
        (
            "8.3 the program is found by the final PATH",
            vec![("a_new/l/bin/printenv", plain("#!/bin/sh\necho ours"))],
            &["show", "X"],
            "ours",
        ),
    ]);
}

/// Digest 5.9.
#[test]
fn links_to_variables_are_followed_and_what_is_no_file_is_skipped() {
    let world = World::new(METADATA);
    world.file("layers/a_new/l/env/folder/X", "no");
    world.file("layers/a_new/l/value", "linked");
    std::os::unix::fs::symlink("../value", world.path("layers/a_new/l/env/X")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.path("layers/a_new/l/env/Y")).unwrap();
    world.file("layers/a_new/l.toml", "[types]\nlaunch = true");
    assert_eq!(world.run(&["launcher", "echo $X ${Y-none} ${folder-none}"]).unwrap(), "linked none none\n");
}

/// Digest 8.1 and 8.4.
#[test]
fn what_cannot_be_launched_says_why_and_ends_with_its_own_code() {
    let rows = [
        ("one/exec.d/x", "#!/bin/sh\necho 'X = 1' >&3", "wrote variables that are not TOML strings"),
        ("one/exec.d/x", "#!/bin/sh\necho 'X' >&3", "wrote variables that are not TOML strings"),
        ("one/exec.d/x", "#!/bin/sh\nkill -9 $$", "signal: 9"),
        ("../config/metadata.toml", "processes = 1", "is damaged"),
    ];
    for (path, content, problem) in rows {
        let world = World::new(METADATA);
        world.file(&format!("layers/a_new/{path}"), content);
        let error = world.run(&["show", "X"]).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(main(&["launcher".into()]), ExitCode::from(82), "there is no image around the tests");
}
