//! The machine's package mirrors and CA certificates, on their way into stack and app builds.

/// What the machine is configured with.
#[derive(Debug, Clone, Default)]
pub struct PackageAccess {}
