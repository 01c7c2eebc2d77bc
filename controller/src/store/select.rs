use std::fmt;

/// What is read of a table's rows and of what belongs to them. Written out, it is a query that lacks its conditions.
pub(super) struct Select {
    /// `a.id, a.name, u.email`
    pub(super) columns: &'static str,
    /// The table and what its rows are called: `apps`, `a`.
    pub(super) from: (&'static str, &'static str),
    /// `JOIN users u ON u.id = a.user_id`
    pub(super) joins: &'static str,
}

impl Select {
    /// The same of some rows only. They are found (`WHERE … ORDER BY … LIMIT …`) before anything is joined to them, so that
    /// all others are not even looked at.
    pub(super) fn of_part(&self, part: &str) -> String {
        let Self { columns, from: (table, row), joins } = self;
        format!("SELECT {columns} FROM (SELECT {row}.* FROM {table} {row} {part}) AS {row} {joins}")
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { columns, from: (table, row), joins } = self;
        write!(f, "SELECT {columns} FROM {table} {row} {joins}")
    }
}
