//! Ruby: apps with a Gemfile. The stack's Debian has the Ruby; Bundler installs the gems into a layer.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::bill::{Bill, Registry};
use crate::command::Run;
use crate::error::PackError;
use crate::files;
use crate::key::Key;
use crate::output;
use crate::pack::{self, Build, Language, Layer, Packages, Use};

mod assets;
mod lock;
mod version;

use lock::Lock;

pub(crate) struct Ruby;

const GEMFILE: &str = "Gemfile";
const LOCK: &str = "Gemfile.lock";
/// The one minor version that the stack's Debian has.
const VERSION: &str = "3.3";
/// Directory of a Ruby of that version in a path of gems.
const ABI: &str = "3.3.0";

/// Gems that link to libraries which are not in the stack, with their packages for the image and for the build.
const LIBRARIES: [(&str, &str, &str); 9] = [
    ("sqlite3", "libsqlite3-0", "libsqlite3-dev"),
    ("mysql2", "libmariadb3", "libmariadb-dev"),
    ("trilogy", "zlib1g", "zlib1g-dev"),
    ("nokogiri", "libxslt1.1", "libxslt1-dev"),
    ("ruby-vips", "libvips42t64", "libvips-dev"),
    ("rmagick", "libmagickwand-7.q16-10", "libmagickwand-7.q16-dev"),
    ("curb", "libcurl4t64", "libcurl4-openssl-dev"),
    ("charlock_holmes", "libicu76", "libicu-dev"),
    ("idn-ruby", "libidn12", "libidn-dev"),
];

impl Language for Ruby {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(GEMFILE).is_file() { Ok(()) } else { Err("Ruby: no Gemfile at the top of the app".to_owned()) }
    }

    fn packages(&self, app: &Path) -> Packages {
        // What cannot be read stops the build, with a message, not its detection.
        let lock = Lock::parse(&files::read(app, LOCK).ok().flatten().unwrap_or_default());
        let mut packages =
            Packages { run: vec!["ruby".to_owned(), "bundler".to_owned()], build: vec!["ruby-dev".to_owned()] };
        for (_, run, build) in LIBRARIES.iter().filter(|(gem, ..)| lock.has(gem)) {
            packages.run.push((*run).to_owned());
            packages.build.push((*build).to_owned());
        }
        packages
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        let app = build.app();
        let text = files::read(app, LOCK)?.ok_or(PackError::RubyNoLock)?;
        let lock = Lock::parse(&text);
        let version = version::choose(app, &lock)?;
        let gems = Gems::install(build, &lock, &version)?;
        let secret = build.kept_secret()?;
        assets::compile(build, &lock, &gems)?;
        gems.set_launch_defaults(&secret)?;
        processes(app, &lock)
    }
}

/// The installed gems.
pub(crate) struct Gems {
    layer: Layer,
    /// `development:test`, unless the app says otherwise.
    without: String,
}

impl Gems {
    /// Installs what Gemfile.lock says, into what the last build installed.
    fn install(build: &Build, lock: &Lock, version: &str) -> Result<Self, PackError> {
        let app = build.app();
        let without = std::env::var("BUNDLE_WITHOUT").unwrap_or_else(|_| "development:test".to_owned());
        let stack = build.stack();
        let key = Key::new("bundler 1")
            .with("Ruby version", version.as_bytes())
            .with("stack", stack.as_bytes())
            .with("BUNDLE_WITHOUT", without.as_bytes())
            .with_files(app, [GEMFILE, LOCK]);
        let downloads = build.kept_cache("bundler-cache", "bundler 1")?;
        let layer = build.layer("gems", Use::LaunchBuildCache, key)?;
        let gems = Self { layer, without };
        if gems.layer.is_kept {
            output::heading("Using gems from the last build (nothing they depend on has changed)");
            return Ok(gems);
        }
        output::heading(&format!("Installing gems with Bundler{}", lock.bundler_note()));
        gems.bundle_install(app, &downloads)?;
        // A layer's `bin` is on the PATH (Buildpack spec, "Layer Paths").
        files::link(Path::new(&format!("ruby/{ABI}/bin")), &gems.layer.path().join("bin"))?;
        gems.layer.bill(&gems.bill(lock).with_runtime("ruby", version))?;
        gems.layer.finish()?;
        Ok(gems)
    }

    /// The gems of the lock file that were installed: not those for other platforms or for development.
    fn bill(&self, lock: &Lock) -> Bill {
        let folder = self.layer.path().join("ruby").join(ABI);
        let specification = |gem: &str| folder.join(format!("specifications/{gem}.gemspec")).is_file();
        Bill::of(Registry::Gem, lock.installed(specification))
    }

