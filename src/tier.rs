//! Interface of every tier between a check and the store.
//!
//! A tier answers from its own data or calls the next tier, whose type it does not
//! know: `app` alone defines the order.

use tokio::time::Instant;

use crate::{
    key::{Credential, Digest},
    outage::Unavailable,
    store::Answer,
};

/// Looks keys up, in its own data or in the next tier.
pub trait Tier: Send + Sync + 'static {
    /// Looks a credential up at `now` without I/O. Synchronous: never waits. A tier
    /// without a cache returns `None`.
    fn peek(&self, credential: Credential, now: Instant) -> Option<Observation> {
        let _ = (credential, now);
        None
    }

    /// Looks a credential up, with I/O if necessary.
    ///
    /// Ends at `deadline` at the latest, then with [`Unavailable`]. May be
    /// cancelled at any point; work without waiters is dropped before it reaches
    /// the store.
    fn find(
        &self,
        credential: Credential,
        deadline: Instant,
    ) -> impl Future<Output = Result<Observation, Unavailable>> + Send;
}

/// A tier that supports background refresh.
pub trait Refresh: Tier {
    /// Queues a lookup of a known key, whose answer updates the cache. Never waits.
    /// Fails if the lookup is not accepted: the queue is full, or the store must not
    /// be called now.
    fn refresh(&self, digest: Digest) -> Result<(), Unavailable>;

    /// Whether a store call would probably fail. One atomic read.
    fn in_doubt(&self) -> bool;

    /// Why a store call would probably fail: the last call failed, or the store must
    /// not be called now. `None` while the store is healthy.
    fn doubt(&self) -> Option<Unavailable>;
}

/// An answer of the store, and its age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Answer of the store.
    pub answer: Answer,
    /// When the store was called, on the monotonic clock. The answer was true
    /// then or later.
    pub validated_at: Instant,
    /// Freshness of the answer when it is served.
    pub freshness: Freshness,
}

/// Freshness of an answer when it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// The store confirmed it recently enough, or the feed has applied every change
    /// since.
    Fresh,
    /// Stale-while-revalidate: it is served during a background refresh.
    Revalidating,
    /// Stale-if-error: the store could not confirm it, and it is within the
    /// operator's bound for outages.
    StaleIfError,
}
