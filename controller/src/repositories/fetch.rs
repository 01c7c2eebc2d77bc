//! Fetching a branch from a place that a user named, with git itself.

use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use crate::git::{plain, prepare, remote, repository};
use crate::store::Repository;
use crate::{Controller, Error};

/// The longest that it may take.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// What was fetched last, in the app's own repository.
const FETCHED: &str = "refs/platform/linked";
/// Characters of git's own words that are passed on.
const WORDS: usize = 500;

impl Controller {
    /// Fetches the linked branch into the app's own repository; the commit that it is at.
    pub(super) async fn fetch(&self, linked: &Repository) -> Result<String, Error> {
        let failed = |source: std::io::Error| Error::System { action: "run git", source: source.into() };
        let repository = repository(&self.settings, linked.app);
        prepare(&repository).await.map_err(failed)?;
        let url = Url::parse(&linked.url).map_err(|_| refused("its URL is damaged"))?;
        let git = remote(&self.outbound, &url, self.settings.push_limit).await;
        let mut git = git.map_err(|error| refused(&error.to_string()))?;
        git.arg("--git-dir").arg(&repository).args([
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--force",
        ]);
        git.arg(plain(&url).as_str()).arg(format!("+refs/heads/{}:{FETCHED}", linked.branch));
        let output = timeout(LIMIT, git.output()).await.map_err(|_| refused("it took longer than ten minutes"))?;
        let output = output.map_err(failed)?;
        if output.status.success() {
            let fetched = crate::git::tip(&repository, FETCHED).await.map_err(failed)?;
            return fetched.ok_or_else(|| refused("git fetched nothing"));
        }
        Err(refused(&self.explain(linked, &String::from_utf8_lossy(&output.stderr))))
    }

    /// What git says, in words that help.
    fn explain(&self, linked: &Repository, words: &str) -> String {
        if words.contains("couldn't find remote ref") {
            format!("it has no branch {}", linked.branch)
        } else if words.contains("could not read Username") || words.contains("Authentication failed") {
            "it wants somebody to sign in. Put a token that may read it into the URL: https://user:token@host/path"
                .to_owned()
        } else if words.contains("signal 25") {
            format!("it has more than {} bytes", self.settings.push_limit)
        } else if words.contains("redirect") {
            "it is at another address by now: link it by that".to_owned()
        } else {
            let words: String = words.trim().chars().take(WORDS).collect();
            format!("git says: {words}")
        }
    }
}

fn refused(why: &str) -> Error {
    Error::Invalid(format!("The repository cannot be fetched: {why}"))
}
