//! Encodes grants for Envoy.
//!
//! The request goes on with identity headers that name the key's owner, without those that a client
//! may have forged, and without the parts to remove; the dynamic metadata gives the same identity
//! to later filters and to the access log. What many keys and what all responses share is encoded
//! once and then copied.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};

use super::answer::header_of;
use crate::{
    key::{CompactKey, PreparedFor, Profile},
    transport::{
        envoy_pb::{HeaderValueOption, OkHttpResponse, header_value_option::HeaderAppendAction},
        proxied::{Removal, identity},
        wire::{PutFields, field_len, varint_field_len},
    },
};

/// The only field of the dynamic metadata.
const METADATA: &str = "keystead";

/// The part of an `OkHttpResponse` that is the same for every request: it removes the headers
/// `always`, which no upstream may see.
pub(super) fn common_part(always: impl Iterator<Item = String>) -> Box<[u8]> {
    let headers_to_remove = always.map(Bytes::from).collect();
    OkHttpResponse { headers_to_remove, ..OkHttpResponse::default() }.encode_to_vec().into()
}

/// The part of an `OkHttpResponse` that removes the key from a request.
pub(super) fn removal_part(removal: Removal<'_>) -> Vec<u8> {
    let owned = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    let named = |name: &'static str| Bytes::from_static(name.as_bytes());
    let part = OkHttpResponse {
        headers: removal.cookie.map(|cookie| header("cookie", cookie)).into_iter().collect(),
        headers_to_remove: removal.headers.into_iter().map(named).collect(),
        query_parameters_to_remove: removal.parameters.into_iter().map(owned).collect(),
    };
    part.encode_to_vec()
}

/// Writes a `CheckResponse` that lets a request through. `parts` are encoded parts of its
/// `OkHttpResponse` that do not depend on the key.
pub(super) fn write(key: &CompactKey, parts: [&[u8]; 2], to: &mut impl PutFields) {
    let (id, principal) = (identity::value(key.id()), identity::value(key.principal()));
    let shared = Shared::of(key.profile());

    // An empty `google.rpc.Status`: its code is 0, OK.
    to.put_field_of(1, 0);

    let identity = [(identity::KEY_ID, &*id), (identity::PRINCIPAL, &*principal)];
    let lengths = identity.map(|(name, value)| identity_len(name, value));
    let parts_len = parts.iter().chain([&shared.ok]).map(|part| part.len()).sum::<usize>();
    to.put_field_of(3, lengths.iter().sum::<usize>() + parts_len);
    for (name, value) in identity {
        put_identity(to, name, value);
    }
    parts.into_iter().chain([shared.ok]).for_each(|part| to.put_slice(part));

    let facts = [("key_id", key.id()), ("principal", key.principal())];
    let own = facts.map(|(name, text)| field_len(entry_len(name, field_len(text.len()))));
    let fields = own.iter().sum::<usize>() + shared.facts.len();
    let whole = entry_len(METADATA, field_len(fields));
    to.put_field_of(4, field_len(whole));
    put_entry(to, METADATA, field_len(fields));
    to.put_field_of(5, fields);
    for (name, text) in facts {
        put_entry(to, name, field_len(text.len()));
        to.put_bytes_field(3, text.as_bytes());
    }
    to.put_slice(shared.facts);
}

/// The encoded fields that depend only on the profile.
struct Shared<'a> {
    /// A part of an `OkHttpResponse`: the header with the scopes.
    ok: &'a [u8],
    /// Fields of the dynamic metadata: scopes and metadata.
    facts: &'a [u8],
}

impl<'a> Shared<'a> {
    fn of(profile: &'a Profile) -> Self {
        let prepared = profile.prepared(PreparedFor::ExtAuthz, prepared);
        // Split as `prepared` joins them.
        let (length, both) = prepared.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (ok, facts) = both.split_at_checked(length).unwrap_or_default();
        Self { ok, facts }
    }
}

/// Both parts of [`Shared`], preceded by the length of the first.
fn prepared(profile: &Profile) -> Box<[u8]> {
    let scopes = identity::scopes(profile);
    let mut part = OkHttpResponse::default();
    if scopes.is_empty() {
        part.headers_to_remove.push(Bytes::from_static(identity::SCOPES.as_bytes()));
    } else {
        part.headers.push(header(identity::SCOPES, scopes));
    }
    let ok = part.encode_to_vec();
    let length = u32::try_from(ok.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length[..], &ok, &facts(profile).encode_to_vec()].concat().into()
}

