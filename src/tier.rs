//! What every tier between a check and the store has in common.
//!
//! A tier answers from what it has or asks the next one. It does not know which
//! tier that is; `app` alone knows the order.

use tokio::time::Instant;

use crate::{
    key::{Credential, Digest},
    outage::Unavailable,
    store::Answer,
};

/// Something that knows about keys, or knows whom to ask.
pub trait Tier: Send + Sync + 'static {
    /// What may be said of a credential at `now` without asking anyone. Synchronous:
    /// does no I/O and waits for nothing. A tier that remembers nothing has nothing
    /// at hand.
    fn peek(&self, credential: Credential, now: Instant) -> Option<Observation> {
        let _ = (credential, now);
        None
    }

    /// Finds what is known about a credential, at hand or not.
    ///
    /// Ends at `deadline` at the latest, then with [`Unavailable`]. May be
    /// cancelled at any point; work that nobody waits for any more is dropped
    /// before it reaches the store.
    fn find(
        &self,
        credential: Credential,
        deadline: Instant,
    ) -> impl Future<Output = Result<Observation, Unavailable>> + Send;
}

/// A tier that can be asked behind a caller's back.
pub trait Refresh: Tier {
    /// Asks the store about a key that is known, and remembers the answer. Never
    /// waits. Fails when the question is not taken: the queue is full, or the
    /// store is not to be asked now.
    fn refresh(&self, digest: Digest) -> Result<(), Unavailable>;

    /// Whether waiting for the store is probably in vain. One atomic read.
    fn in_doubt(&self) -> bool;

    /// Why waiting for the store is probably in vain: its last call failed, or it
    /// is not to be asked now. `None` while it is well.
    fn doubt(&self) -> Option<Unavailable>;
}

/// An answer of the store, and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// What the store said.
    pub answer: Answer,
    /// When the store was asked, on the monotonic clock. The answer was true
    /// then or later.
    pub validated_at: Instant,
    /// In which part of its life it is served.
    pub freshness: Freshness,
}

/// In which part of its life an answer is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// The store vouched for it recently enough, or every change since has been
    /// brought here.
    Fresh,
    /// It is served while the store is asked again behind it.
    Revalidating,
    /// The store could not vouch for it again, and it is within the bound that
    /// the operator set for such an outage.
    StaleIfError,
}
