use model::{AppId, TeamId, TeamName};
use sqlx::any::AnyRow;

use super::{TeamRef, row};

/// Which apps something is for: of a row with `app_id`, `team_id` and `team_name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppScope {
    /// One.
    App(AppId),
    /// Those that a team owns.
    Team(TeamRef),
    /// All.
    Platform,
}

impl AppScope {
    pub(super) fn of_row(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let team: Option<TeamId> = row::optional_text(row, "team_id")?;
        let name: Option<TeamName> = row::optional_text(row, "team_name")?;
        Ok(match (row::optional_text(row, "app_id")?, team.zip(name)) {
            (Some(app), _) => Self::App(app),
            (None, Some((id, name))) => Self::Team(TeamRef { id, name }),
            (None, None) => Self::Platform,
        })
    }

    /// In one word.
    pub(super) fn word(&self) -> String {
        match self {
            Self::App(app) => format!("app:{app}"),
            Self::Team(team) => format!("team:{}", team.id),
            Self::Platform => "platform".to_owned(),
        }
    }

    pub(super) fn app(&self) -> Option<AppId> {
        match self {
            Self::App(app) => Some(*app),
            Self::Team(_) | Self::Platform => None,
        }
    }

    pub(super) fn team(&self) -> Option<TeamId> {
        match self {
            Self::Team(team) => Some(team.id),
            Self::App(_) | Self::Platform => None,
        }
    }

    /// For events.
    pub(super) fn team_name(&self) -> Option<&TeamName> {
        match self {
            Self::Team(team) => Some(&team.name),
            Self::App(_) | Self::Platform => None,
        }
    }

    /// The condition for rows of exactly this scope, and what its `$1` is.
    pub(super) fn condition(&self, table: &str) -> (String, Option<String>) {
        match self {
            Self::App(app) => (format!("{table}.app_id = $1"), Some(app.to_string())),
            Self::Team(team) => (format!("{table}.team_id = $1"), Some(team.id.to_string())),
            // `$1` is null here, and has to be somewhere.
            Self::Platform => (format!("COALESCE({table}.app_id, {table}.team_id, $1) IS NULL"), None),
        }
    }
}
