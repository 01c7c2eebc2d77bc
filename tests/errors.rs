//! What a person reads who asks for what cannot be. The texts of all of the program's own errors are in the snapshot of
//! `cli/error.rs`; here are those that a command line leads to, with the platform's own.

use std::fmt::Write;

use crate::platform::shared;

/// Command lines that fail, `APP` being an app that was never pushed to.
const WRONG: &[&str] = &[
    "nonsense",
    "ps:scael web=1",
    "apps --api ftp://example.com",
    "apps --api http://localhost:1",
    "info -a no-such-app",
    "info",
    "create APP",
    "create Not_A_Name",
    "create --stack nonsense",
    "destroy -a APP",
    "destroy -a APP --confirm other",
    "rename -a APP api",
    "ps:scale web -a APP",
    "ps:scale worker=1 -a APP",
    "ps:scale web=1000 -a APP",
    "ps:type web=Huge -a APP",
    "ps:restart web.7 -a APP",
    "ps:stop -a APP",
    "config:get NOPE -a APP",
    "config:set -a APP nonsense",
    "config:set -a APP 1A=1",
    "config:set -a APP PORT=1",
    "config:set -a APP --from-file KEY=/no/such/file",
    "releases:info v99 -a APP",
    "releases:info nonsense -a APP",
    "releases:output -a APP",
    "rollback -a APP",
    "rollback v99 -a APP",
    "builds:info nonsense -a APP",
    "builds:create --source-tar /no/such/file -a APP",
    "buildpacks:remove nonsense -a APP",
    "domains:add not..a.name -a APP",
    "domains:remove www.example.com -a APP",
    "certs:add /no/such/file /no/such/key -a APP",
    "drains:add nonsense -a APP",
    "webhooks:add -a APP --include nonsense --url https://example.com",
    "features:enable nonsense -a APP",
    "addons:create nonsense -a APP",
    "addons:create postgres:huge -a APP",
    "addons:info nonsense -a APP",
    "addons:attach nonsense -a APP",
    "pg:psql -a APP",
    "pipelines:info nonsense",
    "access:add nonsense -a APP",
    "access:add nobody@example.com --role king -a APP",
    "access:remove nobody@example.com -a APP",
    "apps:transfer nobody@example.com -a APP",
    "apps:transfer:accept no-such-app",
    "members -t no-such-team",
    "teams:create Not_A_Name",
    "keys:add /no/such/file",
    "keys:remove nonsense",
    "authorizations:create --scope nonsense",
    "authorizations:create --only no-such-app",
    "authorizations:info nonsense",
    "authorizations:revoke nonsense",
    "sessions:destroy nonsense",
    "2fa:disable --code 123456",
    "lock:info -a APP",
    "unlock -a APP",
    "freezes:add nonsense -a APP",
    "freezes:add 2020-01-01 -a APP",
    "freezes:remove nonsense -a APP",
    "audit --since yesterday",
    "audit --resource nonsense",
    "users:suspend nobody@example.com",
    "users:delete nobody@example.com --confirm somebody@example.com",
    "account:delete",
];

#[test]
fn every_error_says_what_and_what_now() {
    let platform = shared();
    let app = platform.working_copy("wrong", "probe-app");
    platform.cli(&["create", &app.name, "--no-remote"]).expect_ok();
    let mut all = String::new();
    for line in WRONG {
        let words: Vec<_> = line.split(' ').map(|word| if word == "APP" { app.name.as_str() } else { word }).collect();
        let ran = platform.cli(&words);
        assert!(!ran.ok, "{line} succeeded:\n{}", ran.text);
        assert!(ran.code.is_some_and(|code| (1..=4).contains(&code)), "{line} ended with {:?}", ran.code);
        let said = ran.text.replace(&app.name, "APP").replace(&platform.url(), "URL");
        let _ = writeln!(all, "$ platform {line}\n{}", said.trim_end());
    }
    insta::assert_snapshot!(all);
}
