//! The stack: the pair of base images, build and run.

/// A stack that is made and ready.
#[derive(Debug, Clone)]
pub struct Stack {
    /// `debian-13`
    pub name: String,
}
