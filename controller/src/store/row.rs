//! Reading typed values out of `TEXT` and `BIGINT` columns.

use std::error::Error;
use std::str::FromStr;

use model::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::any::AnyRow;

/// A text column that parses itself: ids, names, states.
pub(super) fn text<T>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    parse(column, row.try_get(column)?)
}

/// The same for a column that may be null.
pub(super) fn optional_text<T>(row: &AnyRow, column: &str) -> Result<Option<T>, sqlx::Error>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    row.try_get::<Option<&str>, _>(column)?.map(|value| parse(column, value)).transpose()
}

/// A moment.
pub(super) fn time(row: &AnyRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get::<i64, _>(column).map(Timestamp::from_millis)
}

/// A moment that may be null.
pub(super) fn optional_time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
}

/// A whole number of a smaller type than the column's.
pub(super) fn number<T>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error>
where
    T: TryFrom<i64, Error: Error + Send + Sync + 'static>,
{
    T::try_from(row.try_get::<i64, _>(column)?).map_err(|error| broken(column, error.into()))
}

/// A yes or no.
pub(super) fn flag(row: &AnyRow, column: &str) -> Result<bool, sqlx::Error> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

/// A JSON document.
pub(super) fn json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| broken(column, error.into()))
}

/// A JSON document that may be null.
pub(super) fn optional_json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<Option<T>, sqlx::Error> {
    let document: Option<&str> = row.try_get(column)?;
    document.map(serde_json::from_str).transpose().map_err(|error| broken(column, error.into()))
}

fn parse<T>(column: &str, value: &str) -> Result<T, sqlx::Error>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    value.parse().map_err(|error: T::Err| broken(column, error.into()))
}

fn broken(column: &str, source: Box<dyn Error + Send + Sync>) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source }
}
