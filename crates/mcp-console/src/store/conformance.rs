//! The suite that every store passes.
//!
//! A store of your own runs it from a test:
//!
//! ```no_run
//! # use mcp_console::store::{SqliteConfig, SqliteStore};
//! # async fn test() {
//! mcp_console::store::conformance::check(async || {
//!     // a fresh, empty store each time
//!     # let file = "x";
//!     SqliteStore::open(&SqliteConfig::new(file)).await.unwrap()
//! })
//! .await;
//! # }
//! ```

mod gateways;
mod keys;
mod scene;
mod tunnels;

use super::TunnelStore;
use scene::Scene;

/// Runs every case, each on a store of its own that `open` makes.
///
/// # Panics
/// Where the store does not do what its traits say.
///
/// # Cancel safety
/// Dropping it ends the suite.
pub async fn check<S: TunnelStore>(mut open: impl AsyncFnMut() -> S) {
    macro_rules! cases {
        ($($case:path),* $(,)?) => {$({
            let store = open().await;
            $case(&mut Scene::new(&store)).await;
        })*};
    }
    cases!(
        tunnels::a_tunnel_is_found_and_listed_newest_first,
        tunnels::pages_hold_every_tunnel_once,
        tunnels::what_is_foreign_is_missing,
        tunnels::a_part_of_one_tunnel_is_no_part_of_another,
        tunnels::a_label_is_given_once,
        tunnels::a_workspace_has_its_most,
        tunnels::archiving_ends_everything_and_may_be_repeated,
        tunnels::what_is_archived_stays_as_it_is,
        tunnels::settings_change_what_is_given,
        tunnels::a_token_is_the_same_until_it_is_rotated,
        tunnels::certificates_have_their_most,
        tunnels::certificates_are_listed_and_archived,
        gateways::a_pending_gateway_is_approved_by_a_person,
        gateways::an_approval_may_name_the_key,
        gateways::a_key_is_approved_before_it_comes,
        gateways::a_refused_gateway_stays_out,
        gateways::an_automatic_tunnel_approves_and_says_so,
        gateways::pending_gateways_are_few,
        gateways::who_waits_is_not_pushed_out_by_who_comes_and_goes,
        gateways::approvals_stay_and_refusals_make_room,
        gateways::a_code_outlives_the_end_of_an_older_link,
        gateways::a_check_does_not_speak_for_the_gateway,
        gateways::the_audit_of_automatic_gateways_goes_with_them,
        gateways::pending_gateways_are_forgotten,
        gateways::reports_of_what_is_gone_leave_nothing,
        gateways::a_disconnection_names_a_number,
        keys::a_caller_key_keeps_its_scope,
        keys::a_caller_key_reaches_no_foreign_tunnel,
        keys::a_workspace_has_its_most_caller_keys,
        keys::a_revoked_caller_key_is_gone_from_access,
        keys::an_api_key_is_found_by_its_hash,
        keys::changes_are_announced_when_they_are_there,
        keys::the_audit_has_who_when_where_and_why,
        keys::old_audit_is_forgotten,
        keys::numbers_of_snapshots_only_grow,
    );
}
