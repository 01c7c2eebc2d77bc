//! How much of what its user may do a token lets do.

use std::fmt;
use std::str::FromStr;

use model::{AppId, NameError, Role};

use crate::Error;
use crate::store::App;

/// What a token is good for, in Heroku's words (Platform API, "OAuth", scopes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything, the account itself included.
    Global,
    /// To know who its user is.
    Identity,
    /// To look at apps, but for secrets.
    Read,
    /// To change apps too, but for config vars.
    Write,
    /// To look at apps, with config vars.
    ReadProtected,
    /// To change apps, with config vars.
    WriteProtected,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Global, Self::Identity, Self::Read, Self::Write, Self::ReadProtected, Self::WriteProtected];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Identity => "identity",
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadProtected => "read-protected",
            Self::WriteProtected => "write-protected",
        }
    }

    fn allows(self, deed: Deed) -> bool {
        match self {
            Self::Global => true,
            // Whoever has any token may know whose it is.
            _ if deed == Deed::Identify => true,
            Self::Identity => false,
            Self::Read => deed == Deed::Read,
            Self::Write => matches!(deed, Deed::Read | Deed::Write),
            Self::ReadProtected => matches!(deed, Deed::Read | Deed::ReadProtected),
            Self::WriteProtected => deed != Deed::Account,
        }
    }
}

impl FromStr for Scope {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            NameError("scope is a list of global, identity, read, write, read-protected and write-protected".to_owned())
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is about to be done, as far as scopes tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Say who the user is.
    Identify,
    /// Look at apps.
    Read,
    /// Look at config vars.
    ReadProtected,
    /// Change apps.
    Write,
    /// Change config vars.
    WriteProtected,
    /// Anything with the account, its teams, other people, or the platform.
    Account,
}

/// What lets somebody in is good for this much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Any of these.
    pub scopes: Vec<Scope>,
    /// This app only, and no more of it than this role: a deploy token.
    pub limit: Option<(AppId, Role)>,
}

impl Default for Grant {
    /// Everything, as a password gives it.
    fn default() -> Self {
        Self { scopes: vec![Scope::Global], limit: None }
    }
}

impl Grant {
    /// Refuses what it is not good for.
    pub fn check(&self, deed: Deed) -> Result<(), Error> {
        if !self.scopes.iter().any(|scope| scope.allows(deed)) {
            let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
            return Err(Error::Forbidden(format!(
                "The scope of this token, {}, does not allow this. Use another, or make one: `platform authorizations:create`.",
                scopes.join(", ")
            )));
        }
        match (self.limit, deed) {
            (Some(_), Deed::Account) => {
                Err(Error::Forbidden("This token is good for one app only, and not for this.".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// What is left of a role on an app; none if the app is none of the token's business.
    pub fn cap(&self, app: &App, role: Role) -> Option<Role> {
        match self.limit {
            None => Some(role),
            Some((only, most)) => (only == app.id).then_some(role.min(most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_allows_what_heroku_says() {
        use Deed::{Account, Identify, Read, ReadProtected, Write, WriteProtected};
        for (scope, deeds) in [
            ("global", &[Identify, Read, ReadProtected, Write, WriteProtected, Account][..]),
            ("identity", &[Identify]),
            ("read", &[Identify, Read]),
            ("write", &[Identify, Read, Write]),
            ("read-protected", &[Identify, Read, ReadProtected]),
            ("write-protected", &[Identify, Read, ReadProtected, Write, WriteProtected]),
        ] {
            let grant = Grant { scopes: vec![scope.parse().expect("a scope")], limit: None };
            assert_eq!(grant.scopes[0].to_string(), scope);
            for deed in [Identify, Read, ReadProtected, Write, WriteProtected, Account] {
                assert_eq!(grant.check(deed).is_ok(), deeds.contains(&deed), "{scope} {deed:?}");
            }
        }
        let two = Grant { scopes: vec![Scope::Identity, Scope::Write], limit: None };
        assert!(two.check(Write).is_ok() && two.check(WriteProtected).is_err());
        assert!("root".parse::<Scope>().is_err());
    }
}
