//! All text that a user reads when a build fails.

/// Why a build failed. `Display` is the whole message for the person who pushed: what happened, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// To be replaced.
    #[error("placeholder")]
    Placeholder,
}
