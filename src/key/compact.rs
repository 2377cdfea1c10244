//! The in-memory representation of a key: what decisions and responses need, in few bytes.

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
/// Holds what decisions and responses need; it drops the name, hint, secret and
/// creation time. Times are exact to the microsecond, as in the stores.
///
/// The fields of one key are in one allocation: the numbers, followed by its times,
/// id and principal. Fields that many keys share are in its [`Profile`].
#[derive(Clone)]
pub struct CompactKey(ThinArc<Fields, u8>);

struct Fields {
    profile: Profile,
    revision: Revision,
    marks: Marks,
    /// Seconds since the epoch, truncated to 32 bits; 0 means never.
    used_at: AtomicU32,
    shape: Shape,
}

/// Layout of the trailing bytes, and the state, which costs no extra space here.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    state: State,
    /// Whether `not_before` is present.
    has_not_before: bool,
    /// Whether `expires_at` is present.
    has_expires_at: bool,
    /// Length of the id in bytes: at most 128, as for every [`KeyId`].
    id_len: u8,
}

/// What happened to a record since it entered memory. Stored in the record: a
/// separate allocation would cost every key more than the marks themselves.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// When a hit last requested a refresh.
    pub(crate) asked_at: CoarseInstant,
    /// When the store first reported the row as missing, while that is not yet
    /// believed.
    pub(crate) missing_since: CoarseInstant,
    /// When the store last reported it as missing.
    pub(crate) missed_at: CoarseInstant,
}

impl CompactKey {
    fn of(fields: Fields, tail: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(fields, tail))
    }

    /// Replaces the profile by an equal one that more keys share.
    pub(crate) fn with_profile(self, profile: Profile) -> Self {
        if self.profile().is(&profile) {
            return self;
        }
        let fields = Fields::new(profile, self.revision(), self.used_at(), self.fields().shape);
        Self::of(fields, &self.0.slice)
    }

    /// A copy in state `Revoked`.
    pub(crate) fn revoked(&self) -> Self {
        let Fields { profile, revision, shape, .. } = self.fields();
        let shape = Shape { state: State::Revoked, ..*shape };
        Self::of(Fields::new(profile.clone(), *revision, self.used_at(), shape), &self.0.slice)
    }

    /// Its public id.
    #[must_use]
    pub fn id(&self) -> &str {
        let (id, _) = self.texts();
        text(id)
    }

    /// Its public id as an owned [`KeyId`].
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::of_known(self.id())
    }

    /// The owner of the key.
    #[must_use]
    pub fn principal(&self) -> &str {
        let (_, principal) = self.texts();
        text(principal)
    }

    /// Whether the owner allows its use.
    #[must_use]
    pub fn state(&self) -> State {
        self.fields().shape.state
    }

    /// The key is not valid before this instant.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        self.fields().shape.has_not_before.then(|| self.time(0))
    }

    /// The key is not valid from this instant on.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        let before = usize::from(self.fields().shape.has_not_before);
        self.fields().shape.has_expires_at.then(|| self.time(before))
    }

    /// The revision of its last change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.fields().revision
    }

    /// The fields that it shares with other keys.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.fields().profile
    }

    /// The scopes that it was granted.
    #[must_use]
    pub fn scopes(&self) -> Texts<'_> {
        self.profile().scopes()
    }

    /// Whether it was granted `scope`. Compares whole strings.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.profile().has_scope(scope)
    }

    /// The client networks that may use it; empty means any.
    #[must_use]
    pub fn networks(&self) -> Networks<'_> {
        self.profile().networks()
    }

    /// The services that may accept it; empty means any.
    #[must_use]
    pub fn audiences(&self) -> Texts<'_> {
        self.profile().audiences()
    }

    /// Metadata returned with every valid check, ordered by name.
    #[must_use]
    pub fn metadata(&self) -> Pairs<'_> {
        self.profile().metadata()
    }

    /// Records a use. Returns true if the last recorded use is at least `every` ago,
    /// to the second, so that the caller stores at most one use in that time.
    #[must_use]
    pub fn note_use(&self, now: Timestamp, every: Duration) -> bool {
        let used_at = &self.fields().used_at;
        let (last, now) = (used_at.load(Ordering::Relaxed), seconds(now));
        // The difference is signed: the 32-bit seconds wrap every 136 years.
        let since = i64::from(now.wrapping_sub(last).cast_signed());
        let due = last == NEVER || since >= i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
        due && used_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// When a use was last recorded, for persistence: 0 means never.
    pub(crate) fn used_at(&self) -> u32 {
        self.fields().used_at.load(Ordering::Relaxed)
    }

    /// What happened since the record entered memory.
    pub(crate) fn marks(&self) -> &Marks {
        &self.fields().marks
    }

    /// Upper bound of its memory in bytes. Counts its profile, even where it is shared,
    /// once for itself and once for each surface that prepares a response from it.
    pub(crate) fn bytes(&self) -> usize {
        let fields = size_of::<Fields>() + self.0.slice.len();
        fields + self.profile().packed().len() * (1 + PreparedFor::ALL.len())
    }

    fn fields(&self) -> &Fields {
        &self.0.header.header
    }

    fn time(&self, index: usize) -> Timestamp {
        let bytes = self.0.slice.get(8 * index..).and_then(<[u8]>::first_chunk);
        bytes.copied().map(i64::from_le_bytes).and_then(from_micros).unwrap_or(Timestamp::MIN)
    }

    fn texts(&self) -> (&[u8], &[u8]) {
        let shape = self.fields().shape;
        self.0.slice[shape.times_len()..].split_at(shape.id_len.into())
    }
}

