use std::fmt;
use std::str::FromStr;

use model::NameError;

/// What became of a build or a release (Heroku's words for both).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The build, the release phase or the rollout is not over.
    Pending,
    /// The build made a release; the release became current.
    Succeeded,
    /// It did not, and never will.
    Failed,
}

impl FromStr for Status {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "pending" => Ok(Self::Pending),
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            _ => Err(NameError("A status is pending, succeeded or failed".to_owned())),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        })
    }
}
