//! PHP: apps with a composer.json or an index.php, served by Apache or nginx through FPM, by Heroku's commands for it.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::bill::Bill;
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{self, Build, Language, Packages, Use};

mod extensions;
mod manifest;

use manifest::Manifest;

pub(crate) struct Php;

const MANIFEST: &str = "composer.json";
const LOCK: &str = "composer.lock";
/// The version that the stack's Debian has, as its packages are called.
const PHP: &str = "php8.4";
/// One program under two names: Heroku's commands that start FPM and a web server before it.
const SERVE: &str = include_str!("php/serve.sh");

impl Language for Php {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(MANIFEST).is_file() || app.join("index.php").is_file() {
            Ok(())
        } else {
            Err("PHP: neither a composer.json nor an index.php at the top of the app".to_owned())
        }
    }

    fn packages(&self, app: &Path) -> Packages {
        // What cannot be read stops the build, with a message, not its detection.
        let manifest = Manifest::read(app).unwrap_or_default();
        let mut run: Vec<String> = ["cli", "fpm"].map(|part| format!("{PHP}-{part}")).to_vec();
        run.extend(extensions::packages(manifest.extensions.iter().map(String::as_str)));
        // FPM wants somebody who makes folders for temporary files; this is the smallest.
        run.push("systemd-standalone-tmpfiles".to_owned());
        if serves_with_apache(app) {
            run.push("apache2-bin".to_owned());
        }
        let build = if app.join(MANIFEST).is_file() { vec!["composer".to_owned()] } else { Vec::new() };
        Packages { run, build }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let manifest = Manifest::read(app)?;
        let version = Run::new(Path::new("/"), "php", ["-r", "echo PHP_VERSION;"]).read()?;
        output::heading(&format!("Using PHP {version} (the stack's own)"));
        let unknown: Vec<String> =
            manifest.extensions.iter().filter(|name| !extensions::is_known(name)).cloned().collect();
        if !unknown.is_empty() {
            return Err(PackError::PhpExtensions { names: unknown });
        }
        if app.join(MANIFEST).is_file() {
            install_dependencies(build, &manifest, &version)?;
        }
        let installed = files::read(app, &format!("{}/composer/installed.json", manifest.vendor))?;
        build.bill(installed.map_or_else(Bill::default, |text| manifest::bill(&text)).with_runtime("php", &version));
        install_servers(build)?;
        if manifest.has_compile_script {
            output::heading("Running composer compile");
            composer(app, &["compile"])?.show_or_fail(|status, _| Some(PackError::PhpCompile { status }))?;
        }
        Ok(vec![pack::process("web", ["heroku-php-apache2"])?])
    }
}

/// What the app's Procfile says; without one, Apache is Heroku's default.
fn serves_with_apache(app: &Path) -> bool {
    let procfile = files::read(app, "Procfile").ok().flatten().unwrap_or_default();
    let has_web = procfile.lines().any(|line| line.trim_start().starts_with("web"));
    !has_web || procfile.contains("heroku-php-apache2")
}

/// Heroku's commands, on the PATH.
fn install_servers(build: &Build) -> Result<(), PackError> {
    let layer = build.launch_layer("servers")?;
    let script = layer.path().join("bin/heroku-php-apache2");
    files::write_program(&script, SERVE)?;
    files::link(Path::new("heroku-php-apache2"), &layer.path().join("bin/heroku-php-nginx"))?;
    layer.launch_defaults(&[("LANG", "C.UTF-8"), ("COMPOSER_NO_INTERACTION", "1")])?;
    // The path by which Heroku's older examples start them.
    let older = build.app().join("vendor/bin");
    if files::read(build.app(), "Procfile")?.is_some_and(|text| text.contains("vendor/bin/heroku-php-")) {
        std::fs::create_dir_all(&older).map_err(files::failed("make", &older))?;
        for name in ["heroku-php-apache2", "heroku-php-nginx"] {
            files::link(&script.with_file_name(name), &older.join(name))?;
        }
    }
    Ok(())
}

