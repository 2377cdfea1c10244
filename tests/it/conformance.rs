//! What every engine must do: one suite, run against each of them.
//!
//! A new engine gives a [`Fixture`] and adds one line at the end of this file.

mod audit;
mod conduct;
mod feed;
mod lifecycle;
mod reading;
mod samples;
mod storing;

use jiff::Timestamp;
use keystead::{key::Digest, store::Store};
use serde_json::Value;

/// An engine with its own store, empty at the start.
pub(crate) trait Fixture: Sized {
    type Store: Store;

    async fn start() -> Self;

    fn store(&self) -> &Self::Store;

    /// The table of keys in plain SQL.
    fn api_keys(&self) -> &'static str;

    /// The table of numbered changes in plain SQL.
    fn key_changes(&self) -> &'static str;

    /// A digest in plain SQL.
    fn digest(&self, digest: &Digest) -> String;

    /// A list of networks in plain SQL.
    fn networks(&self, networks: &[&str]) -> String;

    /// A point in time in plain SQL.
    fn instant(&self, at: Timestamp) -> String;

    /// Runs plain SQL past the store. Panics when it fails.
    async fn sql(&self, statement: &str);

    /// The whole audit log, oldest entry first.
    async fn audit_log(&self) -> Vec<AuditEntry>;
}

/// A row of the audit log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AuditEntry {
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) origin: String,
    pub(crate) action: String,
    pub(crate) key_id: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// Makes a test of each case for an engine.
macro_rules! conforms {
    ($engine:ident: $fixture:ty) => {
        conforms! { $engine: $fixture,
            reading: [
                every_field_of_a_key_is_found_as_it_was_stored,
                networks_of_plain_sql_are_read_as_they_are_compared,
                one_lookup_returns_found_and_absent_keys,
                lookup_returns_only_requested_digests,
                a_lookup_of_no_digests_is_no_error,
                a_thousand_digests_are_found_in_one_lookup,
                an_id_that_is_not_stored_is_none,
                a_list_goes_on_page_by_page_in_the_order_of_ids,
                a_list_can_be_of_one_principal,
            ],
            storing: [
                storing_no_keys_changes_nothing,
                a_stored_digest_is_refused_by_position_and_nothing_is_stored,
                a_digest_twice_in_one_call_is_refused_by_position_and_nothing_is_stored,
                many_keys_are_stored_in_one_call,
                use_is_noted_and_only_goes_forward,
                use_of_an_unknown_id_is_passed_over,
            ],
            lifecycle: [
                every_action_ends_as_the_rules_say,
                a_refused_action_changes_nothing,
                an_action_on_an_unknown_id_changes_nothing,
                the_successor_of_a_rotated_key_has_its_rights,
                the_successor_of_a_rotated_key_may_expire_at_another_time,
                the_two_keys_of_a_rotation_name_each_other,
                a_key_that_has_a_successor_is_rotated_again_only_on_request,
                a_rotation_whose_successor_is_a_duplicate_changes_nothing,
                what_is_done_already_is_no_error_and_no_change,
            ],
            feed: [
                an_empty_store_has_no_changes,
                every_write_is_one_change_of_its_kind_in_order,
                a_rotation_is_an_update_and_a_creation,
                a_record_has_the_number_of_its_last_change,
                changes_go_on_page_by_page,
                use_is_no_change,
                plain_sql_is_seen_as_changes,
                a_plain_change_of_the_digest_is_a_deletion_and_a_creation,
                a_plain_update_that_changes_nothing_is_no_change,
                a_revision_that_somebody_wrote_is_put_right,
                the_head_stays_when_old_changes_are_deleted,
                numbers_are_not_given_out_again_after_a_deletion,
                numbers_of_changes_that_were_undone_are_no_gap,
                changes_that_were_deleted_unread_are_reported,
                a_canary_comes_back_numbered_and_changes_no_key,
                old_canaries_are_deleted_by_newer_ones_and_are_no_gap,
                a_follower_learns_of_every_change_whoever_makes_it,
                a_word_to_itself_comes_back_where_changes_are_announced,
            ],
            audit: [
                every_write_is_in_the_audit_log,
                both_keys_of_a_rotation_are_in_the_audit_log,
                a_refused_write_is_not_in_the_audit_log,
                the_audit_log_holds_no_digest,
            ],
            conduct: [
                concurrent_writers_lose_no_update,
                concurrent_writers_of_one_digest_store_it_once,
                changes_that_a_reader_follows_have_no_gap,
                a_cancelled_write_is_done_wholly_or_not_at_all,
                cancelled_readings_leave_the_store_usable,
            ],
        }
    };
    ($engine:ident: $fixture:ty, $($group:ident: [$($case:ident,)*],)*) => {
        mod $engine {
            use super::Fixture as _;
            $(mod $group {
                use super::*;
                $(
                    #[tokio::test]
                    async fn $case() {
                        crate::conformance::$group::$case(<$fixture>::start().await).await;
                    }
                )*
            })*
        }
    };
}

conforms!(sqlite: crate::sqlite::Embedded);
conforms!(postgres: crate::postgres::Server);
