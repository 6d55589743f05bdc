//! Pages of a listing.

use serde::{Deserialize, Serialize};

use crate::query;

/// Entries of a page when the request does not say.
pub const LIMIT_DEFAULT: u32 = 20;

/// Most entries that a page of a listing may hold.
pub const LIMIT_MAX: u32 = 1000;

/// One page of a listing, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub data: Vec<T>,
    /// Opaque; repeat the request with `page=` this. `None` on the last page.
    pub next_page: Option<String>,
}

impl<T> Page<T> {
    /// The same page with each entry changed by `change`.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(change).collect(),
            next_page: self.next_page,
        }
    }
}

/// Query of a listing, as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageQuery {
    /// Whether archived entries are listed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_archived: Option<bool>,
    /// Entries of a page: 1 to [`LIMIT_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next_page` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

query::flat!(PageQuery {
    include_archived,
    limit,
    page,
});
