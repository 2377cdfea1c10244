//! A landmark on disk: by which row of the changes the same store is recognised.

use super::{Refusal, snapshot::take};
use crate::{
    key::{Digest, Revision},
    store::{ChangeKind, Row},
};

/// The length of a landmark: its kind, number and digest.
pub(super) const LEN: usize = 1 + 8 + Digest::LEN;

/// All zeroes when there is none.
pub(super) fn to_bytes(landmark: Option<Row>) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    if let Some(Row { revision, digest, kind }) = landmark {
        bytes[0] = match kind {
            None => 1,
            Some(ChangeKind::Created) => 2,
            Some(ChangeKind::Updated) => 3,
            Some(ChangeKind::Deleted) => 4,
            Some(ChangeKind::Revoked) => 5,
        };
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
        1 => None,
        2 => Some(ChangeKind::Created),
        3 => Some(ChangeKind::Updated),
        4 => Some(ChangeKind::Deleted),
        5 => Some(ChangeKind::Revoked),
        _ => return Err(Refusal::Unreadable("it names a kind of change that there is not")),
    };
    let revision = Revision(i64::from_le_bytes(take(&mut rest)));
    Ok(Some(Row { revision, digest: Digest::from_bytes(take(&mut rest)), kind }))
}
