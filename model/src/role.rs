//! What somebody may do with an app.

use std::fmt;
use std::str::FromStr;

use crate::NameError;

/// How much somebody may do with an app. Each role may do all that the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Look at it, its log included, but for the values of config vars.
    View,
    /// Change its code: push, build, roll back. Whoever decides what runs could read the config vars anyway.
    Deploy,
    /// Change how it runs: config vars, formation, domains, add-ons, maintenance; restart, and run commands in it.
    Operate,
    /// Decide who else may do what, and where its log and its events go.
    Manage,
    /// Rename it, give it away, remove it.
    Admin,
}

impl Role {
    /// From the least to the most.
    pub const ALL: [Self; 5] = [Self::View, Self::Deploy, Self::Operate, Self::Manage, Self::Admin];
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|role| role.to_string() == text);
        found.ok_or_else(|| NameError("A role is view, deploy, operate, manage or admin".to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::View => "view",
            Self::Deploy => "deploy",
            Self::Operate => "operate",
            Self::Manage => "manage",
            Self::Admin => "admin",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_more_than_the_last_and_is_read_as_it_is_written() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("owner".parse::<Role>().is_err());
    }
}