fn facts(profile: &Profile) -> Struct {
    let scopes = ListValue { values: profile.scopes().map(text).collect() };
    let metadata = profile.metadata().map(|(name, value)| (name.to_owned(), text(value)));
    let metadata = Struct { fields: metadata.collect() };
    let facts = [
        ("scopes", of_kind(Kind::ListValue(scopes))),
        ("metadata", of_kind(Kind::StructValue(metadata))),
    ];
    Struct { fields: BTreeMap::from(facts.map(|(name, value)| (name.to_owned(), value))) }
}

fn text(text: &str) -> Value {
    of_kind(Kind::StringValue(text.to_owned()))
}

const fn of_kind(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn header(name: &'static str, value: String) -> HeaderValueOption {
    header_of(Bytes::from_static(name.as_bytes()), value.into())
}

/// Writes the field that replaces a header of this name or, if the value is empty, removes it.
fn put_identity(to: &mut impl PutFields, name: &str, value: &str) {
    if value.is_empty() {
        return to.put_bytes_field(5, name.as_bytes());
    }
    let header = entry_len(name, value.len());
    to.put_field_of(2, option_len(header));
    to.put_field_of(1, header);
    to.put_bytes_field(1, name.as_bytes());
    to.put_bytes_field(2, value.as_bytes());
    to.put_varint_field(3, OVERWRITE);
}

fn identity_len(name: &str, value: &str) -> usize {
    if value.is_empty() {
        field_len(name.len())
    } else {
        field_len(option_len(entry_len(name, value.len())))
    }
}

const OVERWRITE: u64 = HeaderAppendAction::OverwriteIfExistsOrAdd as u64;

const fn option_len(header: usize) -> usize {
    field_len(header) + varint_field_len(OVERWRITE)
}

/// Writes the start of a map entry, which is a field of its own, up to its name; the value, a
/// message of `value_len` bytes, must follow.
fn put_entry(to: &mut impl PutFields, name: &str, value_len: usize) {
    to.put_field_of(1, entry_len(name, value_len));
    to.put_bytes_field(1, name.as_bytes());
    to.put_field_of(2, value_len);
}

/// Encoded size of two fields, a name and a value.
const fn entry_len(name: &str, value_len: usize) -> usize {
    field_len(name.len()) + field_len(value_len)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{store::fake::record, transport::envoy_pb::CheckResponse};

    /// The same response, built with generated code.
    fn expected(key: &CompactKey, removed: &[&'static str]) -> CheckResponse {
        let mut ok = OkHttpResponse::default();
        ok.headers_to_remove.extend(removed.iter().map(|name| Bytes::from_static(name.as_bytes())));
        for (name, value) in identity::all(key) {
            match value {
                Some(value) => ok.headers.push(header(name, value)),
                None => ok.headers_to_remove.push(Bytes::from_static(name.as_bytes())),
            }
        }
        let mut fields = facts(key.profile()).fields;
        fields.insert("key_id".to_owned(), text(key.id()));
        fields.insert("principal".to_owned(), text(key.principal()));
        let fields = of_kind(Kind::StructValue(Struct { fields }));
        let metadata = Struct { fields: BTreeMap::from([(METADATA.to_owned(), fields)]) };
        CheckResponse {
            status: Some(Bytes::new()),
            ok_response: Some(ok),
            dynamic_metadata: Some(metadata),
            ..CheckResponse::default()
        }
    }

    fn sorted(mut response: CheckResponse) -> CheckResponse {
        response.ok_response.as_mut().unwrap().headers_to_remove.sort();
        response
    }

    proptest! {
        #[test]
        fn written_response_equals_that_of_generated_code(
            principal in ".{0,200}",
            scopes in vec(".{0,20}", 0..5),
            metadata in vec((".{0,9}", ".{0,200}"), 0..4),
        ) {
            let mut record = record("acme", 1);
            record.rights.principal = principal;
            record.rights.scopes = scopes;
            record.rights.metadata = metadata.into_iter().collect();
            let key = CompactKey::from(&record);
            let always = ["x_a", "x_b"];
            let removal = Removal { headers: vec!["authorization"], ..Removal::default() };
            let common = common_part(always.map(str::to_owned).into_iter());
            let parts = [&*common, &removal_part(removal)];
            // The second iteration uses the cached encoding of the first.
            for _ in 0..2 {
                let mut written = Vec::new();
                write(&key, parts, &mut written);
                let read = CheckResponse::decode(&*written).unwrap();
                let expected = expected(&key, &["x_a", "x_b", "authorization"]);
                prop_assert_eq!(sorted(read), sorted(expected));
            }
        }
    }
}
