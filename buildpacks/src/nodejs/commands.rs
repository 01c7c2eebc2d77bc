//! What each package manager is told to do.

use std::path::Path;

use super::manager::{Kind, Manager};
use crate::command::Run;

/// Files beside package.json that decide what a package manager installs.
pub(super) const SETTINGS: [&str; 6] =
    [".npmrc", ".yarnrc", ".yarnrc.yml", "pnpm-workspace.yaml", ".pnpmfile.cjs", "bunfig.toml"];
/// Folders with programs, extensions and patches that settings and package.json may name.
pub(super) const FOLDERS: [&str; 4] = [".yarn/plugins", ".yarn/releases", ".yarn/patches", "patches"];

/// Who is meant to have what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// The build: `devDependencies` too.
    Build,
    /// The running app.
    Production,
}

/// The words that install what is locked, or whatever is newest if nothing is.
pub(super) fn install(manager: &Manager, whom: For) -> Vec<&'static str> {
    let is_locked = manager.lock.is_some();
    let either = |build: &'static str, production: &'static str| match whom {
        For::Build => build,
        For::Production => production,
    };
    let words = match (manager.kind, is_locked) {
        (Kind::Npm, true) => vec!["ci", either("--include=dev", "--omit=dev"), "--no-audit", "--no-fund"],
        (Kind::Npm, false) => {
            vec!["install", "--no-package-lock", either("--include=dev", "--omit=dev"), "--no-audit", "--no-fund"]
        }
        (Kind::Yarn, _) => vec![
            "install",
            if is_locked { "--frozen-lockfile" } else { "--no-lockfile" },
            either("--production=false", "--production=true"),
            "--non-interactive",
            "--prefer-offline",
        ],
        (Kind::Berry, _) if whom == For::Production => vec!["workspaces", "focus", "--all", "--production"],
        (Kind::Berry, true) => vec!["install", "--immutable"],
        (Kind::Berry, false) => vec!["install", "--no-immutable"],
        (Kind::Pnpm, _) => vec![
            "install",
            if is_locked { "--frozen-lockfile" } else { "--no-lockfile" },
            either("--prod=false", "--prod=true"),
            "--prefer-offline",
        ],
        (Kind::Bun, _) => {
            vec!["install", if is_locked { "--frozen-lockfile" } else { "--no-save" }, either("", "--production")]
        }
    };
    words.into_iter().filter(|word| !word.is_empty()).collect()
}

