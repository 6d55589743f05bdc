//! Columns to types.

use std::error::Error;

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::failed;
use crate::store::StoreError;

type Cause = Box<dyn Error + Send + Sync>;

pub(super) fn required<T>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError>
where
    T: TryFrom<String, Error: Into<Cause>>,
{
    let text: String = row.try_get(column).map_err(failed)?;
    T::try_from(text).map_err(|error| corrupt(column, error))
}

pub(super) fn optional<T>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, StoreError>
where
    T: TryFrom<String, Error: Into<Cause>>,
{
    let text: Option<String> = row.try_get(column).map_err(failed)?;
    text.map(|text| T::try_from(text).map_err(|error| corrupt(column, error)))
        .transpose()
}

/// A column of JSON text that this crate wrote.
pub(super) fn json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| corrupt(column, error))
}

/// JSON text of something that has one.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| corrupt("json", error))
}

/// A column with the name of one of `all`.
pub(super) fn named<T: Copy>(
    row: &SqliteRow,
    column: &'static str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column).map_err(failed)?;
    all.iter()
        .copied()
        .find(|value| name(*value) == text)
        .ok_or_else(|| corrupt(column, text))
}

pub(super) fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    instant(column, row.try_get(column).map_err(failed)?)
}

pub(super) fn optional_time(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<Timestamp>, StoreError> {
    let ms: Option<i64> = row.try_get(column).map_err(failed)?;
    ms.map(|ms| instant(column, ms)).transpose()
}

pub(super) fn number(row: &SqliteRow, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column).map_err(failed)?;
    u64::try_from(value).map_err(|error| corrupt(column, error))
}

/// A number as a column holds it.
pub(super) fn signed(column: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|error| corrupt(column, error))
}

pub(super) fn corrupt(column: &'static str, source: impl Into<Cause>) -> StoreError {
    StoreError::Corrupt {
        column,
        source: source.into(),
    }
}

fn instant(column: &'static str, ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(|error| corrupt(column, error))
}
