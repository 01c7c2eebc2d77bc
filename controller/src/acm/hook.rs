//! The operator's program that puts records into DNS, for DNS-01: `<program> present <record> <value>` returns once the record can be read
//! everywhere, `<program> cleanup <record> <value>` takes it away.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long it may take: until name servers everywhere have a record.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Calls the program; on failure, the answer is what it said last.
pub(super) async fn call(program: &Path, action: &str, (record, value): (&str, &str)) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args([action, record, value]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed = |why: String| format!("the DNS hook {}: {why}", program.display());
    let output = timeout(LIMIT, command.kill_on_drop(true).output());
    let output = output.await.map_err(|_| failed(format!("took longer than {} minutes", LIMIT.as_secs() / 60)))?;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().next_back().unwrap_or_default();
    Err(failed(if last.is_empty() { output.status.to_string() } else { last.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hook_is_told_what_to_do_and_says_why_it_cannot() {
        let folder = tempfile::tempdir().expect("a folder");
        let (program, log) = (folder.path().join("hook"), folder.path().join("log"));
        let script = format!(
            "#!/bin/sh\necho \"$@\" >> {}\n[ \"$1\" = present ] || {{ echo bad >&2; exit 3; }}\n",
            log.display()
        );
        crate::testing::write_script(&program, &script);
        let record = ("_acme-challenge.example.com", "value");
        call(&program, "present", record).await.expect("done");
        let refused = call(&program, "cleanup", record).await.expect_err("refused");
        assert_eq!(refused, format!("the DNS hook {}: bad", program.display()));
        let said = std::fs::read_to_string(&log).expect("a log");
        assert_eq!(said, "present _acme-challenge.example.com value\ncleanup _acme-challenge.example.com value\n");
        assert!(call(&folder.path().join("none"), "present", record).await.expect_err("none").contains("No such file"));
    }
}
