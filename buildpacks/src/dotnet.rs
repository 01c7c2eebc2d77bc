//! .NET: known, so that its users are told plainly that it is not offered, and what to do instead.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::files;
use crate::pack::{Build, Language};

pub(crate) struct Dotnet;

/// Endings of what a .NET app has at its top.
const SIGNS: [&str; 5] = ["csproj", "fsproj", "vbproj", "sln", "slnx"];

impl Language for Dotnet {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if files::names(app).iter().any(|name| SIGNS.iter().any(|sign| files::is_a(name, sign))) {
            Ok(())
        } else {
            Err(format!(".NET: no file that ends in .{} at the top of the app", SIGNS.join(", .")))
        }
    }

    fn build(&self, _: &Build) -> Result<Vec<Process>, PackError> {
        Err(PackError::Dotnet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_and_solutions_are_known() {
        let app = tempfile::tempdir().unwrap();
        assert!(Dotnet.detect(app.path()).unwrap_err().contains(".csproj"));
        std::fs::write(app.path().join("Shop.sln"), "").unwrap();
        assert_eq!(Dotnet.detect(app.path()), Ok(()));
    }
}
