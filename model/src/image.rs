//! Images: a list of layers and a config, named by digest. Where the bytes lie is the engine's matter.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NameError;
use crate::process::Process;

/// `sha256:` and 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// From the 32 bytes of a SHA-256.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        use fmt::Write;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// `sha256:…`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hex digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_hex = |hex: &str| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.strip_prefix("sha256:").is_some_and(is_hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError("A digest is sha256: and 64 lower-case hexadecimal digits".to_owned()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The diffID: SHA-256 of the layer as an uncompressed tar (OCI image spec, "Layer `DiffID`").
    pub diff_id: Digest,
    /// What made it, for the image history: `Layer: 'dist', Created by buildpack: platform/nodejs@0.1.0`.
    pub created_by: String,
}

/// The parts of an OCI image config that a container needs (OCI image spec, "Properties").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Environment of every container of the image.
    pub env: BTreeMap<String, String>,
    /// Command prefix.
    pub entrypoint: Vec<String>,
    /// Arguments of the command prefix, or, without one, the command.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// Directory in which a container starts.
    pub working_dir: String,
    /// Labels, the CNB ones (`io.buildpacks.…`) among them.
    pub labels: BTreeMap<String, String>,
}

/// An image: what a release runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The image id: SHA-256 of the OCI config JSON.
    pub digest: Digest,
    /// From the base up: the run image's layers first, the app's last ones on top.
    pub layers: Vec<Layer>,
    /// How containers of it start.
    pub config: ImageConfig,
    /// What it offers to run, by the buildpacks and the Procfile.
    pub processes: Vec<Process>,
    /// Where it came from, if not from buildpacks on our stack.
    #[serde(default)]
    pub foreign: Option<Foreign>,
}

/// What is known of an image that lies on no stack of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// What people know it by: `ghcr.io/example/shop:1`.
    pub name: String,
    /// Its manifest or index where it came from. The same again is the same image.
    pub manifest: Digest,
    /// What a command line is given to as one more argument: a shell, or the launcher of its buildpacks. Empty if it has neither.
    pub shell: Vec<String>,
}

/// The first process in a container: it reaps orphans, and passes signals on to everything that the app started.
pub const FIRST: &str = "/usr/bin/tini";
/// The same, in a layer of ours, for an image that may hold no other file of ours.
pub const FOREIGN_FIRST: &str = "/cnb/lifecycle/init";

impl Image {
    /// Program and arguments of a process type's container.
    pub fn process_args(&self, name: &str) -> Vec<String> {
        if self.foreign.is_none() {
            return first(FIRST, [format!("/cnb/process/{name}")]);
        }
        let process = self.processes.iter().find(|process| process.process_type.as_str() == name);
        first(
            FOREIGN_FIRST,
            process.into_iter().flat_map(|process| process.command.iter().chain(&process.args)).cloned(),
        )
    }

    /// Program and arguments of a command line in a container of the image that runs already.
    pub fn inside_args(&self, line: &str) -> Vec<String> {
        match &self.foreign {
            None => ["/cnb/lifecycle/launcher", line].map(str::to_owned).to_vec(),
            Some(foreign) => foreign.line(line),
        }
    }

    /// Program and arguments of a command, given word by word, in a container of the image that runs already.
    pub fn inside(&self, words: &[String]) -> Vec<String> {
        if self.foreign.is_some() {
            return words.to_vec();
        }
        let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
        self.inside_args(&quoted.collect::<Vec<_>>().join(" "))
    }

    /// Program and arguments of a container that runs a command line, with what the image does before its processes start.
    pub fn line_args(&self, line: &str) -> Vec<String> {
        match &self.foreign {
            None => first(FIRST, ["/cnb/lifecycle/launcher", line].map(str::to_owned)),
            Some(foreign) => first(FOREIGN_FIRST, foreign.line(line)),
        }
    }
}

impl Foreign {
    /// The words that run a command line in the image.
    pub fn line(&self, line: &str) -> Vec<String> {
        if self.shell.is_empty() {
            return line.split_whitespace().map(str::to_owned).collect();
        }
        self.shell.iter().cloned().chain([line.to_owned()]).collect()
    }
}

fn first(program: &str, args: impl IntoIterator<Item = String>) -> Vec<String> {
    [program, "-g", "--"].into_iter().map(str::to_owned).chain(args).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(shell: Option<&[&str]>) -> Image {
        let digest = Digest::from_sha256([0; 32]);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let process_type = "web".parse().expect("a process type");
        Image {
            digest: digest.clone(),
            layers: Vec::new(),
            config: ImageConfig::default(),
            processes: vec![Process { process_type, command: words(&["serve"]), args: words(&["a b"]) }],
            foreign: shell.map(|shell| Foreign { name: "x".to_owned(), manifest: digest, shell: words(shell) }),
        }
    }

    #[test]
    fn an_image_of_ours_starts_by_the_launcher_and_a_foreign_one_as_it_says() {
        let ours = image(None);
        assert_eq!(ours.process_args("web"), ["/usr/bin/tini", "-g", "--", "/cnb/process/web"]);
        let words = ["pg_isready", "it's ready"].map(str::to_owned);
        assert_eq!(ours.inside(&words), ["/cnb/lifecycle/launcher", r"'pg_isready' 'it'\''s ready'"]);
        assert_eq!(ours.line_args("ls | wc"), ["/usr/bin/tini", "-g", "--", "/cnb/lifecycle/launcher", "ls | wc"]);
        let foreign = image(Some(&["/bin/sh", "-c"]));
        assert_eq!(foreign.process_args("web"), [FOREIGN_FIRST, "-g", "--", "serve", "a b"]);
        assert_eq!(foreign.line_args("ls | wc"), [FOREIGN_FIRST, "-g", "--", "/bin/sh", "-c", "ls | wc"]);
        assert_eq!(image(Some(&[])).line_args("ls  -l"), [FOREIGN_FIRST, "-g", "--", "ls", "-l"], "it has no shell");
    }
}
