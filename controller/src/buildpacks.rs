//! Heroku's names of buildpacks, and ours that do the same work.

const NAMES: [(&str, &str); 5] = [
    ("heroku/nodejs", "platform/nodejs"),
    ("heroku/python", "platform/python"),
    ("heroku/go", "platform/go"),
    ("heroku/procfile", "platform/procfile"),
    ("heroku-community/static", "platform/static"),
];

/// The id of the buildpack that somebody means: by Heroku's name for it, by the address of its source, or by its own id.
pub(crate) fn id_of(name: &str) -> &str {
    let name = name.strip_prefix("urn:buildpack:").unwrap_or(name);
    let source = name.strip_prefix("https://github.com/heroku/heroku-buildpack-").map(|it| it.trim_end_matches(".git"));
    let is_meant = |known: &str| {
        known == name || source.is_some_and(|source| known.split_once('/').is_some_and(|(_, it)| it == source))
    };
    NAMES.iter().find(|(known, _)| is_meant(known)).map_or(name, |(_, id)| id)
}

/// Whether there is a buildpack of this name, Heroku's or our own.
pub(crate) fn is_known(name: &str) -> bool {
    NAMES.iter().any(|(known, id)| *known == name || *id == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn herokus_names_mean_ours() {
        for name in [
            "heroku/nodejs",
            "urn:buildpack:heroku/nodejs",
            "https://github.com/heroku/heroku-buildpack-nodejs",
            "https://github.com/heroku/heroku-buildpack-nodejs.git",
            "platform/nodejs",
        ] {
            assert_eq!(id_of(name), "platform/nodejs");
        }
        assert_eq!(id_of("https://github.com/somebody/buildpack"), "https://github.com/somebody/buildpack");
        assert!(is_known("heroku/python") && is_known("platform/static") && !is_known("heroku/cobol"));
    }
}