    /// From vendor/cache alone if that is enough: `bundle install` asks the registry even then.
    fn bundle_install(&self, app: &Path, downloads: &Path) -> Result<(), PackError> {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).to_string();
        let arguments = ["install", "--jobs", &cores, "--retry", "3"];
        let is_cached = files::names(&app.join("vendor/cache")).iter().any(|name| files::is_a(name, "gem"));
        if is_cached {
            let local = self.bundle(app, &[&arguments[..], &["--local"]].concat());
            if local.quiet_or_fail(|status, _| Some(PackError::RubyGems { status })).is_ok() {
                output::line("All of them are in vendor/cache.");
                return Ok(());
            }
            output::line("Not all of them are in vendor/cache.");
        }
        self.bundle(app, &arguments)
            .env("BUNDLE_GLOBAL_GEM_CACHE", "true")
            .env("BUNDLE_USER_CACHE", downloads)
            .show_or_fail(|status, _| Some(PackError::RubyGems { status }))
    }

    /// The bundle command, as the app will have it.
    fn bundle(&self, app: &Path, arguments: &[&str]) -> Run {
        let layer = self.layer.path();
        Run::new(app, "bundle", arguments)
            .env("BUNDLE_PATH", &layer)
            .env("BUNDLE_WITHOUT", &self.without)
            .env("BUNDLE_FROZEN", "1")
            // Not the one that Gemfile.lock was made with: it would have to be downloaded, in every process.
            .env("BUNDLE_VERSION", "system")
            .env("RAILS_ENV", std::env::var("RAILS_ENV").unwrap_or_else(|_| "production".to_owned()))
            .env("RACK_ENV", std::env::var("RACK_ENV").unwrap_or_else(|_| "production".to_owned()))
    }

    fn set_launch_defaults(&self, secret: &str) -> Result<(), PackError> {
        let layer = self.layer.path();
        let (path, gem_path) = (layer.to_string_lossy(), format!("{}/ruby/{ABI}:", layer.display()));
        self.layer.launch_defaults(&[
            ("BUNDLE_PATH", &path),
            ("BUNDLE_WITHOUT", &self.without),
            ("BUNDLE_FROZEN", "1"),
            ("BUNDLE_VERSION", "system"),
            // The colon stands for Ruby's own gems.
            ("GEM_PATH", &gem_path),
            ("LANG", "C.UTF-8"),
            ("RACK_ENV", "production"),
            ("RAILS_ENV", "production"),
            ("RAILS_LOG_TO_STDOUT", "enabled"),
            ("RAILS_SERVE_STATIC_FILES", "enabled"),
            ("DISABLE_SPRING", "1"),
            ("MALLOC_ARENA_MAX", "2"),
            ("PUMA_PERSISTENT_TIMEOUT", "95"),
            ("SECRET_KEY_BASE", secret),
        ])
    }
}

/// Heroku's default processes. A Procfile's line of the same name wins.
fn processes(app: &Path, lock: &Lock) -> Result<Vec<Process>, PackError> {
    let is_rails = lock.has("railties");
    let rails = if app.join("bin/rails").is_file() { "bin/rails" } else { "bundle exec rails" };
    let mut found = Vec::new();
    if is_rails {
        let line = format!("exec {rails} server -b 0.0.0.0 -p ${{PORT:-5000}} -e $RAILS_ENV");
        found.push(pack::shell_process("web", &line)?);
        found.push(pack::shell_process("console", &format!("exec {rails} console"))?);
    } else if app.join("config.ru").is_file() && lock.has("rack") {
        let line = "exec bundle exec rackup config.ru -o 0.0.0.0 -p ${PORT:-5000}";
        found.push(pack::shell_process("web", line)?);
    }
    if lock.has("rake") && ["Rakefile", "rakefile", "Rakefile.rb"].iter().any(|name| app.join(name).is_file()) {
        found.push(pack::process("rake", ["bundle", "exec", "rake"])?);
    }
    if !found.iter().any(|process| process.r#type.as_str() == "web") && !app.join("Procfile").is_file() {
        output::warning(
            "there is no Procfile and no config.ru, so nothing starts. Say what does: web: bundle exec ruby app.rb",
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gems_bring_the_libraries_that_they_link_to() {
        let app = tempfile::tempdir().unwrap();
        assert!(Ruby.detect(app.path()).unwrap_err().contains("Gemfile"));
        std::fs::write(app.path().join(GEMFILE), "").unwrap();
        std::fs::write(app.path().join(LOCK), "GEM\n  specs:\n    sqlite3 (2.0.0)\n    pg (1.5)\n").unwrap();
        assert_eq!(Ruby.detect(app.path()), Ok(()));
        let packages = Ruby.packages(app.path());
        assert_eq!(packages.run, ["ruby", "bundler", "libsqlite3-0"]);
        assert_eq!(packages.build, ["ruby-dev", "libsqlite3-dev"]);
    }

    #[test]
    fn the_default_processes_are_herokus() {
        let app = tempfile::tempdir().unwrap();
        let of = |gems: &str| -> Vec<String> {
            let lock = Lock::parse(&format!("GEM\n  specs:\n{gems}"));
            let found = processes(app.path(), &lock).unwrap();
            found.into_iter().map(|process| format!("{}: {}", process.r#type, process.args.join(" "))).collect()
        };
        assert_eq!(of("    rack (3.1)\n"), Vec::<String>::new());
        std::fs::write(app.path().join("config.ru"), "").unwrap();
        std::fs::write(app.path().join("Rakefile"), "").unwrap();
        assert_eq!(of("    rack (3.1)\n"), ["web: exec bundle exec rackup config.ru -o 0.0.0.0 -p ${PORT:-5000}"]);
        let rails = of("    railties (8.0)\n    rake (13)\n");
        assert_eq!(rails[0], "web: exec bundle exec rails server -b 0.0.0.0 -p ${PORT:-5000} -e $RAILS_ENV");
        assert_eq!(rails.len(), 3);
    }
}
