use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"{
  "$schema": "https://example.com/app.json",
  "name": "Small Sharp Tool",
  "description": "Does one thing",
  "keywords": ["productivity"],
  "success_url": "/welcome",
  "stack": "heroku-24",
  "env": {
    "GREETING": "hello",
    "WEB_CONCURRENCY": 5,
    "SECRET_TOKEN": {"description": "Signs cookies", "generator": "secret"},
    "SENTRY_DSN": {"required": false},
    "MAIL_FROM": {"description": "Sender of mail"}
  },
  "formation": {"web": {"quantity": 2, "size": "standard-2x", "sleep_after": "30m", "autoscale": {"metric": "p95", "target": 300, "max": 5}}, "worker": {"quantity": 0}},
  "addons": ["postgres:mini", {"plan": "redis", "as": "cache", "options": {"x": "y"}}],
  "buildpacks": [{"url": "heroku/python"}, "platform/nodejs"],
  "scripts": {"postdeploy": "rake db:seed", "test": "rake"},
  "healthchecks": {"web": [{"type": "startup", "path": "/health", "attempts": 9}, {"type": "liveness", "uptime": 3}]},
  "restart": {"at_once": 1, "pause": 5, "limit": 0},
  "cron": [{"command": "rake nightly", "schedule": "0 3 * * *", "concurrency_policy": "forbid"},
    {"name": "shards", "command": "work", "schedule": "@hourly", "timezone": "Europe/Berlin", "shards": 2,
     "shard_parameters": ["a", "b"], "timeout": "5m"}],
  "volumes": {"queue": {"process": "worker", "path": "/var/lib/queue", "size": "5GiB"}, "data": {"process": "clock", "path": "/data"}},
  "routing": {"idle_timeout": "2m", "cors": ["https://a.example", "https://b.example"]},
  "environments": {"review": {}}
}"#;

fn app_json(text: &str) -> (Manifest, Vec<String>) {
    said(Files { app_json: Some(text.as_bytes()), heroku_yml: None })
}

fn heroku_yml(text: &str) -> (Manifest, Vec<String>) {
    said(Files { app_json: None, heroku_yml: Some(text.as_bytes()) })
}