impl Fields {
    fn new(profile: Profile, revision: Revision, used_at: u32, shape: Shape) -> Self {
        let (marks, used_at) = (Marks::default(), AtomicU32::new(used_at));
        Self { profile, revision, marks, used_at, shape }
    }
}

impl Shape {
    fn times_len(self) -> usize {
        8 * (usize::from(self.has_not_before) + usize::from(self.has_expires_at))
    }
}

const NEVER: u32 = 0;

/// The bytes were built from strings and are split at the same boundaries.
fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

/// `Timestamp::MAX` stands for later times in stores; rounding its fraction to
/// microseconds would exceed it.
fn from_micros(micros: i64) -> Option<Timestamp> {
    if micros == Timestamp::MAX.as_microsecond() {
        return Some(Timestamp::MAX);
    }
    Timestamp::from_microsecond(micros).ok()
}

/// Shifts one second in 136 years by one, to keep 0 for "never".
fn seconds(at: Timestamp) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they wrap")]
    let seconds = at.as_second() as u32;
    seconds.max(NEVER + 1)
}

impl From<&KeyRecord> for CompactKey {
    fn from(record: &KeyRecord) -> Self {
        let KeyRecord { id, rights, state, last_used_at, revision, .. } = record;
        let shape = Shape {
            state: *state,
            has_not_before: rights.not_before.is_some(),
            has_expires_at: rights.expires_at.is_some(),
            id_len: u8::try_from(id.as_str().len()).unwrap_or(u8::MAX),
        };
        let mut tail = Vec::with_capacity(16 + id.as_str().len() + rights.principal.len());
        for time in [rights.not_before, rights.expires_at].into_iter().flatten() {
            tail.extend_from_slice(&time.as_microsecond().to_le_bytes());
        }
        tail.extend_from_slice(id.as_str().as_bytes());
        tail.extend_from_slice(rights.principal.as_bytes());
        let used_at = last_used_at.map_or(NEVER, seconds);
        Self::of(Fields::new(Profile::from(rights), *revision, used_at, shape), &tail)
    }
}

/// Compares everything that the store said of them, except when they were used.
impl PartialEq for CompactKey {
    fn eq(&self, other: &Self) -> bool {
        let numbers = |key: &Self| (key.revision(), key.fields().shape);
        numbers(self) == numbers(other)
            && self.0.slice == other.0.slice
            && self.profile() == other.profile()
    }
}

impl Eq for CompactKey {}

/// Shows the id alone.
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
