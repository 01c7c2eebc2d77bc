//! `rake assets:precompile`, as Heroku runs it.

use std::path::Path;

use super::{Gems, Lock};
use crate::command::Run;
use crate::error::PackError;
use crate::pack::Build;
use crate::{files, output};

/// Folders that a later build goes on from.
const KEPT: [&str; 2] = ["public/assets", "tmp/cache/assets"];
/// Most of them that is kept, in bytes.
const KEPT_BYTES: u64 = 100 << 20;

/// Database gems, and a URL that each accepts without connecting.
const DATABASES: [(&str, &str); 4] = [
    ("pg", "postgresql://user:pass@127.0.0.1/dbname"),
    ("mysql2", "mysql2://user:pass@127.0.0.1/dbname"),
    ("trilogy", "trilogy://user:pass@127.0.0.1/dbname"),
    ("sqlite3", "sqlite3::memory:"),
];

/// Compiles the app's assets, if it has a task for it and has not done so itself.
pub(super) fn compile(build: &Build, lock: &Lock, gems: &Gems) -> Result<(), PackError> {
    let app = build.app();
    let has_rakefile =
        ["Rakefile", "rakefile", "Rakefile.rb", "rakefile.rb"].iter().any(|name| app.join(name).is_file());
    if !has_rakefile || !lock.has("rake") {
        return Ok(());
    }
    if let Some(manifest) = manifest(app) {
        output::heading(&format!("Using the compiled assets that the app brings ({manifest})"));
        return Ok(());
    }
    let command = "bundle exec rake assets:precompile".to_owned();
    let tasks = match rake(app, lock, gems, &["-P", "--trace"]).read() {
        Ok(tasks) => tasks,
        Err(_) if !lock.has("railties") => return Ok(()),
        Err(PackError::Command { status, .. }) => return Err(PackError::RubyAssets { command, status }),
        Err(other) => return Err(other),
    };
    let has = |task: &str| tasks.lines().any(|line| line.trim() == format!("rake {task}"));
    if !has("assets:precompile") {
        return Ok(());
    }
    let cache = build.kept_cache("assets", "assets 1")?;
    for folder in KEPT {
        files::copy_folder(&cache.join(folder), &app.join(folder))?;
    }
    output::heading("Compiling assets: rake assets:precompile");
    let explain = |status, _: &str| Some(PackError::RubyAssets { command, status });
    rake(app, lock, gems, &["assets:precompile"]).show_or_fail(explain)?;
    if has("assets:clean") {
        let command = "bundle exec rake assets:clean".to_owned();
        let explain = |status, _: &str| Some(PackError::RubyAssets { command, status });
        rake(app, lock, gems, &["assets:clean"]).show_or_fail(explain)?;
    }
    for folder in KEPT {
        files::remove(&cache.join(folder))?;
        if files::size(&app.join(folder)) <= KEPT_BYTES {
            files::copy_folder(&app.join(folder), &cache.join(folder))?;
        }
    }
    Ok(())
}

/// The file by which Sprockets or Propshaft says that assets are compiled.
fn manifest(app: &Path) -> Option<String> {
    let is_manifest = |name: &String| {
        let is_json = files::is_a(name, "json");
        let starts = [".sprockets-manifest-", "manifest-", ".manifest"].iter().any(|start| name.starts_with(start));
        is_json && starts || name == "manifest.yml"
    };
    files::names(&app.join("public/assets")).into_iter().find(is_manifest).map(|name| format!("public/assets/{name}"))
}

fn rake(app: &Path, lock: &Lock, gems: &Gems, arguments: &[&str]) -> Run {
    let mut run = gems.bundle(app, &[&["exec", "rake"], arguments].concat()).env("RAILS_GROUPS", "assets");
    // Rails wants both to start, and asks neither while it compiles assets.
    let is_set = |name: &str| std::env::var_os(name).is_some();
    if !is_set("SECRET_KEY_BASE") {
        run = run.env("SECRET_KEY_BASE_DUMMY", "1").env("SECRET_KEY_BASE", "only-for-the-build");
    }
    if !is_set("DATABASE_URL")
        && let Some((_, url)) = DATABASES.iter().find(|(gem, _)| lock.has(gem))
    {
        run = run.env("DATABASE_URL", url);
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_assets_are_known_by_their_manifest() {
        let app = tempfile::tempdir().unwrap();
        assert_eq!(manifest(app.path()), None);
        let assets = app.path().join("public/assets");
        std::fs::create_dir_all(&assets).unwrap();
        std::fs::write(assets.join("app-1.js"), "").unwrap();
        assert_eq!(manifest(app.path()), None);
        std::fs::write(assets.join(".manifest.json"), "").unwrap();
        assert_eq!(manifest(app.path()).as_deref(), Some("public/assets/.manifest.json"));
    }
}
