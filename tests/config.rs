//! Config vars and rollbacks on the real binary: every byte arrives, where it should and nowhere else.

use std::path::Path;

use serde_json::{Value, json};

use crate::platform::{App, shared};

/// Text that shells, files and protocols like to spoil.
fn awkward() -> Vec<(String, String)> {
    let long = "ab\n\"'\\$ü🦀\t\u{1}".repeat(4000);
    let end = (0..=64 * 1024).rev().find(|end| long.is_char_boundary(*end)).expect("0 is one");
    let (long, _) = long.split_at(end);
    let values = [
        "",
        "\n",
        "two\nlines\n",
        "\r\n",
        " padded ",
        "it's \"quoted\"",
        "$HOME ${X} `id` $(id) \\n \\",
        "a=b=c",
        "#no comment",
        "%s %d {}",
        "\u{1}\u{7f}\u{85}\u{2028}\u{feff}",
        "émoji 🦀",
        "null",
        "-",
        "@file",
        long,
    ];
    values.iter().enumerate().map(|(number, value)| (format!("AWKWARD_{number}"), (*value).to_owned())).collect()
}

/// A Node.js app that tells what environment its build and its process have.
fn teller() -> App<'static> {
    let app = shared().app("node-app");
    let package = std::fs::read_to_string(app.folder.join("package.json")).expect("readable");
    let mut package: Value = serde_json::from_str(&package).expect("JSON");
    package["scripts"]["build"] = json!("node build.js");
    app.write("package.json", &package.to_string());
    app.write(
        "build.js",
        "import fs from 'node:fs';\nfs.writeFileSync('build-env.json', JSON.stringify(process.env));\n",
    );
    let server = "import http from 'node:http';\nimport fs from 'node:fs';\n\
        const envs = { '/build': () => fs.readFileSync('build-env.json'), '/run': () => JSON.stringify(process.env) };\n\
        http.createServer((request, response) => response.end((envs[request.url] ?? (() => ''))())).listen(process.env.PORT);\n";
    app.write("server.js", server);
    app.commit("tells its environment");
    app
}

fn env(app: &App<'_>, path: &str) -> Value {
    serde_json::from_str(&app.get(path).body).expect("JSON")
}

#[test]
fn every_byte_of_a_value_arrives_in_builds_and_dynos_whichever_way_it_was_set() {
    let app = teller();
    let all = awkward();
    // One by one from files, many as JSON from standard input, the rest as arguments.
    let (files, rest) = all.split_at(5);
    let (piped, arguments) = rest.split_at(rest.len() - 3);
    for (name, value) in files {
        app.write("value", value);
        let file = format!("{name}={}", app.folder.join("value").display());
        app.cli(&["config:set", "--from-file", &file]).expect_ok();
    }
    std::fs::remove_file(app.folder.join("value")).expect("removed");
    let json: serde_json::Map<_, _> = piped.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let input = Value::Object(json).to_string();
    app.platform.cli_with_input(&["config:set", "-", "--app", &app.name], input.as_bytes()).expect_ok();
    let arguments: Vec<_> = arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let arguments: Vec<_> = ["config:set"].into_iter().chain(arguments.iter().map(String::as_str)).collect();
    app.cli(&arguments).expect_ok();
    app.cli(&["config:set", "--build-only", "BUILD_ONLY=b"]).expect_ok();
    app.cli(&["config:set", "--run-only", "RUN_ONLY=r"]).expect_ok();
    app.push().expect_ok();

    let config = app.json(&["config"]);
    let (build, run) = (env(&app, "/build"), env(&app, "/run"));
    for (name, value) in &all {
        for (place, seen) in [("the API", &config), ("the build", &build), ("the dyno", &run)] {
            assert_eq!(seen[name].as_str(), Some(value.as_str()), "{name} in {place}");
        }
    }
    assert_eq!((&build["BUILD_ONLY"], &build["RUN_ONLY"]), (&json!("b"), &json!(null)));
    assert_eq!((&run["BUILD_ONLY"], &run["RUN_ONLY"]), (&json!(null), &json!("r")));
    let scopes = app.json(&["config", "--scopes"]);
    assert_eq!((&scopes["BUILD_ONLY"], &scopes["AWKWARD_0"]), (&json!("build"), &json!("all")));

    let again = app.cli(&["config:set", "RUN_ONLY=r"]).expect_ok();
    assert!(again.text.contains("Nothing changed"), "{}", again.text);
    let moved = app.cli(&["config:set", "--everywhere", "RUN_ONLY"]).expect_ok();
    assert!(moved.text.contains("is the current release"), "{}", moved.text);
    let history = app.cli(&["config:history", "RUN_ONLY"]).expect_ok().text;
    assert!(history.contains("RUN_ONLY added") && history.contains("RUN_ONLY changed"), "{history}");
}

