//! What can be said of a volume: where dynos see it, and how much it holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::NameError;

/// Most characters of a path.
const LONGEST_PATH: usize = 200;

/// Folders that are there for something else; a volume may be in one of them, but not in its place.
const SYSTEM: &[&str] = &[
    "/app", "/bin", "/boot", "/cnb", "/etc", "/home", "/layers", "/lib", "/lib64", "/media", "/mnt", "/opt", "/root",
    "/run", "/sbin", "/srv", "/tmp", "/usr", "/var",
];
/// Folders that the kernel has.
const KERNEL: &[&str] = &["/dev", "/proc", "/sys"];

/// Where dynos see a volume: an absolute path that leads to nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountPath(String);

impl MountPath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether one of both is in the other, or they are the same.
    pub fn overlaps(&self, other: &Self) -> bool {
        is_below(&self.0, &other.0) || is_below(&other.0, &self.0)
    }
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl FromStr for MountPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let names = text.strip_prefix('/').unwrap_or_default();
        let is_plain = |name: &str| !["", ".", ".."].contains(&name) && !name.contains(|c: char| c.is_control());
        if text.len() > LONGEST_PATH || !names.split('/').all(is_plain) {
            return Err(NameError(format!(
                "A volume's path is absolute, as /data is, without `.`, `..`, double or final slashes, and has at most {LONGEST_PATH} \
                 characters"
            )));
        }
        if SYSTEM.contains(&text) || KERNEL.iter().any(|folder| is_below(text, folder)) {
            return Err(NameError(format!("{text} is there for something else: choose another path, such as /data")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for MountPath {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<MountPath> for String {
    fn from(path: MountPath) -> Self {
        path.0
    }
}

impl fmt::Display for MountPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many bytes a volume holds: whole MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeSize(u64);

impl VolumeSize {
    /// What a volume has whose size nobody says: 1 GiB.
    pub const USUAL: Self = Self(1 << 30);
    const SMALLEST: u64 = 16 << 20;
    const LARGEST: u64 = 16 << 40;

    /// A size in bytes, rounded up to whole MiB.
    pub fn of(bytes: u64) -> Result<Self, NameError> {
        if !(Self::SMALLEST..=Self::LARGEST).contains(&bytes) {
            return Err(NameError("A volume holds 16MiB to 16TiB".to_owned()));
        }
        Ok(Self(bytes.div_ceil(1 << 20) << 20))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for VolumeSize {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text.strip_prefix(digits).unwrap_or_default() {
            "MiB" => Some(20),
            "GiB" => Some(30),
            "TiB" => Some(40),
            _ => None,
        };
        let bytes = digits.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
        Self::of(bytes.ok_or_else(|| NameError(format!("{text:?} is not a size like 512MiB, 5GiB or 1TiB")))?)
    }
}

impl fmt::Display for VolumeSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 >> 20;
        match mebibytes {
            _ if mebibytes.is_multiple_of(1 << 20) => write!(f, "{}TiB", mebibytes >> 20),
            _ if mebibytes.is_multiple_of(1 << 10) => write!(f, "{}GiB", mebibytes >> 10),
            _ => write!(f, "{mebibytes}MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_nothing_that_is_there_already() {
        let parse = |text: &str| text.parse::<MountPath>();
        for good in ["/data", "/app/storage", "/var/lib/files", "/mnt/a b", "/developers"] {
            assert_eq!(parse(good).expect(good).as_str(), good);
        }
        for bad in
            ["", "/", "data", "/data/", "//data", "/a/../etc", "/./a", "/etc", "/app", "/proc/1", "/dev", "/a\nb"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let overlap = |one: &str, two: &str| parse(one).expect(one).overlaps(&parse(two).expect(two));
        assert!(overlap("/data", "/data") && overlap("/data/in", "/data") && overlap("/data", "/data/in"));
        assert!(!overlap("/data", "/database"));
    }

    #[test]
    fn sizes_are_said_as_they_are_read() {
        for (text, bytes) in [("16MiB", 16 << 20), ("1536MiB", 1536 << 20), ("5GiB", 5 << 30), ("2TiB", 2 << 40)] {
            let size: VolumeSize = text.parse().expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        assert_eq!(VolumeSize::of((20 << 20) + 1).expect("a size").to_string(), "21MiB");
        for bad in ["", "5", "5GB", "-1GiB", "1.5GiB", "1MiB", "17TiB", "99999999999999999999GiB", "99999999999TiB"] {
            assert!(bad.parse::<VolumeSize>().is_err(), "{bad:?}");
        }
    }
}
