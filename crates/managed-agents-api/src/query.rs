//! Queries: what follows the `?` of a request, written by clients and read by servers.

use jiff::Timestamp;

/// The query of a route as a value.
///
/// Names that a reader does not know (`beta`) are ignored; of a name said twice the
/// last value counts, except in bracketed lists (`statuses[]=a&statuses[]=b`).
pub trait Query: Sized {
    /// As name and value, not yet percent-encoded.
    fn to_pairs(&self) -> Vec<(&'static str, String)>;

    /// From names and values that were percent-decoded already.
    ///
    /// # Errors
    /// A value is not of the kind that its name asks for.
    fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, QueryError>;
}

/// A value of a query that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {expected}")]
#[non_exhaustive]
pub struct QueryError {
    /// The name in the query.
    pub name: String,
    /// What its value must be.
    pub expected: &'static str,
}

impl QueryError {
    /// `name` must be `expected`.
    pub fn new(name: impl Into<String>, expected: &'static str) -> Self {
        Self {
            name: name.into(),
            expected,
        }
    }
}

/// No query at all.
impl Query for () {
    fn to_pairs(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn from_pairs<'a>(_: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, QueryError> {
        Ok(())
    }
}

/// How one kind of value is written and read.
pub(crate) trait Value: Sized {
    fn write(&self) -> String;
    fn read(text: &str) -> Result<Self, &'static str>;
}

impl Value for String {
    fn write(&self) -> String {
        self.clone()
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        Ok(text.to_owned())
    }
}

macro_rules! parsed {
    ($($kind:ty: $expected:literal,)+) => {
        $(impl Value for $kind {
            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: &str) -> Result<Self, &'static str> {
                text.parse().map_err(|_| $expected)
            }
        })+
    };
}

parsed! {
    bool: "true or false",
    u32: "a number",
    u64: "a number",
    Timestamp: "a time as in 2026-11-24T07:00:00Z",
}

/// Reads `text` into `place`.
pub(crate) fn set<T: Value>(
    place: &mut Option<T>,
    name: &str,
    text: &str,
) -> Result<(), QueryError> {
    *place = Some(T::read(text).map_err(|expected| QueryError::new(name, expected))?);
    Ok(())
}

/// Adds `value`, where there is one.
pub(crate) fn put<T: Value>(
    pairs: &mut Vec<(&'static str, String)>,
    name: &'static str,
    value: Option<&T>,
) {
    pairs.extend(value.map(|value| (name, value.write())));
}

/// `Query` for a structure of optional values whose names are those of its fields,
/// with lists (`name[]`) and ranges of time (`name[gte]`) after them.
macro_rules! flat {
    (
        $kind:ty { $($field:ident,)* }
        $(lists { $($list:ident as $list_name:literal,)* })?
        $(ranges { $($range:ident as ($gt:literal, $gte:literal, $lt:literal, $lte:literal),)* })?
    ) => {
        impl $crate::query::Query for $kind {
            fn to_pairs(&self) -> Vec<(&'static str, String)> {
                let mut pairs = Vec::new();
                $($crate::query::put(&mut pairs, stringify!($field), self.$field.as_ref());)*
                $($(for one in &self.$list {
                    pairs.push(($list_name, one.as_str().to_owned()));
                })*)?
                $($(
                    $crate::query::put(&mut pairs, $gt, self.$range.gt.as_ref());
                    $crate::query::put(&mut pairs, $gte, self.$range.gte.as_ref());
                    $crate::query::put(&mut pairs, $lt, self.$range.lt.as_ref());
                    $crate::query::put(&mut pairs, $lte, self.$range.lte.as_ref());
                )*)?
                pairs
            }

            fn from_pairs<'a>(
                pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
            ) -> Result<Self, $crate::query::QueryError> {
                let mut query = Self::default();
                for (name, text) in pairs {
                    match name {
                        // Clients send `page=` for the first page.
                        "page" if text.is_empty() => {}
                        $(stringify!($field) => $crate::query::set(&mut query.$field, name, text)?,)*
                        $($($list_name => query.$list.push(text.into()),)*)?
                        $($(
                            $gt => $crate::query::set(&mut query.$range.gt, name, text)?,
                            $gte => $crate::query::set(&mut query.$range.gte, name, text)?,
                            $lt => $crate::query::set(&mut query.$range.lt, name, text)?,
                            $lte => $crate::query::set(&mut query.$range.lte, name, text)?,
                        )*)?
                        _ => {}
                    }
                }
                Ok(query)
            }
        }
    };
}

