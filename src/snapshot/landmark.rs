//! On-disk form of a landmark: the change row that identifies a store's history.

use super::{Refusal, format::take};
use crate::{
    key::{Digest, Revision},
    store::{ChangeKind, Row},
};

/// Length in bytes: kind, number and digest.
pub(super) const LEN: usize = 1 + 8 + Digest::LEN;

/// Stands for an unknown kind.
const UNKNOWN: u8 = 1;

/// Encodes a landmark; all zeroes if there is none.
pub(super) fn to_bytes(landmark: Option<Row>) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    if let Some(Row { revision, digest, kind }) = landmark {
        bytes[0] = kind.map_or(UNKNOWN, kind_to_byte);
        bytes[1..9].copy_from_slice(&revision.0.to_le_bytes());
        bytes[9..].copy_from_slice(digest.as_bytes());
    }
    bytes
}

pub(super) fn read(bytes: [u8; LEN]) -> Result<Option<Row>, Refusal> {
    let mut rest = bytes.as_slice();
    let [kind] = take(&mut rest);
    let kind = match kind {
        0 => return Ok(None),
        UNKNOWN => None,
        kind => Some(kind_from_byte(kind)?),
    };
    let revision = Revision(i64::from_le_bytes(take(&mut rest)));
    Ok(Some(Row { revision, digest: Digest::from_bytes(take(&mut rest)), kind }))
}

/// On-disk form of a change kind.
pub(super) const fn kind_to_byte(kind: ChangeKind) -> u8 {
    match kind {
        ChangeKind::Created => 2,
        ChangeKind::Updated => 3,
        ChangeKind::Deleted => 4,
        ChangeKind::Revoked => 5,
    }
}

pub(super) const fn kind_from_byte(byte: u8) -> Result<ChangeKind, Refusal> {
    match byte {
        2 => Ok(ChangeKind::Created),
        3 => Ok(ChangeKind::Updated),
        4 => Ok(ChangeKind::Deleted),
        5 => Ok(ChangeKind::Revoked),
        _ => Err(Refusal::Unreadable("it has an unknown kind of change")),
    }
}