fn said(files: Files<'_>) -> (Manifest, Vec<String>) {
    let (manifest, problems) = read(files);
    (manifest, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn a_whole_app_json_is_understood() {
    let (manifest, problems) = app_json(WHOLE);
    assert_eq!(problems, Vec::<String>::new());
    insta::assert_debug_snapshot!(manifest);
}

#[test]
fn every_complaint_has_its_place_and_names_the_field() {
    let (_, problems) = app_json(
        r#"{
  "evn": {},
  "name": ["x"],
  "stack": null,
  "image": "heroku/ruby",
  "env": {
    "1X": "a",
    "A": {"generator": "uuid"},
    "B": {"value": "b", "generator": "secret", "requird": true},
    "C": [],
    "D": "é", "D": "twice",
    "E": {"required": "maybe"}
  },
  "formation": {"Web!": {}, "web": {"quantity": -1, "sleep_after": "soon"}, "worker": 3, "clock": {"sleep_after": "1h"}, "urgent": {"autoscale": {"metric": "rps", "least": 2}}},
  "addons": [{}, ":mini", {"plan": "redis", "as": "1"}, 7],
  "buildpacks": [{}],
  "scripts": {"postdeploy": {"size": "basic"}, "release": "x"},
  "healthchecks": {"web": [{"path": "health"}, {}, {"type": "start", "uptime": 1}, {"uptime": 1, "attempts": 0}]},
  "cron": [{"command": "a\nb", "schedule": "@daily"}, {"command": "x", "schedule": "61 * * * *"},
           {"command": "x", "schedule": "* * * * * *"}, {"schedule": "@daily"}],
  "restart": {"pause": 0, "at_once": "x", "often": 1},
  "volumes": {"Data": {"path": "/data"}, "bare": {}, "etc": {"path": "/etc", "size": "5GB"}, "scaled": {"path": "/data", "process": "urgent"},
              "phase": {"path": "/data", "process": "release"}, "one": {"path": "/one"}, "two": {"path": "/one/two", "sice": "1GiB"}}
}"#,
    );
    insta::assert_snapshot!(problems.join("\n"));
}

#[test]
fn what_is_no_json_is_refused_where_it_goes_wrong() {
    let refused = |text: &str| {
        let (manifest, problems) = app_json(text);
        assert_eq!((manifest, problems.len()), (Manifest::default(), 1), "{problems:?}");
        problems.join("")
    };
    assert!(refused("{\n  \"env\": {\"A\": \"é\" \"B\": 1}\n}").starts_with("app.json:2:19: this is not JSON: "));
    assert!(refused("{\n  \"name\": \"x\",\n}").starts_with("app.json:2:14: this is not JSON: "));
    assert!(refused("// a comment\n{}").starts_with("app.json:1:1: this is not JSON: "));
    assert_eq!(refused(""), "app.json:1:1: the file is empty");
    assert_eq!(refused("[]"), "app.json:1:1: the file must be an object, not a list");
    assert!(refused(&"[".repeat(100_000)).contains("Maximum nesting depth"));
    assert!(refused(&" ".repeat(MAX_BYTES + 1)).contains("at most 262144 are read"));
    let (_, problems) = said(Files { app_json: Some(b"{\n\xff}"), heroku_yml: None });
    assert_eq!(problems, ["app.json:2:1: this line is not UTF-8"]);
}

#[test]
fn of_a_heroku_yml_what_is_not_about_containers_is_understood() {
    let (manifest, problems) = heroku_yml(
        "setup:\n  addons:\n    - plan: heroku-postgresql\n      as: DATABASE\n  config:\n    S3_BUCKET: my-bucket\n    FLAG: true\n\
         build:\n  docker:\n    web: Dockerfile\n  config:\n    RAILS_ENV: production\n\
         release:\n  image: web\n  command:\n    - ./migrate\n    - ./seed\n\
         run:\n  web: bundle exec puma\n  worker:\n    command:\n      - sidekiq\n    image: web\n  bare:\n    image: web\n",
    );
    let processes: Vec<_> = manifest.processes.iter().map(|(name, command)| format!("{name}: {command}")).collect();
    assert_eq!(processes, ["release: ./migrate && ./seed", "web: bundle exec puma", "worker: sidekiq"]);
    assert_eq!(manifest.env.len(), 2);
    assert_eq!(manifest.addons[0].value.attachment.as_ref().map(AttachmentName::as_str), Some("DATABASE"));
    insta::assert_snapshot!(problems.join("\n"));
}

#[test]
fn what_is_no_yaml_is_refused_where_it_goes_wrong() {
    let refused = |text: &str| heroku_yml(text).1.join("\n");
    assert!(
        refused("run:\n  web: [a\n").starts_with("heroku.yml:3:1: this is not YAML: "),
        "{}",
        refused("run:\n  web: [a\n")
    );
    assert!(refused("run: &a x\nbuild: *a\n").starts_with("heroku.yml:2:8: aliases"));
    assert!(refused(&"[".repeat(100)).contains("nested more than 64 deep"));
    assert!(refused(&"[".repeat(100_000)).contains("recursion limit"));
    assert_eq!(refused("- a\n"), "heroku.yml:1:1: the file must be an object, not a list");
    assert_eq!(
        refused("runn:\n  web: x\n"),
        "heroku.yml:1:1: warning: runn is not known and changes nothing; did you mean run?"
    );
}

#[test]
fn app_json_counts_where_both_speak() {
    let (manifest, problems) = said(Files {
        app_json: Some(br#"{"env": {"A": "json"}, "addons": ["postgres"]}"#),
        heroku_yml: Some(
            b"setup:\n  config:\n    A: yml\n    B: yml\n  addons:\n    - postgres:standard\n    - redis\n",
        ),
    });
    assert_eq!(problems, Vec::<String>::new());
    let values: Vec<_> = manifest.env.values().filter_map(|var| var.value.value.as_deref()).collect();
    assert_eq!(values, ["json", "yml"]);
    let plans: Vec<_> = manifest.addons.iter().map(|addon| addon.value.plan.as_str()).collect();
    assert_eq!(plans, ["postgres", "redis"]);
}

/// Texts near to the format, in which something is wrong anywhere.
fn nearly(whole: &'static str) -> impl Strategy<Value = String> {
    (0..whole.len(), 0..whole.len(), "\\PC{0,6}|[\\[\\]{}:,\"\n\t&*-]{0,6}").prop_map(move |(from, to, between)| {
        let bytes = [&whole.as_bytes()[..from], between.as_bytes(), &whole.as_bytes()[to..]].concat();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

const YML: &str = "setup:\n  addons:\n    - plan: postgres\n      as: DB\n  config:\n    A: \"b\"\nrun:\n  web:\n    command: [x, 'y']\n";

proptest! {
    #[test]
    fn any_bytes_are_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(Files { app_json: Some(&bytes), heroku_yml: Some(&bytes) });
    }

    #[test]
    fn any_text_is_understood_or_refused(json in nearly(WHOLE), yml in nearly(YML)) {
        let lines = json.lines().count().max(yml.lines().count()) + 1;
        let (_, problems) = read(Files { app_json: Some(json.as_bytes()), heroku_yml: Some(yml.as_bytes()) });
        for problem in problems {
            prop_assert!((1..=lines).contains(&problem.spot.line) && problem.spot.column >= 1, "{problem}");
        }
    }
}