pub(crate) use flat;

/// A range of time; what is absent is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// Later than.
    pub gt: Option<Timestamp>,
    /// At, or later than.
    pub gte: Option<Timestamp>,
    /// Earlier than.
    pub lt: Option<Timestamp>,
    /// At, or earlier than.
    pub lte: Option<Timestamp>,
}

impl TimeRange {
    /// Whether `time` lies in it.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        self.gt.is_none_or(|bound| time > bound)
            && self.gte.is_none_or(|bound| time >= bound)
            && self.lt.is_none_or(|bound| time < bound)
            && self.lte.is_none_or(|bound| time <= bound)
    }
}

/// Direction of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "complete by definition")]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    Desc,
}

impl Value for Order {
    fn write(&self) -> String {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
        .to_owned()
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "asc" => Ok(Self::Asc),
            "desc" => Ok(Self::Desc),
            _ => Err("asc or desc"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventFilter, EventType, HeartbeatQuery, PageQuery, PollQuery, SessionFilter};

    #[track_caller]
    fn check<Q: Query + PartialEq + std::fmt::Debug>(query: &Q, expected: &[(&str, &str)]) {
        let pairs = query.to_pairs();
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(pairs, expected);
        let with_noise = pairs.into_iter().chain([("beta", "true")]);
        assert_eq!(&Q::from_pairs(with_noise).unwrap(), query);
    }

    #[test]
    fn every_query_survives() {
        check(&(), &[]);
        check(&PageQuery::default(), &[]);
        let page = PageQuery {
            include_archived: Some(true),
            limit: Some(7),
            page: Some("x".into()),
        };
        check(
            &page,
            &[("include_archived", "true"), ("limit", "7"), ("page", "x")],
        );
        let poll = PollQuery {
            block_ms: Some(999),
            reclaim_older_than_ms: Some(2000),
        };
        check(
            &poll,
            &[("block_ms", "999"), ("reclaim_older_than_ms", "2000")],
        );
        check(
            &HeartbeatQuery::first(),
            &[("expected_last_heartbeat", "NO_HEARTBEAT")],
        );
        let sessions = SessionFilter {
            agent_version: Some(3),
            statuses: vec!["idle".into(), "running".into()],
            created_at: TimeRange {
                gte: Some(Timestamp::UNIX_EPOCH),
                ..TimeRange::default()
            },
            order: Some(Order::Asc),
            ..SessionFilter::default()
        };
        check(
            &sessions,
            &[
                ("agent_version", "3"),
                ("order", "asc"),
                ("statuses[]", "idle"),
                ("statuses[]", "running"),
                ("created_at[gte]", "1970-01-01T00:00:00Z"),
            ],
        );
        let events = EventFilter {
            limit: Some(1000),
            types: vec![EventType::AgentToolUse],
            ..EventFilter::default()
        };
        check(&events, &[("limit", "1000"), ("types[]", "agent.tool_use")]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let wrong = SessionFilter::from_pairs([("created_at[gt]", "yesterday")]).unwrap_err();
        assert!(wrong.to_string().starts_with("created_at[gt]: a time"));
        assert!(PollQuery::from_pairs([("block_ms", "-1")]).is_err());
        assert!(EventFilter::from_pairs([("order", "up")]).is_err());
        assert_eq!(
            PageQuery::from_pairs([("page", "")]).unwrap(),
            PageQuery::default()
        );
    }

    #[test]
    fn a_range_has_four_bounds() {
        let second = |at| Timestamp::from_second(at).unwrap();
        let range = TimeRange {
            gt: Some(second(1)),
            gte: Some(second(1)),
            lt: Some(second(4)),
            lte: Some(second(3)),
        };
        let inside: Vec<_> = (0..6).filter(|at| range.contains(second(*at))).collect();
        assert_eq!(inside, [2, 3]);
    }
}
