//! The on-disk encoding of a key. The profile is stored separately, once for all keys
//! that share it.

use std::str;

use super::{CompactKey, Fields, Profile, Shape, from_micros, varint};
use crate::key::{KeyId, Revision, State};

/// Bytes that do not encode a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no key")]
pub(crate) struct NotAKey;

impl CompactKey {
    /// Appends all but the profile: revision 8 · used at 4 · state 1 · which times
    /// are present 1 · length of the id 1 · length of the rest · times, id, principal.
    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        let Shape { state, has_not_before, has_expires_at, id_len } = self.fields().shape;
        into.extend_from_slice(&self.revision().0.to_le_bytes());
        into.extend_from_slice(&self.used_at().to_le_bytes());
        let state = match state {
            State::Active => 1,
            State::Disabled => 2,
            State::Revoked => 3,
        };
        into.extend_from_slice(&[
            state,
            u8::from(has_not_before) | u8::from(has_expires_at) << 1,
            id_len,
        ]);
        varint::put(into, &self.0.slice);
    }

    /// Reads what [`write`](Self::write) wrote and advances `bytes`. An unknown state,
    /// an invalid time or invalid text is an error.
    pub(crate) fn read(bytes: &mut &[u8], profile: Profile) -> Result<Self, NotAKey> {
        const NUMBERS: usize = 8 + 4 + 3;
        let (numbers, rest) = bytes.split_first_chunk::<NUMBERS>().ok_or(NotAKey)?;
        let [revision @ .., u0, u1, u2, u3, state, times, id_len] = *numbers;
        *bytes = rest;
        let tail = varint::take(bytes).ok_or(NotAKey)?;
        let state = match state {
            1 => State::Active,
            2 => State::Disabled,
            3 => State::Revoked,
            _ => return Err(NotAKey),
        };
        if times > 3 {
            return Err(NotAKey);
        }
        let shape =
            Shape { state, has_not_before: times & 1 != 0, has_expires_at: times & 2 != 0, id_len };
        is_whole(tail, shape)?;
        let revision = Revision(i64::from_le_bytes(revision));
        let fields = Fields::new(profile, revision, u32::from_le_bytes([u0, u1, u2, u3]), shape);
        Ok(Self::of(fields, tail))
    }
}

/// Whether times, id and principal are valid.
fn is_whole(tail: &[u8], shape: Shape) -> Result<(), NotAKey> {
    let (times, texts) = tail.split_at_checked(shape.times_len()).ok_or(NotAKey)?;
    let (times, _) = times.as_chunks();
    for time in times {
        from_micros(i64::from_le_bytes(*time)).ok_or(NotAKey)?;
    }
    let (id, principal) = texts.split_at_checked(shape.id_len.into()).ok_or(NotAKey)?;
    let is_text = str::from_utf8(principal).is_ok();
    if is_text && KeyId::is_one(id) { Ok(()) } else { Err(NotAKey) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::{super::tests::records, *};
    use crate::store::fake::record;

    fn written(known: &CompactKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        known.write(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn every_key_round_trips(record in records(), tail: Vec<u8>) {
            let known = CompactKey::from(&record);
            let bytes = [written(&known), tail.clone()].concat();
            let mut rest = bytes.as_slice();
            let read = CompactKey::read(&mut rest, known.profile().clone()).unwrap();
            prop_assert_eq!(rest, tail);
            prop_assert_eq!((&read, read.used_at()), (&known, known.used_at()));
        }

        #[test]
        fn reading_a_key_from_any_bytes_terminates(bytes: Vec<u8>) {
            let profile = CompactKey::from(&record("acme", 1)).profile().clone();
            if let Ok(known) = CompactKey::read(&mut bytes.as_slice(), profile) {
                prop_assert!(!known.id().is_empty());
            }
        }
    }

    #[test]
    fn invalid_state_time_or_text_is_an_error() {
        let mut expiring = record("acme", 1);
        expiring.rights.expires_at = Some(Timestamp::UNIX_EPOCH);
        let known = CompactKey::from(&expiring);
        let good = written(&known);
        let is_read =
            |bytes: &[u8]| CompactKey::read(&mut &*bytes, known.profile().clone()).is_ok();
        assert!(is_read(&good));
        // State, times, the length of the id, the expiry, the id, the principal.
        for (at, byte) in
            [(12, 0), (12, 4), (13, 4), (14, 0), (14, 129), (23, 0x7f), (24, b' '), (33, 0xff)]
        {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(!is_read(&bad), "byte {at}");
        }
        assert!((0..good.len()).all(|length| !is_read(&good[..length])));
    }
}
