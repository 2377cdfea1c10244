//! The numbered changes of a store, read as a follower reads them.

use std::num::NonZeroU32;

use keystead::{
    key::Revision,
    store::{Change, ChangePage, Follower, Store},
};

/// A separate follower.
pub(crate) async fn follower<S: Store>(store: &S) -> S::Follower {
    store.follow().await.unwrap().expect("the store has changes")
}

pub(crate) async fn head(store: &impl Store) -> Revision {
    follower(store).await.head().await.unwrap()
}

/// A page of what follows a revision; panics when it has been deleted.
pub(crate) async fn page(
    follower: &mut impl Follower,
    after: Revision,
    limit: NonZeroU32,
) -> ChangePage {
    follower.changes(after, limit).await.unwrap().expect("they are there")
}

/// All changes after a revision.
pub(crate) async fn changes_after(store: &impl Store, after: Revision) -> Vec<Change> {
    page(&mut follower(store).await, after, NonZeroU32::MAX).await.changes
}