/// The words that take out what only builds need; none if the package manager cannot.
pub(super) fn prune(manager: &Manager, app: &Path) -> Option<Vec<&'static str>> {
    match manager.kind {
        Kind::Npm => Some(vec!["prune", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"]),
        Kind::Yarn => Some([install(manager, For::Production), vec!["--ignore-scripts"]].concat()),
        Kind::Berry if can_focus(app) => Some(install(manager, For::Production)),
        Kind::Pnpm if !app.join("pnpm-workspace.yaml").is_file() => Some(vec!["prune", "--prod", "--ignore-scripts"]),
        Kind::Berry | Kind::Pnpm | Kind::Bun => None,
    }
}

/// Whether this Yarn can install for production alone: since version 4, or with a plugin.
pub(super) fn can_focus(app: &Path) -> bool {
    let lock = std::fs::read_to_string(app.join("yarn.lock")).unwrap_or_default();
    let is_old = (4..=7).any(|version| lock.contains(&format!("__metadata:\n  version: {version}\n")));
    !is_old || app.join(".yarn/plugins/@yarnpkg/plugin-workspace-tools.cjs").is_file()
}

/// Tells the package manager where its cache is, and that nobody answers questions. The oldest Yarn of a kind gives up at a setting
/// that it does not know.
pub(super) fn with_cache(run: Run, kind: Kind, cache: &Path) -> Run {
    let run = run.env("CI", "true");
    match kind {
        Kind::Npm => run.env("npm_config_cache", cache),
        Kind::Yarn => run.env("YARN_CACHE_FOLDER", cache),
        Kind::Berry => run
            .env("YARN_CACHE_FOLDER", cache)
            .env("YARN_ENABLE_GLOBAL_CACHE", "false")
            .env("YARN_ENABLE_PROGRESS_BARS", "0"),
        // Its later versions read the second name.
        Kind::Pnpm => run.env("npm_config_store_dir", cache).env("pnpm_config_store_dir", cache),
        Kind::Bun => run.env("BUN_INSTALL_CACHE_DIR", cache),
    }
}

/// Whether the user wants `devDependencies` to stay, by Heroku's variables.
pub(super) fn keeps_dev(kind: Kind, variable: impl Fn(&str) -> Option<String>) -> bool {
    let is = |name: &str, value: &str| variable(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
    let by_kind = match kind {
        Kind::Npm => is("NPM_CONFIG_PRODUCTION", "false"),
        Kind::Yarn => is("YARN_PRODUCTION", "false"),
        Kind::Berry => is("YARN2_SKIP_PRUNING", "true"),
        Kind::Pnpm => is("PNPM_SKIP_PRUNING", "true"),
        Kind::Bun => false,
    };
    by_kind || variable("NODE_ENV").is_some_and(|set| !set.is_empty() && set != "production")
}

#[cfg(test)]
mod tests {
    use super::super::manager::Source;
    use super::*;

    fn manager(kind: Kind, lock: Option<&'static str>) -> Manager {
        Manager { kind, source: Source::Bundled, lock }
    }

    #[test]
    fn what_is_locked_is_installed_as_it_is() {
        let lock = Some("lock");
        for (kind, lock, whom, expected) in [
            (Kind::Npm, lock, For::Build, "ci --include=dev --no-audit --no-fund"),
            (Kind::Npm, None, For::Production, "install --no-package-lock --omit=dev --no-audit --no-fund"),
            (
                Kind::Yarn,
                lock,
                For::Build,
                "install --frozen-lockfile --production=false --non-interactive --prefer-offline",
            ),
            (Kind::Berry, lock, For::Build, "install --immutable"),
            (Kind::Berry, lock, For::Production, "workspaces focus --all --production"),
            (Kind::Pnpm, lock, For::Production, "install --frozen-lockfile --prod=true --prefer-offline"),
            (Kind::Bun, lock, For::Production, "install --frozen-lockfile --production"),
            (Kind::Bun, None, For::Build, "install --no-save"),
        ] {
            assert_eq!(install(&manager(kind, lock), whom).join(" "), expected);
        }
    }

    #[test]
    fn what_only_builds_need_goes_where_the_package_manager_can() {
        let app = tempfile::tempdir().unwrap();
        let pruned = |kind| prune(&manager(kind, Some("lock")), app.path()).is_some();
        assert!(pruned(Kind::Npm) && pruned(Kind::Yarn) && pruned(Kind::Berry) && pruned(Kind::Pnpm));
        assert!(!pruned(Kind::Bun));
        std::fs::write(app.path().join("yarn.lock"), "__metadata:\n  version: 6\n").unwrap();
        std::fs::write(app.path().join("pnpm-workspace.yaml"), "").unwrap();
        assert!(!pruned(Kind::Berry) && !pruned(Kind::Pnpm));
    }

    #[test]
    fn herokus_variables_keep_what_only_builds_need() {
        let keeps = |kind, name: &str, value: &str| keeps_dev(kind, |asked| (asked == name).then(|| value.to_owned()));
        assert!(keeps(Kind::Npm, "NPM_CONFIG_PRODUCTION", "false"));
        assert!(!keeps(Kind::Npm, "NPM_CONFIG_PRODUCTION", "true"));
        assert!(!keeps(Kind::Pnpm, "NPM_CONFIG_PRODUCTION", "false"));
        assert!(keeps(Kind::Yarn, "YARN_PRODUCTION", "false"));
        assert!(keeps(Kind::Berry, "YARN2_SKIP_PRUNING", "true"));
        assert!(keeps(Kind::Pnpm, "PNPM_SKIP_PRUNING", "true"));
        assert!(keeps(Kind::Bun, "NODE_ENV", "staging"));
        assert!(!keeps(Kind::Bun, "NODE_ENV", "production"));
    }
}
