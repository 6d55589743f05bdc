//! Page tokens: opaque to clients, the id of a page's last row to us.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use managed_agents_api::serve::{ApiError, PageParams};
use managed_agents_api::{AuditEntry, Page};
use mcp_tunnel_auth::encode_id;

use crate::hooks::AUDIT_PREFIX;
use crate::records::{AuditRecord, Listed, Listing};

/// What a store is asked for.
///
/// # Errors
/// 400 where the page token is none of a listing of `T`s.
pub fn listing<T: FromStr + ToString>(params: PageParams) -> Result<Listing, ApiError> {
    let mut listing = Listing::newest(params.limit);
    listing.include_archived = params.include_archived;
    listing.before = params
        .page
        .map(|token| last_id::<T>(&token).ok_or_else(|| ApiError::invalid(WRONG)))
        .transpose()?;
    Ok(listing)
}

/// The answer with `listed`, whose rows have the ids that `id_of` says.
pub fn page<R, I: ToString, T>(
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

/// What a store is asked for by a page of the audit.
///
/// # Errors
/// 400 where the page token is none of the audit.
pub fn audit_listing(params: PageParams) -> Result<Listing, ApiError> {
    listing::<AuditId>(params)
}

/// The answer with a page of the audit.
pub fn audit_page(listed: Listed<AuditRecord>) -> Page<AuditEntry> {
    let id_of = |record: &AuditRecord| record.change.audit_id.clone();
    page(listed, id_of, shown)
}

fn shown(record: AuditRecord) -> AuditEntry {
    let AuditRecord {
        change,
        action,
        object,
    } = record;
    AuditEntry {
        id: change.audit_id,
        created_at: change.at,
        actor: change.actor,
        address: change.address.map(|address| address.to_string()),
        action,
        object_id: object,
        reason: change.reason,
    }
}

fn last_id<T: FromStr + ToString>(token: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let id: T = String::from_utf8(bytes).ok()?.parse().ok()?;
    Some(id.to_string())
}

/// The id of a row, in a page token: any row's, since it only says where to go on.
struct AuditId(String);

impl FromStr for AuditId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let form = encode_id(AUDIT_PREFIX, 0, &[0; 10]);
        let is_id = text.starts_with(AUDIT_PREFIX) && text.len() == form.len() && text.is_ascii();
        is_id.then(|| Self(text.to_owned())).ok_or(())
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const WRONG: &str = "page: give the next_page of the page before, or nothing";
