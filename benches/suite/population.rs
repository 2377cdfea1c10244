//! Keys as fleets have them, made up by number.

use std::time::Duration;

use jiff::Timestamp;
use keystead::{
    cache::Memory,
    key::{CompactKey, Digest, KeyId, KeyRecord, KeyRing, Prefix, Revision, Rights, Secret, State},
    store::Answer,
};
use tokio::time::Instant;

use crate::{Result, typical};

/// The change that stored all of them.
pub(crate) const REVISION: Revision = Revision(1_000);

/// What records hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A principal of whom three keys are; a name, three scopes and two pieces of
    /// metadata that many keys share; an end.
    Typical,
    /// The same, but what the two pieces of metadata say is said of no other key.
    OwnMetadata,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Typical, Self::OwnMetadata];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Typical => "typical",
            Self::OwnMetadata => "own metadata",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What the owner of key `number` decided.
pub(crate) fn rights(kind: Kind, number: u64, now: Timestamp) -> Rights {
    let typical = typical::rights();
    let metadata = match kind {
        Kind::Typical => typical.metadata,
        Kind::OwnMetadata => {
            let own = [
                ("contact", format!("key-{number}@example.com")),
                ("order", format!("{number:016x}")),
            ];
            own.map(|(name, value)| (name.to_owned(), value)).into()
        }
    };
    Rights {
        principal: format!("customer-{}", number / 3),
        metadata,
        expires_at: Some(now + Duration::from_hours(24 * 90) + Duration::from_secs(number)),
        ..typical
    }
}

/// The record of key `number`.
pub(crate) fn record(kind: Kind, number: u64, now: Timestamp) -> Result<KeyRecord> {
    Ok(KeyRecord {
        id: KeyId::generate()?,
        hint: format!("ks_live_…{:04x}", number % 0x1_0000),
        secret: None,
        rights: rights(kind, number, now),
        state: State::Active,
        created_at: now,
        last_used_at: Some(now),
        predecessor: None,
        successor: None,
        revision: REVISION,
    })
}

/// Puts a record into a memory, as the store answered it when it was asked then.
pub(crate) fn take(
    memory: &Memory,
    digest: Digest,
    record: &KeyRecord,
    asked_at: Instant,
) -> Result<()> {
    memory.take(digest, &Answer::Found(CompactKey::from(record)), asked_at)?;
    Ok(())
}

/// Under what key `number` is looked up, when nobody has to present it.
pub(crate) fn digest(number: u64) -> Digest {
    Digest::sha256_of(&number.to_le_bytes())
}

/// A secret as its file holds it, and the ring of it alone.
pub(crate) fn secret() -> Result<(String, KeyRing)> {
    let text = Secret::generate()?;
    let ring = KeyRing::parse(&text, Prefix::default(), true)?;
    Ok((text.to_string(), ring))
}
