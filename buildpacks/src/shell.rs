//! Shell: apps that begin with `start.sh`.

use std::path::Path;

use libcnb::data::launch::Process;

use crate::error::PackError;
use crate::output;
use crate::pack::{self, Build, Language};

pub(crate) struct Shell;

const SCRIPT: &str = "start.sh";

impl Language for Shell {
    fn detect(&self, app: &Path) -> Result<(), String> {
        if app.join(SCRIPT).is_file() { Ok(()) } else { Err("Shell: no start.sh at the top of the app".to_owned()) }
    }

    fn build(&self, _: &Build) -> Result<Vec<Process>, PackError> {
        output::heading("Starting with bash start.sh");
        Ok(vec![pack::process("web", ["bash", SCRIPT])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_makes_the_app() {
        let app = tempfile::tempdir().unwrap();
        assert!(Shell.detect(app.path()).unwrap_err().contains("start.sh"));
        std::fs::write(app.path().join(SCRIPT), "").unwrap();
        assert_eq!(Shell.detect(app.path()), Ok(()));
    }
}