#[test]
fn a_rollback_shows_what_it_changes_and_restores_config_and_formation() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.cli(&["ps:scale", "web=2", "worker=1"]).expect_ok();
    app.cli(&["config:set", "GREETING=hello", "--reason", "the sale"]).expect_ok();
    let scaled = app.json(&["releases"])[0].clone();
    assert_eq!(scaled["reason"], "the sale");
    app.cli(&["ps:scale", "web=1", "worker=0"]).expect_ok();
    app.edit("probe.py", "VERSION = \"1\"", "VERSION = \"2\"");
    app.commit("second");
    app.push().expect_ok();
    app.cli(&["config:unset", "GREETING"]).expect_ok();

    let version = format!("v{}", scaled["version"]);
    let back = app.cli(&["rollback", &version, "--reason", "too slow"]).expect_ok();
    for line in ["~ code: ", "+ config var GREETING", "~ formation web: 1:", "~ formation worker: 0:"] {
        assert!(back.text.contains(line), "no {line} in {}", back.text);
    }
    assert!(!back.text.contains("hello"), "{}", back.text);
    assert_eq!(app.get("/").body.split(" web").next(), Some("version 1"), "the code that was built then");
    assert_eq!(env(&app, "/env")["GREETING"], "hello");
    let quantities = || {
        let formation = app.json(&["ps"]).to_string();
        (formation.matches("web.").count(), formation.matches("worker.").count())
    };
    crate::until("it is scaled as it was", || quantities() == (2, 1));

    let newest = app.json(&["releases"])[0].clone();
    assert_eq!((&newest["reason"], &newest["formation"]), (&json!("too slow"), &scaled["formation"]));
    let same = app.cli(&["rollback", &version, "--yes"]).expect_ok();
    assert!(same.text.contains("Nothing changed"), "{}", same.text);
    let diff = app.cli(&["releases:diff", &version]).expect_ok();
    assert!(diff.text.contains("hold the same"), "{}", diff.text);
}

#[test]
fn what_a_release_command_prints_is_shown_and_warned_of() {
    let app = shared().app("probe-app");
    app.push().expect_ok();
    app.write("Procfile", "web: python3 probe.py web\nrelease: echo migrating && sleep 0 && echo migrated\n");
    app.commit("migrates");
    app.push().expect_ok();
    let output = app.cli(&["releases:output"]).expect_ok();
    assert_eq!(output.stdout, "migrating\nmigrated\n");
    let back = app.cli(&["rollback", "--yes"]).expect_ok();
    assert!(back.text.contains("Warning: A release command ran since v2"), "{}", back.text);
}

#[test]
fn no_value_reaches_a_log_or_an_error() {
    let app = shared().app("probe-app");
    let canary = "canary-7f3a9c-sings";
    let set = |text: &str| app.cli(&["config:set", text]).text;
    let mut said = vec![set(&format!("SECRET={canary}"))];
    app.write("Procfile", "web: python3 probe.py web\nrelease: test -z \"$FAIL\"\n");
    app.commit("has a release command");
    said.push(app.push().expect_ok().text);
    said.push(set(&format!("1BAD={canary}")));
    said.push(set(&format!("PORT={canary}")));
    said.push(set(&format!("LONG={}", format!("{canary} ").repeat(4000))));
    let input = format!("{{\"A\": [\"{canary}\"]}}");
    let piped = app.platform.cli_with_input(&["config:set", "-", "--app", &app.name], input.as_bytes());
    said.push(piped.text);
    let input = format!("A=1\nnonsense without a name {canary}\n");
    said.push(app.platform.cli_with_input(&["config:set", "-", "--app", &app.name], input.as_bytes()).text);
    said.push(set(&format!("FAIL={canary}")));
    said.push(app.cli(&["rollback", "v2", "--yes"]).text);
    for args in [
        &["releases"][..],
        &["releases:diff", "v1"],
        &["config:history"],
        &["config", "--scopes"],
        &["logs", "-n", "500"],
    ] {
        said.push(app.cli(args).text);
    }
    for text in said {
        assert!(!text.contains(canary), "{text}");
    }
    assert!(app.cli(&["config:get", "SECRET"]).expect_ok().text.contains(canary), "whoever may, sees it");
    let home = app.platform.home();
    let files = ["logs", "builds", "releases"].map(|name| home.join(name));
    let mut offences = Vec::new();
    for entry in std::fs::read_dir(home).expect("readable").flatten().filter(|entry| entry.path().is_file()) {
        search(&entry.path(), canary.as_bytes(), &mut offences);
    }
    for folder in &files {
        search(folder, canary.as_bytes(), &mut offences);
    }
    assert!(offences.is_empty(), "{offences:?}");
}

/// Notes the files that contain some bytes.
fn search(path: &Path, bytes: &[u8], found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            search(&entry.path(), bytes, found);
        }
    } else if let Ok(content) = std::fs::read(path)
        && content.windows(bytes.len()).any(|window| window == bytes)
    {
        found.push(path.display().to_string());
    }
}
