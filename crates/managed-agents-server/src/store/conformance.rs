//! The suite that every store passes.
//!
//! A store of your own runs it from a test:
//!
//! ```no_run
//! # use managed_agents_server::store::{SqliteConfig, SqliteStore};
//! # async fn test() {
//! managed_agents_server::store::conformance::check(async || {
//!     // a fresh, empty store each time
//!     # let file = "x";
//!     SqliteStore::open(&SqliteConfig::new(file)).await.unwrap()
//! })
//! .await;
//! # }
//! ```

mod authority;
mod catalogue;
mod events;
mod library;
mod queue;
mod scene;
mod sessions;

use super::{LibraryStore, SessionStore};
use library::Shelf;
use scene::Scene;

/// Runs every case, each on a store of its own that `open` makes.
///
/// # Panics
/// Where the store does not do what its traits say.
///
/// # Cancel safety
/// Dropping it ends the suite.
pub async fn check<S: SessionStore>(mut open: impl AsyncFnMut() -> S) {
    macro_rules! cases {
        ($($case:path),* $(,)?) => {$({
            let store = open().await;
            $case(&mut Scene::new(&store).await).await;
        })*};
    }
    cases!(
        catalogue::environments_are_listed_newest_first,
        catalogue::an_environment_changes_until_it_is_archived,
        catalogue::a_deleted_environment_never_was,
        catalogue::keys_have_their_most_and_are_revoked_once,
        catalogue::an_agent_keeps_every_version,
        catalogue::agents_are_listed_and_archived,
        catalogue::the_audit_has_who_when_where_and_why,
        queue::an_item_goes_from_queued_to_stopped,
        queue::an_item_is_handed_out_again_when_nobody_acknowledges,
        queue::the_oldest_item_comes_first,
        queue::only_a_reserved_item_is_acknowledged,
        queue::a_heartbeat_names_the_one_before,
        queue::heartbeats_of_one_millisecond_differ,
        queue::a_lease_that_runs_out_queues_the_item_again,
        queue::a_graceful_stop_ends_by_itself,
        queue::an_item_that_ends_in_vain_is_followed_a_few_times,
        queue::an_operator_who_stops_is_obeyed_until_somebody_writes,
        queue::stats_count_what_waits,
        queue::metadata_is_merged,
        queue::calls_are_begun_once,
        queue::a_poll_that_finds_nothing_knows_when,
        queue::commits_wake_those_who_wait,
        authority::a_token_dies_with_its_claim,
        authority::a_used_token_shuts_the_key_out,
        authority::a_revoked_key_ends_what_was_claimed_with_it,
        authority::a_key_reaches_its_environment_only,
        authority::a_token_reaches_its_session_only,
        authority::the_holder_may_read_that_its_session_ended,
        authority::what_is_foreign_is_missing,
        sessions::a_session_is_found_and_listed,
        sessions::filters_are_combined,
        sessions::cloud_and_archived_environments_take_none,
        sessions::an_update_changes_what_is_given_and_says_so,
        sessions::an_archived_session_is_over,
        sessions::a_session_may_end_by_itself,
        sessions::a_deleted_session_leaves_one_event,
        sessions::time_in_turns_and_usage_are_kept,
        sessions::what_is_over_is_forgotten_in_the_end,
        sessions::what_is_due_is_found_until_it_rests,
        events::events_are_numbered_and_kept_as_they_came,
        events::who_decided_by_an_older_history_decides_again,
        events::a_queued_message_moves_to_where_it_is_taken_up,
        events::pages_hold_every_event_once,
        events::pages_are_cut_by_weight,
        events::a_call_has_one_result,
        events::an_item_is_queued_where_one_is_needed,
    );
}

/// Runs every case of a library, each on one of its own that `open` makes.
///
/// # Panics
/// Where the library does not do what its trait says.
///
/// # Cancel safety
/// Dropping it ends the suite.
pub async fn check_library<S: LibraryStore>(mut open: impl AsyncFnMut() -> S) {
    macro_rules! cases {
        ($($case:path),* $(,)?) => {$({
            let store = open().await;
            $case(&mut Shelf::new(&store)).await;
        })*};
    }
    cases!(
        library::a_skill_is_its_newest_version,
        library::a_version_keeps_its_skills_name,
        library::what_is_deleted_is_gone,
        library::a_foreign_skill_is_missing,
    );
}
