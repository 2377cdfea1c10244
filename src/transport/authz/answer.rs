//! Encodes the response of `Authz/Check`.

use prost::Message;
use prost_types::Timestamp;

use crate::{
    check::Grant,
    key::{PreparedFor, Profile},
    tier::Freshness,
    transport::{
        pb::{self, CheckResponse},
        wire::{PutFields, field_len, varint_field_len},
    },
};

/// The response to an allowed check, as a message.
pub(in crate::transport) fn as_message(grant: &Grant) -> CheckResponse {
    let mut written = Vec::new();
    write(grant, &mut written);
    // What was written can be decoded: a test compares it with generated code.
    CheckResponse::decode(&*written).unwrap_or_default()
}

/// Writes the response to an allowed check, as a `CheckResponse`. The fields that many keys share
/// are copied from an encoding that is cached per profile.
pub(super) fn write(grant: &Grant, to: &mut impl PutFields) {
    let Grant { record, freshness, age } = grant;
    to.put_bytes_field(1, record.id().as_bytes());
    to.put_bytes_field(2, record.principal().as_bytes());
    to.put_slice(record.profile().prepared(PreparedFor::Authz, shared_fields));
    if let Some(end) = record.expires_at() {
        put_time(to, 5, end.as_second().cast_unsigned(), end.subsec_nanosecond());
    }
    let freshness = freshness_number(*freshness);
    let revision = record.revision().0.cast_unsigned();
    let age_nanos = age.subsec_nanos().cast_signed();
    let evidence = varint_field_len(freshness)
        + field_len(time_len(age.as_secs(), age_nanos))
        + varint_field_len(revision);
    to.put_field_of(6, evidence);
    to.put_varint_field(1, freshness);
    put_time(to, 2, age.as_secs(), age_nanos);
    to.put_varint_field(3, revision);
}

/// Scopes and metadata, which many keys share.
fn shared_fields(profile: &Profile) -> Box<[u8]> {
    let mut written = Vec::new();
    for scope in profile.scopes() {
        written.put_bytes_field(3, scope.as_bytes());
    }
    for (name, value) in profile.metadata() {
        written.put_field_of(4, field_len(name.len()) + field_len(value.len()));
        written.put_bytes_field(1, name.as_bytes());
        written.put_bytes_field(2, value.as_bytes());
    }
    written.into()
}

/// Writes a `Timestamp` or a `Duration`, which have the same fields.
fn put_time(to: &mut impl PutFields, number: u32, seconds: u64, nanos: i32) {
    to.put_field_of(number, time_len(seconds, nanos));
    to.put_varint_field(1, seconds);
    to.put_varint_field(2, i64::from(nanos).cast_unsigned());
}

const fn time_len(seconds: u64, nanos: i32) -> usize {
    varint_field_len(seconds) + varint_field_len((nanos as i64).cast_unsigned())
}

fn freshness_number(freshness: Freshness) -> u64 {
    let freshness = match freshness {
        Freshness::Fresh => pb::Freshness::Fresh,
        Freshness::Revalidating => pb::Freshness::Revalidating,
        Freshness::StaleIfError => pb::Freshness::StaleIfError,
    };
    u64::from(i32::from(freshness).cast_unsigned())
}

/// Converts a time to its protobuf type.
pub(in crate::transport) fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{key::CompactKey, key::Revision, store::fake::record};

    proptest! {
        #[test]
        fn written_response_equals_that_of_generated_code(
            principal in ".{0,200}",
            scopes in vec(".{0,20}", 0..5),
            metadata in vec((".{0,9}", ".{0,200}"), 0..4),
            // With microsecond precision, as in records.
            expires_at in option::of((0..100_000_000_000_i64, 0..1_000_000_i32)),
            revision: i64,
            age in (any::<u32>(), 0..1_000_000_000_u32),
        ) {
            let mut record = record("acme", 1);
            record.rights.principal.clone_from(&principal);
            record.rights.scopes = scopes.clone();
            record.rights.metadata = metadata.into_iter().collect();
            let expires_at = expires_at.map(|(second, micros)| (second, micros * 1000));
            let time = |(second, nanos)| jiff::Timestamp::new(second, nanos).unwrap();
            record.rights.expires_at = expires_at.map(time);
            record.revision = Revision(revision);
            let (age_seconds, age_nanos) = age;
            let expected = CheckResponse {
                key_id: record.id.to_string(),
                principal,
                scopes,
                metadata: HashMap::from_iter(record.rights.metadata.clone()),
                expires_at: expires_at.map(|(seconds, nanos)| Timestamp { seconds, nanos }),
                evidence: Some(pb::Evidence {
                    freshness: pb::Freshness::Revalidating.into(),
                    age: Some(prost_types::Duration {
                        seconds: age_seconds.into(),
                        nanos: age_nanos.cast_signed(),
                    }),
                    revision,
                }),
            };
            let grant = Grant {
                record: CompactKey::from(&record),
                freshness: Freshness::Revalidating,
                age: Duration::new(age_seconds.into(), age_nanos),
            };
            let mut written = Vec::new();
            write(&grant, &mut written);
            prop_assert_eq!(CheckResponse::decode(&*written), Ok(expected.clone()));
            prop_assert_eq!(as_message(&grant), expected);
        }
    }
}
