//! Page tokens: opaque to clients, the id of a page's last row to us.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use managed_agents_api::Page;
use managed_agents_api::serve::{ApiError, PageParams};

use crate::store::{Listed, Listing};

/// What the store is asked for, if the page token is one of a listing of `T`s.
pub(crate) fn listing<T: std::str::FromStr + ToString>(
    params: PageParams,
) -> Result<Listing, ApiError> {
    let mut listing = Listing::newest(params.limit);
    listing.include_archived = params.include_archived;
    listing.before = params
        .page
        .map(|token| last_id::<T>(&token).ok_or_else(|| ApiError::invalid(WRONG)))
        .transpose()?;
    Ok(listing)
}

/// The answer with `listed`, whose rows have the ids that `id_of` says.
pub(crate) fn page<R, I: ToString, T>(
    listed: Listed<R>,
    id_of: impl Fn(&R) -> I,
    show: impl FnMut(R) -> T,
) -> Page<T> {
    let last = listed.rows.last().filter(|_| listed.more).map(id_of);
    Page {
        next_page: last.map(|id| URL_SAFE_NO_PAD.encode(id.to_string())),
        data: listed.rows.into_iter().map(show).collect(),
    }
}

fn last_id<T: std::str::FromStr + ToString>(token: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let id: T = String::from_utf8(bytes).ok()?.parse().ok()?;
    Some(id.to_string())
}

const WRONG: &str = "page: give the next_page of the page before, or nothing";
