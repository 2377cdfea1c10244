//! A key as it is held in memory: what decides about it and what is told of it,
//! in few bytes.

mod encoding;
mod profile;
pub(crate) mod varint;

use std::{
    fmt, str,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use jiff::Timestamp;
use triomphe::ThinArc;

pub(crate) use encoding::NotAKey;
pub use profile::{Networks, NotAProfile, Pairs, PreparedFor, Profile, Texts};

use crate::{
    key::{KeyId, KeyRecord, Revision, State},
    time::CoarseInstant,
};

/// A key as it is held in memory. Clones share it.
///
/// It has what a decision rests on and what is handed to callers; not its name,
/// hint, secret or when it was created. Times are exact to the microsecond, as
/// those in stores are.
///
/// What is its own is in one allocation: numbers, and behind them the times that
/// it has, its id and its principal. What it has in common with others is in its
/// [`Profile`].
#[derive(Clone)]
pub struct CompactKey(ThinArc<Own, u8>);

struct Own {
    profile: Profile,
    revision: Revision,
    marks: Marks,
    /// Seconds since the epoch, of which the upper bits are cut off; 0 is never.
    used_at: AtomicU32,
    shape: Shape,
}

/// What is behind the numbers, and the one number that is not larger.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    state: State,
    /// Whether there is a time before which it is not yet valid.
    starts: bool,
    /// Whether there is one from which on it is no longer valid.
    ends: bool,
    /// How many bytes its id has: 128 at most, as every [`KeyId`].
    id_len: u8,
}

/// What has come up since a record was taken into memory. Kept here, as a place of
/// its own would cost every key more than the marks themselves.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// When a hit last asked for a refresh.
    pub(crate) asked_at: CoarseInstant,
    /// Since when the store says that there is no such row, which is not believed
    /// yet.
    pub(crate) missing_since: CoarseInstant,
    /// When the store last said so.
    pub(crate) missed_at: CoarseInstant,
}

impl CompactKey {
    fn of(own: Own, behind: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(own, behind))
    }

    /// The same with another profile of the same content, which more keys share.
    pub(crate) fn with_profile(self, profile: Profile) -> Self {
        if self.profile().is(&profile) {
            return self;
        }
        let own = Own::new(profile, self.revision(), self.used_at(), self.own().shape);
        Self::of(own, &self.0.slice)
    }

    /// The same, but revoked.
    pub(crate) fn revoked(&self) -> Self {
        let Own { profile, revision, shape, .. } = self.own();
        let shape = Shape { state: State::Revoked, ..*shape };
        Self::of(Own::new(profile.clone(), *revision, self.used_at(), shape), &self.0.slice)
    }

    /// Its public name.
    #[must_use]
    pub fn id(&self) -> &str {
        let (id, _) = self.texts();
        text(id)
    }

    /// Its public name, as others keep it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::of_known(self.id())
    }

    /// Whose key it is.
    #[must_use]
    pub fn principal(&self) -> &str {
        let (_, principal) = self.texts();
        text(principal)
    }

    /// Whether it may be used.
    #[must_use]
    pub fn state(&self) -> State {
        self.own().shape.state
    }

    /// Before this instant it is not yet valid.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.own().shape.starts.then(|| self.time(0))
    }

    /// From this instant on it is no longer valid.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let before = usize::from(self.own().shape.starts);
        self.own().shape.ends.then(|| self.time(before))
    }

    /// The number of its last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.own().revision
    }

    /// What it has in common with other keys.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.own().profile
    }

    /// What it may do.
    #[must_use]
    pub fn scopes(&self) -> Texts<'_> {
        self.profile().scopes()
    }

    /// Whether it was granted a scope. Compared as a whole.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.profile().has_scope(scope)
    }

    /// From where it may be used; none means from anywhere.
    #[must_use]
    pub fn networks(&self) -> Networks<'_> {
        self.profile().networks()
    }

    /// For which services it may be used; none means for any.
    #[must_use]
    pub fn audiences(&self) -> Texts<'_> {
        self.profile().audiences()
    }

    /// What is handed to the caller with every answer, names in order.
    #[must_use]
    pub fn metadata(&self) -> Pairs<'_> {
        self.profile().metadata()
    }

    /// Notes a use. True when the last use that was noted is at least `every`
    /// ago, to a second, so that of many uses one in that time is worth storing.
    #[must_use]
    pub fn note_use(&self, now: Timestamp, every: Duration) -> bool {
        let used_at = &self.own().used_at;
        let (last, now) = (used_at.load(Ordering::Relaxed), seconds(now));
        // In half of the 136 years after which the seconds begin anew.
        let since = i64::from(now.wrapping_sub(last).cast_signed());
        let due = last == NEVER || since >= i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
        due && used_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// When its use was last noted, for whoever keeps that: 0 is never.
    pub(crate) fn used_at(&self) -> u32 {
        self.own().used_at.load(Ordering::Relaxed)
    }

    /// What has come up since it was taken into memory.
    pub(crate) fn marks(&self) -> &Marks {
        &self.own().marks
    }

    /// How many bytes it takes at most, its profile included although that may be
    /// shared, once for itself and once as each surface prepares it.
    pub(crate) fn bytes(&self) -> usize {
        let own = size_of::<Own>() + self.0.slice.len();
        own + self.profile().packed().len() * (1 + PreparedFor::ALL.len())
    }

    fn own(&self) -> &Own {
        &self.0.header.header
    }

    fn time(&self, index: usize) -> Timestamp {
        let bytes = self.0.slice.get(8 * index..).and_then(<[u8]>::first_chunk);
        bytes.copied().map(i64::from_le_bytes).and_then(from_micros).unwrap_or(Timestamp::MIN)
    }

    fn texts(&self) -> (&[u8], &[u8]) {
        let shape = self.own().shape;
        self.0.slice[shape.times_len()..].split_at(shape.id_len.into())
    }
}

