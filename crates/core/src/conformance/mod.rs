//! The suite that every store runs: the definition of what a store must do.
//!
//! A store from any crate runs it with one macro line; each check becomes a test of its own. The crate needs
//! tokio with `rt-multi-thread` and `macros` as a dev-dependency.
//!
//! ```ignore
//! mainstay_core::conformance!(|| async { MyStoreFactory::new() });
//! ```
//!
//! The oracle is a [`ModelStore`]: maps and full scans, [`Filter::accepts`](crate::Filter::accepts) and
//! [`score`](crate::score), nothing clever. Random histories and filters come from a seed, so that a failure
//! repeats.

mod apply;
mod generate;
mod model;
mod read;
mod restore;
mod script;

use async_trait::async_trait;

use crate::store::VectorStore;

pub use apply::*;
pub use generate::Generator;
pub use model::ModelStore;
pub use read::*;
pub use restore::*;
pub use script::{Script, cx, name, state_of};

/// Makes fresh stores for the suite.
#[async_trait]
pub trait StoreFactory: Send + Sync {
    /// The store.
    type Store: VectorStore;

    /// A fresh, empty store.
    async fn create(&self) -> Self::Store;

    /// The same storage opened again after the store was closed; `None` for a volatile store.
    async fn reopen(&self, store: Self::Store) -> Option<Self::Store>;
}

/// Emits one test per check of the suite for a factory: an expression of a closure that answers a
/// future of a [`StoreFactory`](crate::conformance::StoreFactory).
#[macro_export]
macro_rules! conformance {
    ($factory:expr) => {
        $crate::conformance!(@tests $factory,
            runs_advance_the_position
            an_applied_prefix_is_skipped
            a_gap_or_another_history_is_refused_and_changes_nothing
            random_histories_in_random_runs_give_the_state_of_the_model
            runs_side_by_side_leave_the_state_of_the_model
            a_run_that_is_given_up_is_taken_again_with_those_beside_it
            replaying_any_suffix_changes_nothing
            entries_of_a_dropped_incarnation_are_passed_over
            points_are_kept_to_the_bit
            a_scroll_pages_by_id
            a_get_answers_in_order_with_the_selected_fields
            unknown_names_are_told_apart
            exact_searches_equal_the_model_under_every_distance
            equal_scores_are_ordered_by_id_and_paged_without_overlap
            a_search_of_many_points_finds_what_is_near
            sparse_vectors_are_searched_or_declined
            random_filters_accept_exactly_what_their_evaluation_does
            a_restore_loads_the_state_of_another_store
            a_restore_while_the_source_moves_on_is_made_exact_by_the_log
            a_restore_out_of_order_is_refused
            a_restore_that_was_cut_short_goes_on_from_what_was_saved
            what_was_taken_over_from_another_store_has_to_be_loaded
            a_reopened_store_holds_what_was_flushed
            a_store_reopened_without_a_flush_is_never_ahead_of_its_data
            reads_go_on_while_entries_are_applied
            a_closed_store_says_so
        );
    };
    (@tests $factory:expr, $($check:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $check() {
            let factory = ($factory)().await;
            $crate::conformance::$check(&factory).await;
        }
    )*};
}

/// How many random cases a check tries: `MAINSTAY_CONFORMANCE_CASES`, or this many.
pub(crate) fn cases(default: u64) -> u64 {
    std::env::var("MAINSTAY_CONFORMANCE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Models;

    #[async_trait]
    impl StoreFactory for Models {
        type Store = ModelStore;

        async fn create(&self) -> ModelStore {
            ModelStore::default()
        }

        async fn reopen(&self, _: ModelStore) -> Option<ModelStore> {
            None
        }
    }

    crate::conformance!(|| async { Models });
}
