//! A new key for everything that is sealed.
//!
//! The new key lies beside the old one while values move from one to the other, a few hundred in a transaction. What is killed
//! in between goes on where it was: a sealed value says which key it needs. The old key goes when nothing needs it.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError};

/// Where sealed values are: table and column. A value is bound to `<table>/<id>/<column>`.
const SEALED: &[(&str, &str)] = &[
    ("addons", "credentials"),
    ("acme_accounts", "credentials"),
    ("credentials", "secret"),
    ("kept_requests", "answer"),
    ("log_drains", "url"),
    ("releases", "config"),
    ("repositories", "secret"),
    ("repositories", "url"),
    ("sni_endpoints", "private_key"),
    ("users", "totp_secret"),
    ("webhooks", "authorization_header"),
    ("webhooks", "secret"),
];

/// Values that move in one transaction.
const BATCH: i64 = 500;

/// How far a rotation is.
#[derive(Debug, Default)]
pub(super) struct Position {
    column: usize,
    /// The last id of that table that was looked at.
    id: String,
}

impl Store {
    /// Whether a rotation of the key was begun and is not over.
    pub fn is_rotating(&self) -> bool {
        self.secrets.is_rotating()
    }

    /// Seals everything under a new key and forgets the old one; how many values that were. One that was begun before goes on.
    pub async fn rotate_secrets(&self) -> Result<u64, StoreError> {
        self.secrets.begin_rotation()?;
        let mut moved = 0;
        loop {
            let mut position = Position::default();
            while let Some(count) = self.reseal_some(&mut position).await? {
                moved += count;
            }
            if self.is_resealed().await? {
                self.secrets.end_rotation()?;
                return Ok(moved);
            }
        }
    }

    /// Seals the next few values under the new key; none if there are no more.
    pub(super) async fn reseal_some(&self, position: &mut Position) -> Result<Option<u64>, StoreError> {
        let Some((table, column)) = SEALED.get(position.column) else { return Ok(None) };
        let sql = format!(
            "SELECT id, {column} AS sealed FROM {table} \
             WHERE id > $1 AND {column} IS NOT NULL AND {column} NOT LIKE $2 ORDER BY id LIMIT {BATCH}"
        );
        let rows = sqlx::query(&sql).bind(&position.id).bind(self.under_new_key()).fetch_all(&self.pool).await?;
        let Some(end) = rows.last() else {
            *position = Position { column: position.column + 1, id: String::new() };
            return Ok(Some(0));
        };
        position.id = end.try_get("id")?;
        let anew = rows.iter().map(|row| self.reseal(row, (table, column))).collect::<Result<Vec<_>, _>>()?;
        // A value that was changed meanwhile is under the new key already.
        let sql = format!("UPDATE {table} SET {column} = $1 WHERE id = $2 AND {column} = $3");
        let mut moved = 0;
        let mut tx = self.pool.begin().await?;
        for (id, before, after) in anew {
            moved += sqlx::query(&sql).bind(after).bind(id).bind(before).execute(&mut *tx).await?.rows_affected();
        }
        tx.commit().await?;
        Ok(Some(moved))
    }

    fn reseal(&self, row: &AnyRow, (table, column): (&str, &str)) -> Result<(String, String, String), StoreError> {
        let (id, before): (String, String) = (row.try_get("id")?, row.try_get("sealed")?);
        let bound_to = format!("{table}/{id}/{column}");
        let after = self.secrets.seal(&bound_to, &self.secrets.unseal(&bound_to, &before)?)?;
        Ok((id, before, after))
    }

    /// Whether nothing needs the old key any more, not even what a transaction has yet to commit.
    async fn is_resealed(&self) -> Result<bool, StoreError> {
        let mut tx = self.pool.begin().await?;
        // Whoever seals something holds one of these rows from before. When these locks are had, it is committed.
        sqlx::query("UPDATE counters SET value = value").execute(&mut *tx).await?;
        sqlx::query("UPDATE apps SET last_version = last_version").execute(&mut *tx).await?;
        let mut left = 0;
        for (table, column) in SEALED {
            let sql = format!("SELECT count(*) FROM {table} WHERE {column} NOT LIKE $1");
            left += sqlx::query_scalar::<_, i64>(&sql).bind(self.under_new_key()).fetch_one(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(left == 0)
    }

    /// The pattern of what is sealed under the newest key.
    fn under_new_key(&self) -> String {
        format!("{}:%", self.secrets.key_id())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// `<table>` and `<column>` of every `format!("<table>/{…}/<column>")`.
    fn bound_to(source: &str) -> BTreeSet<(String, String)> {
        let names = source.split("format!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let column = |name: &str| match name.split('/').collect::<Vec<_>>().as_slice() {
            [table, id, column] if id.starts_with('{') => Some(((*table).to_owned(), (*column).to_owned())),
            _ => None,
        };
        names.filter_map(column).collect()
    }

    #[test]
    fn every_sealed_column_moves_to_a_new_key() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
        let mut found = BTreeSet::new();
        for entry in folder.read_dir().expect("a folder") {
            let path = entry.expect("readable").path();
            let source = std::fs::read_to_string(&path).unwrap_or_default();
            if !source.contains("self.secrets.seal(") || path.ends_with("rotation.rs") {
                continue;
            }
            let columns = bound_to(&source);
            assert!(!columns.is_empty(), "{}: what is sealed is bound to <table>/<id>/<column>", path.display());
            found.extend(columns);
        }
        let known = SEALED.iter().map(|(table, column)| ((*table).to_owned(), (*column).to_owned()));
        assert_eq!(found, known.collect(), "SEALED lists every sealed column");
    }
}
