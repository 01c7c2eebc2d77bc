//! Fetching a branch from a place that a user named, with git itself.

use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use crate::git::{prepare, repository};
use crate::store::Repository;
use crate::{Controller, Error};

/// The longest that it may take.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// What was fetched last, in the app's own repository.
const FETCHED: &str = "refs/platform/linked";

impl Controller {
    /// Fetches the linked branch into the app's own repository; the commit that it is at.
    pub(super) async fn fetch(&self, linked: &Repository) -> Result<String, Error> {
        let failed = |source: std::io::Error| Error::System { action: "run git", source: source.into() };
        let repository = repository(&self.settings, linked.app);
        prepare(&repository).await.map_err(failed)?;
        let url = Url::parse(&linked.url).map_err(|_| refused("its URL is damaged"))?;
        let remote = self.remote(linked.app, &url, self.settings.push_limit).await;
        let mut remote = remote.map_err(|error| refused(&error.to_string()))?;
        let mut git = remote.git();
        git.arg("--git-dir").arg(&repository).args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--force",
        ]);
        git.arg(remote.plain()).arg(format!("+refs/heads/{}:{FETCHED}", linked.branch));
        let output = timeout(LIMIT, git.output()).await.map_err(|_| refused("it took longer than ten minutes"))?;
        let output = output.map_err(failed)?;
        if output.status.success() {
            self.remember(&mut remote).await?;
            let fetched = crate::git::tip(&repository, FETCHED).await.map_err(failed)?;
            return fetched.ok_or_else(|| refused("git fetched nothing"));
        }
        let words = String::from_utf8_lossy(&output.stderr);
        if words.contains("couldn't find remote ref") {
            return Err(refused(&format!("it has no branch {}", linked.branch)));
        }
        Err(refused(&remote.explain(&words)))
    }
}

fn refused(why: &str) -> Error {
    Error::Invalid(format!("The repository cannot be fetched: {why}"))
}