/// `composer install`, on what the last build installed.
fn install_dependencies(build: &Build, manifest: &Manifest, version: &str) -> Result<(), PackError> {
    let app = build.app();
    if !app.join(LOCK).is_file() {
        if manifest.has_requirements {
            return Err(PackError::PhpNoLock);
        }
        return Ok(());
    }
    // Asked for in every build, or one that installs nothing would lose it.
    build.kept_cache("composer-cache", "composer 1")?;
    let key = Key::new("composer 1").with("PHP version", version.as_bytes()).with_files(app, [MANIFEST, LOCK]);
    let kept = build.layer("vendor", Use::Cache, key)?;
    let (saved, vendor) = (kept.path().join("vendor"), app.join(&manifest.vendor));
    let is_committed = vendor.is_dir();
    if kept.is_kept && !is_committed && saved.is_dir() {
        files::copy_folder(&saved, &vendor)?;
    }
    output::heading("Installing dependencies with Composer");
    let mut arguments = vec!["install", "--prefer-dist", "--optimize-autoloader", "--no-interaction", "--no-progress"];
    // As on Heroku: set to nothing, it keeps what only development needs.
    if std::env::var_os("HEROKU_PHP_INSTALL_DEV").is_none() {
        arguments.push("--no-dev");
    }
    composer(app, &arguments)?.show_or_fail(|status, said| Some(explain(status, said)))?;
    if !kept.is_kept && !is_committed {
        files::copy_folder(&vendor, &saved)?;
        kept.finish()?;
    }
    Ok(())
}

fn composer(app: &Path, arguments: &[&str]) -> Result<Run, PackError> {
    let layers = std::env::var_os("CNB_LAYERS_DIR").unwrap_or_default();
    let home = Path::new(&layers).join("composer-home");
    std::fs::create_dir_all(&home).map_err(files::failed("make", &home))?;
    if let Ok(url) = std::env::var("COMPOSER_MIRROR") {
        let settings = serde_json::json!({ "repositories": { "packagist.org": { "type": "composer", "url": url } } });
        let file = home.join("config.json");
        std::fs::write(&file, settings.to_string()).map_err(files::failed("write", &file))?;
    }
    Ok(Run::new(app, "composer", arguments)
        .env("COMPOSER_HOME", &home)
        .env("COMPOSER_CACHE_DIR", Path::new(&layers).join("composer-cache"))
        .env("COMPOSER_MEMORY_LIMIT", "-1"))
}

fn explain(status: std::process::ExitStatus, said: &str) -> PackError {
    let is_about_platform = |line: &&str| line.contains("your php version") || line.contains("requires php ");
    let reason = said.lines().find(is_about_platform).map(|line| line.trim().to_owned());
    reason.map_or(PackError::PhpDependencies { status }, |reason| PackError::PhpVersion { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_bring_the_packages_that_they_name_and_the_server_that_they_start() {
        let app = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(app.path().join(name), text).unwrap();
        assert!(Php.detect(app.path()).unwrap_err().contains("index.php"));
        write("index.php", "");
        assert_eq!(Php.detect(app.path()), Ok(()));
        let packages = Php.packages(app.path());
        assert!(packages.run.contains(&"apache2-bin".to_owned()) && packages.build.is_empty(), "{packages:?}");
        write(MANIFEST, r#"{"require": {"php": "^8.2", "ext-intl": "*", "ext-ctype": "*"}}"#);
        write("Procfile", "web: heroku-php-nginx public/\n");
        let packages = Php.packages(app.path());
        assert!(packages.run.contains(&"php8.4-intl".to_owned()) && !packages.run.contains(&"apache2-bin".to_owned()));
        assert_eq!(packages.build, ["composer"]);
    }

    #[test]
    fn a_php_that_is_too_old_or_new_is_told_in_composers_words() {
        use std::os::unix::process::ExitStatusExt;
        let said =
            "  Problem 1\n    - a/b requires php ^7.4 -> your php version (8.4.1) does not satisfy that requirement.\n";
        let status = std::process::ExitStatus::from_raw(0x0200);
        assert!(explain(status, said).to_string().contains("- a/b requires php ^7.4"));
        assert!(matches!(explain(status, "network"), PackError::PhpDependencies { .. }));
    }
}
