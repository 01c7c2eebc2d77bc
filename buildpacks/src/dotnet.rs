//! .NET: known, so that its users are told plainly that it is not offered, and what to do instead. What a Procfile starts may have
//! been published before it was pushed.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::files;
use crate::output;
use crate::pack::{Build, Language};

pub(crate) struct Dotnet;

/// Endings of what a .NET app has at its top.
const SIGNS: [&str; 5] = ["csproj", "fsproj", "vbproj", "sln", "slnx"];

impl Language for Dotnet {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join("Dockerfile").is_file() {
            Err(".NET: there is a Dockerfile".to_owned())
        } else if files::names(app).iter().any(|name| SIGNS.iter().any(|sign| files::is_a(name, sign))) {
            Ok(())
        } else {
            Err(format!(".NET: no file that ends in .{} at the top of the app", SIGNS.join(", .")))
        }
    }

    fn build(&self, build: &Build) -> Result<Vec<Process>, PackError> {
        if !build.app().join("Procfile").is_file() {
            return Err(PackError::Dotnet);
        }
        output::warning(
            "nothing compiles this .NET project: the stack's Debian has no packages of .NET. The Procfile can start what was published before: \
             run `dotnet publish --self-contained --runtime linux-x64` on your machine and commit what comes of it. Or replace the Procfile with a Dockerfile.",
        );
        Ok(Vec::new())
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
        std::fs::write(app.path().join("Dockerfile"), "").unwrap();
        assert_eq!(Dotnet.detect(app.path()).unwrap_err(), ".NET: there is a Dockerfile");
    }
}
