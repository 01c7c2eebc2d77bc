//! What a push may say beside its commits: `git push -o reason='…' -o force`.

/// The options of a push.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Why its release is made.
    pub(crate) reason: Option<String>,
    /// It is to go on even if the app is locked or frozen.
    pub(crate) force: bool,
}

impl Options {
    /// Reads them; an error is what to tell who pushed.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for word in words {
            match word.split_once('=') {
                Some(("reason", reason)) => options.reason = Some(reason.to_owned()),
                None if word == "force" => options.force = true,
                _ => {
                    return Err(format!("There is no push option {word:?}. There are: -o reason='why', -o force."));
                }
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_may_give_a_reason_and_insist() {
        let parse = |words: &[&str]| Options::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Ok(Options::default()));
        let both = Options { reason: Some("fix = it".to_owned()), force: true };
        assert_eq!(parse(&["reason=fix = it", "force"]), Ok(both));
        for wrong in ["reson=x", "reason", "force=1", ""] {
            assert!(parse(&[wrong]).is_err_and(|text| text.contains("-o reason")), "{wrong}");
        }
    }
}
