//! Inspects cached entries without side effects, to explain a decision.

use tokio::time::Instant;

use super::{Entry, Hit, Memory, Missing, Serve};
use crate::{
    cache::policy::{EntryState, Windows},
    key::{CompactKey, Digest},
    store::{Absence, Answer},
    suspect::Verdict,
    tier::{Freshness, Observation},
    time::ShortInstant,
};

/// The cached state of a key.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The cached entry, if any.
    pub held: Option<Remembered>,
    /// Whether an absence of the key would be doubted if the store reported it now.
    pub doubts_absence: bool,
}

/// A cached entry, whether or not it would be served.
#[derive(Debug, Clone)]
pub enum Remembered {
    /// A record.
    Record {
        /// The record.
        known: CompactKey,
        /// When the store vouched for it.
        validated_at: Instant,
        /// Its state.
        life: EntryState,
        /// When its states end if nothing changes.
        windows: Windows,
        /// Whether no change has been missed since the store vouched for it.
        vouched: bool,
        /// Since when the store reports its row missing, which is not believed yet.
        missing_since: Option<Instant>,
        /// Whether the data of the store are too old for anything to be fresh.
        lagging: bool,
    },
    /// An absence.
    Absence {
        /// The absence that the store reported.
        absence: Absence,
        /// When the store reported it.
        validated_at: Instant,
        /// Until when it is believed.
        until: Instant,
        /// Whether it is believed now.
        believed: bool,
    },
}

impl Remembered {
    /// The hit that a check would get; `None` if it would not be served. Ignores
    /// whether a refresh is due.
    #[must_use]
    pub fn served(&self) -> Option<Hit> {
        match self {
            Self::Record { known, validated_at, life, missing_since, lagging, .. } => {
                let (freshness, serve) = life.served(missing_since.is_some(), *lagging)?;
                let answer = Answer::Found(known.clone());
                let observation = Observation { answer, validated_at: *validated_at, freshness };
                Some(Hit { observation, serve })
            }
            Self::Absence { absence, validated_at, believed, .. } => believed.then(|| Hit {
                observation: Observation {
                    answer: Answer::Absent(*absence),
                    validated_at: *validated_at,
                    freshness: Freshness::Fresh,
                },
                serve: Serve::AtOnce,
            }),
        }
    }
}

impl Memory {
    /// Inspects a key at `now`. Finds the same as [`Memory::look`] without side effects:
    /// claims no refresh, does not affect eviction, and raises no suspicion. `ours`:
    /// whether the tag of the key was made with one of our secrets.
    #[must_use]
    pub fn inspect(&self, digest: &Digest, ours: bool, now: Instant) -> Inspection {
        let (entry, at) = (self.records.peek(digest), ShortInstant::from(now));
        let missed = entry.as_ref().filter(|entry| self.would_be_missed(digest, entry, at));
        let doubts_absence = match missed {
            None => !self.suspicion.believes_absence(digest, ours),
            Some(entry) => {
                let since = entry.missing_since(at).map_or(now, Instant::from);
                self.suspicion.foresee(since, now) == Verdict::Doubted
            }
        };
        let held = entry.map(|entry| self.record(digest, entry, at)).or_else(|| {
            let missing = self.absences.peek(digest)?;
            let believed = self.believes(digest, &missing, now);
            let Missing { absence, validated_at, until } = missing;
            Some(Remembered::Absence { absence, validated_at, until, believed })
        });
        Inspection { held, doubts_absence }
    }

    fn record(&self, digest: &Digest, entry: Entry, now: ShortInstant) -> Remembered {
        let good_until = self.coverage.good_until(entry.validated_at);
        let (windows, life) = self.ttl.windows(&self.validity(digest, &entry), good_until, now);
        Remembered::Record {
            validated_at: entry.validated_at.into(),
            life,
            windows,
            vouched: good_until.is_some_and(|good| now < good),
            missing_since: entry.missing_since(now).map(Instant::from),
            lagging: self.coverage.is_lagging(),
            known: entry.known,
        }
    }
}
