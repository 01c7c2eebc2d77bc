//! Names that people type. Each parses itself; a value of these types is valid by construction.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused: one sentence that says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub String);

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $check:expr, $rule:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(NameError($rule.to_owned())) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of an add-on: `postgres-quiet-harbor-41730`.
    AddonName, is_addon_name,
        "Add-on names start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes, 3 to 63 characters";
    /// The name under which an app uses an add-on; begins the names of its config vars: `DATABASE` makes `DATABASE_URL`.
    AttachmentName, is_attachment_name,
        "Attachment names start with a letter and can only contain uppercase letters, digits, and underscores, at most 63 characters";
    /// The name of an app; also the first label of its default host name.
    AppName, is_app_name,
        "Name must start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes, 3 to 30 characters";
    /// `web`, `worker`, `release`, …
    ProcessType, is_process_type,
        "Process type must be 1 to 63 lowercase letters, digits and dashes, beginning and ending with a letter or digit";
    /// The name of a config var, as a process sees it in its environment (the API schema says `^\w+$`; POSIX adds: no digit first).
    ConfigVarName, is_config_var_name,
        "Config var names are letters, digits and underscores, do not begin with a digit, and have at most 255 characters";
    /// A user's e-mail address.
    Email, is_email, "E-mail must look like name@host and have at most 254 characters";
    /// The name of a pipeline.
    PipelineName, is_app_name,
        "Pipeline names start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes, 3 to 30 characters";
    /// The name of a team.
    TeamName, is_team_name,
        "Team names start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes, 3 to 30 characters; apps and invitations mean something else";
    /// The name of a volume, among those of its app.
    VolumeName, is_volume_name,
        "Volume names start with a letter, end with a letter or digit and can only contain lowercase letters, digits, and dashes, 1 to 40 characters";
    /// A DNS host name in lower case, without a trailing dot and without a port; the first label may be `*`.
    Hostname, is_hostname,
        "Host names are labels of letters, digits and dashes joined by dots, at most 253 characters; only the first label may be *";
    /// Where on a host an app begins: `/api` is that path and whatever is below it.
    PathPrefix, is_path_prefix,
        "Paths begin with a slash, are of letters, digits, dashes, dots, underscores and tildes between slashes, and have at most 200 characters; no part is . or ..";
}

/// Only what every server reads in the same way: nothing that is written differently once it is encoded, decoded or tidied.
fn is_path_prefix(text: &str) -> bool {
    let part = |part: &str| {
        !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    text.len() <= 200 && text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

fn is_app_name(text: &str) -> bool {
    text.len() <= 30 && is_addon_name(text)
}

/// Its name is part of paths of the API, beside these words.
fn is_team_name(text: &str) -> bool {
    is_app_name(text) && !["apps", "invitations"].contains(&text)
}

fn is_addon_name(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_volume_name(text: &str) -> bool {
    text.len() <= 40 && text.starts_with(|c: char| c.is_ascii_lowercase()) && is_process_type(text)
}

fn is_attachment_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_process_type(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_config_var_name(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_email(text: &str) -> bool {
    let Some((local, host)) = text.split_once('@') else { return false };
    text.len() <= 254
        && !local.is_empty()
        && local.bytes().all(|b| b.is_ascii_graphic() && !b"\"(),:;<>@[\\]".contains(&b))
        && is_hostname(&host.to_ascii_lowercase())
        && !host.starts_with('*')
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.strip_prefix("*.").unwrap_or(text).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_prefixes_are_what_every_server_reads_in_the_same_way() {
        for good in ["/api", "/api/v1.2", "/~ada/a_b-c"] {
            assert!(good.parse::<PathPrefix>().is_ok(), "{good}");
        }
        let long = format!("/{}", "a".repeat(200));
        for bad in ["", "/", "api", "/api/", "//api", "/a//b", "/.", "/a/../b", "/a%20b", "/a;b", "/a?b", "/ü", &long]
        {
            assert!(bad.parse::<PathPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn accepts_what_heroku_accepts_and_refuses_the_rest() {
        for good in ["abc", "my-app-1", "a23456789012345678901234567890"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "1app", "app-", "App", "a_b", "a23456789012345678901234567890x", "a.b.c", "löwe"] {
            assert!(bad.parse::<AppName>().is_err(), "{bad}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=B", "É"] {
            assert!(bad.parse::<ConfigVarName>().is_err(), "{bad}");
            assert!(bad.parse::<AttachmentName>().is_err(), "{bad}");
        }
        assert!("READ_REPLICA_2".parse::<AttachmentName>().is_ok());
        assert!("database".parse::<AttachmentName>().is_err());
        for good in ["localhost", "www.example.com", "*.example.com", "xn--lwe-sna.example"] {
            assert!(good.parse::<Hostname>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "-a.example", "www.example.com.", "a.*.example", "exa mple"] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad}");
        }
        assert!("admin@localhost".parse::<Email>().is_ok());
        assert!("<b>@localhost".parse::<Email>().is_err());
    }

    #[test]
    fn json_that_is_not_a_name_is_refused() {
        assert!(serde_json::from_str::<AppName>("\"../etc\"").is_err());
    }
}