impl Own {
    fn new(profile: Profile, revision: Revision, used_at: u32, shape: Shape) -> Self {
        let (marks, used_at) = (Marks::default(), AtomicU32::new(used_at));
        Self { profile, revision, marks, used_at, shape }
    }
}

impl Shape {
    fn times_len(self) -> usize {
        8 * (usize::from(self.starts) + usize::from(self.ends))
    }
}

const NEVER: u32 = 0;

/// What is put in is text, and nothing takes it apart elsewhere than it was put
/// together.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// The end of all time, which stands in stores for what lies behind it, has a
/// fraction that microseconds round up.
fn from_micros(micros: i64) -> Option<Timestamp> {
    if micros == Timestamp::MAX.as_microsecond() {
        return Some(Timestamp::MAX);
    }
    Timestamp::from_microsecond(micros).ok()
}

/// One second in 136 years is moved by one, to tell it from never.
fn seconds(at: Timestamp) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they begin anew")]
    let seconds = at.as_second() as u32;
    seconds.max(NEVER + 1)
}

impl From<&KeyRecord> for CompactKey {
    fn from(record: &KeyRecord) -> Self {
        let KeyRecord { id, rights, state, last_used_at, revision, .. } = record;
        let shape = Shape {
            state: *state,
            starts: rights.not_before.is_some(),
            ends: rights.expires_at.is_some(),
            id_len: u8::try_from(id.as_str().len()).unwrap_or(u8::MAX),
        };
        let mut behind = Vec::with_capacity(16 + id.as_str().len() + rights.principal.len());
        for time in [rights.not_before, rights.expires_at].into_iter().flatten() {
            behind.extend_from_slice(&time.as_microsecond().to_le_bytes());
        }
        behind.extend_from_slice(id.as_str().as_bytes());
        behind.extend_from_slice(rights.principal.as_bytes());
        let used_at = last_used_at.map_or(NEVER, seconds);
        Self::of(Own::new(Profile::from(rights), *revision, used_at, shape), &behind)
    }
}

/// Two are the same when all that the store said of them is, save when they were
/// used.
impl PartialEq for CompactKey {
    fn eq(&self, other: &Self) -> bool {
        let said = |known: &Self| (known.revision(), known.own().shape);
        said(self) == said(other)
            && self.0.slice == other.0.slice
            && self.profile() == other.profile()
    }
}

impl Eq for CompactKey {}

/// Names it alone.
impl fmt::Debug for CompactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, revision, state) = (self.id(), self.revision(), self.state());
        f.debug_struct("CompactKey")
            .field("id", &id)
            .field("revision", &revision)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests;
