//! What every tier between a check and the store has in common.
//!
//! A tier answers from what it has or asks the next one. It does not know which
//! tier that is; `app` alone knows the order.

use tokio::time::Instant;

use crate::{key::Digest, outage::Unavailable, store::Answer};

/// Something that knows about keys, or knows whom to ask.
pub trait Tier: Send + Sync + 'static {
    /// Finds what is known about a digest.
    ///
    /// Ends at `deadline` at the latest, then with [`Unavailable`]. May be
    /// cancelled at any point; work that nobody waits for any more is dropped
    /// before it reaches the store.
    fn find(
        &self,
        digest: Digest,
        deadline: Instant,
    ) -> impl Future<Output = Result<Sighting, Unavailable>> + Send;
}

/// An answer of the store, and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
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
    /// The store vouched for it recently enough.
    Fresh,
}
