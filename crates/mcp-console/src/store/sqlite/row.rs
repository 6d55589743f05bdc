//! Columns to types.

use std::error::Error;
use std::str::FromStr;

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

pub(super) fn parsed<T>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, StoreError>
where
    T: FromStr<Err: Into<Cause>>,
{
    let text: Option<String> = row.try_get(column).map_err(failed)?;
    text.map(|text| text.parse().map_err(|error: T::Err| corrupt(column, error)))
        .transpose()
}

/// Words with spaces between, as [`join`] writes them.
pub(super) fn words<T, C>(row: &SqliteRow, column: &'static str) -> Result<Option<C>, StoreError>
where
    T: TryFrom<String, Error: Into<Cause>>,
    C: FromIterator<T>,
{
    let text: Option<String> = row.try_get(column).map_err(failed)?;
    text.map(|text| {
        text.split_ascii_whitespace()
            .map(|word| T::try_from(word.to_owned()).map_err(|error| corrupt(column, error)))
            .collect()
    })
    .transpose()
}

pub(super) fn join<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    words.join(" ")
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

pub(super) fn corrupt(column: &'static str, source: impl Into<Cause>) -> StoreError {
    StoreError::Corrupt {
        column,
        source: source.into(),
    }
}

fn instant(column: &'static str, ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(|error| corrupt(column, error))
}
