//! A record on disk: Protocol Buffers, of which an older and a newer version can
//! read each other's.
//!
//! The messages are private and live here alone. Times are microseconds, which
//! is what stores keep.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use prost::Message;

use crate::key::{Fingerprint, KeyRecord, Revision, Rights, State};

/// What a record is written as.
#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    hint: String,
    #[prost(fixed64, optional, tag = "3")]
    secret: Option<u64>,
    #[prost(string, tag = "4")]
    principal: String,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(string, repeated, tag = "6")]
    scopes: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    allowed_networks: Vec<WireNetwork>,
    #[prost(string, repeated, tag = "8")]
    audiences: Vec<String>,
    #[prost(btree_map = "string, string", tag = "9")]
    metadata: BTreeMap<String, String>,
    #[prost(int64, optional, tag = "10")]
    not_before: Option<i64>,
    #[prost(int64, optional, tag = "11")]
    expires_at: Option<i64>,
    #[prost(uint32, tag = "12")]
    state: u32,
    #[prost(int64, tag = "13")]
    created_at: i64,
    #[prost(int64, optional, tag = "14")]
    last_used_at: Option<i64>,
    #[prost(int64, tag = "15")]
    revision: i64,
}

/// A network: 4 or 16 bytes, and the length of its prefix.
#[derive(Clone, PartialEq, Message)]
struct WireNetwork {
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(uint32, tag = "2")]
    prefix_len: u32,
}

/// Bytes that are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry is no record of a key")]
pub(super) struct NotARecord;

/// Appends a record to `buffer`.
pub(super) fn write(record: &KeyRecord, buffer: &mut Vec<u8>) {
    let KeyRecord { id, hint, secret, rights, state, created_at, last_used_at, revision } = record;
    let Rights { principal, name, scopes, allowed_networks, .. } = rights;
    let Rights { audiences, metadata, not_before, expires_at, .. } = rights;
    let wire = Wire {
        id: id.as_str().to_owned(),
        hint: hint.clone(),
        secret: secret.map(|of| u64::from_be_bytes(*of.as_bytes())),
        principal: principal.clone(),
        name: name.clone(),
        scopes: scopes.clone(),
        allowed_networks: allowed_networks.iter().map(WireNetwork::from).collect(),
        audiences: audiences.clone(),
        metadata: metadata.clone(),
        not_before: not_before.map(Timestamp::as_microsecond),
        expires_at: expires_at.map(Timestamp::as_microsecond),
        state: match state {
            State::Active => 1,
            State::Disabled => 2,
            State::Revoked => 3,
        },
        created_at: created_at.as_microsecond(),
        last_used_at: last_used_at.map(Timestamp::as_microsecond),
        revision: revision.0,
    };
    buffer.reserve(wire.encoded_len());
    // A vector grows, so that this cannot fail.
    let _ = wire.encode(buffer);
}

/// Reads a record that takes all of `bytes`. A state, network or time that this
/// version does not know is not guessed at.
pub(super) fn read(bytes: &[u8]) -> Result<KeyRecord, NotARecord> {
    let wire = Wire::decode(bytes).map_err(|_| NotARecord)?;
    Ok(KeyRecord {
        id: wire.id.parse().map_err(|_| NotARecord)?,
        hint: wire.hint,
        secret: wire.secret.map(|of| Fingerprint::from_bytes(of.to_be_bytes())),
        rights: Rights {
            principal: wire.principal,
            name: wire.name,
            scopes: wire.scopes,
            allowed_networks: wire
                .allowed_networks
                .iter()
                .map(WireNetwork::read)
                .collect::<Result<_, _>>()?,
            audiences: wire.audiences,
            metadata: wire.metadata,
            not_before: wire.not_before.map(time).transpose()?,
            expires_at: wire.expires_at.map(time).transpose()?,
        },
        state: match wire.state {
            1 => State::Active,
            2 => State::Disabled,
            3 => State::Revoked,
            _ => return Err(NotARecord),
        },
        created_at: time(wire.created_at)?,
        last_used_at: wire.last_used_at.map(time).transpose()?,
        revision: Revision(wire.revision),
    })
}

fn time(micros: i64) -> Result<Timestamp, NotARecord> {
    Timestamp::from_microsecond(micros).map_err(|_| NotARecord)
}

impl From<&IpNet> for WireNetwork {
    fn from(network: &IpNet) -> Self {
        let address = match network.addr() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        Self { address, prefix_len: network.prefix_len().into() }
    }
}

impl WireNetwork {
    fn read(&self) -> Result<IpNet, NotARecord> {
        let bytes = self.address.as_slice();
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
        let address = v4.or(v6).map_err(|_| NotARecord)?;
        let prefix_len = u8::try_from(self.prefix_len).map_err(|_| NotARecord)?;
        IpNet::new(address, prefix_len).map_err(|_| NotARecord)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::{collection, option, prelude::*};

    use super::*;

    fn instants() -> impl Strategy<Value = Timestamp> {
        (Timestamp::MIN.as_microsecond()..=Timestamp::MAX.as_microsecond())
            .prop_map(|micros| Timestamp::from_microsecond(micros).unwrap())
    }

    fn networks() -> impl Strategy<Value = IpNet> {
        prop_oneof![
            (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(a, n)| IpNet::new(a.into(), n).unwrap()),
            (any::<[u8; 16]>(), 0_u8..=128).prop_map(|(a, n)| IpNet::new(a.into(), n).unwrap()),
        ]
    }

    fn rights() -> impl Strategy<Value = Rights> {
        let texts = || collection::vec(".{0,20}", 0..4);
        let pairs = collection::btree_map(".{0,9}", ".{0,20}", 0..4);
        let lists = (texts(), collection::vec(networks(), 0..4), texts(), pairs);
        (".{1,20}", ".{0,20}", lists, option::of(instants()), option::of(instants())).prop_map(
            |(principal, name, (scopes, allowed_networks, audiences, metadata), from, to)| Rights {
                principal,
                name,
                scopes,
                allowed_networks,
                audiences,
                metadata,
                not_before: from,
                expires_at: to,
            },
        )
    }

    /// Any record that a store may hold.
    pub(in crate::warm) fn records() -> impl Strategy<Value = KeyRecord> {
        let states = prop_oneof![Just(State::Active), Just(State::Disabled), Just(State::Revoked)];
        let secrets = option::of(any::<[u8; 8]>().prop_map(Fingerprint::from_bytes));
        let times = (instants(), option::of(instants()));
        ("[!-~]{1,128}", ".{0,20}", secrets, rights(), states, times, any::<i64>()).prop_map(
            |(id, hint, secret, rights, state, (created_at, last_used_at), revision)| KeyRecord {
                id: id.parse().unwrap(),
                hint,
                secret,
                rights,
                state,
                created_at,
                last_used_at,
                revision: Revision(revision),
            },
        )
    }

    proptest! {
        #[test]
        fn any_record_reads_back_as_it_was(record in records()) {
            let mut bytes = Vec::new();
            write(&record, &mut bytes);
            prop_assert_eq!(read(&bytes), Ok(record));
        }

        #[test]
        fn whatever_the_bytes_are_reading_ends(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_not_guessed_at() {
        let good = Wire { id: "key_1".to_owned(), state: 1, ..Wire::default() };
        assert!(read(&good.encode_to_vec()).is_ok());
        let network = |address: &[u8], prefix_len| Wire {
            allowed_networks: vec![WireNetwork { address: address.to_vec(), prefix_len }],
            ..good.clone()
        };
        for bad in [
            Wire { state: 0, ..good.clone() },
            Wire { state: 4, ..good.clone() },
            Wire { id: String::new(), ..good.clone() },
            Wire { created_at: i64::MAX, ..good.clone() },
            network(&[10, 0, 0], 8),
            network(&[10, 0, 0, 0], 33),
            network(&[0; 16], 256),
        ] {
            assert_eq!(read(&bad.encode_to_vec()), Err(NotARecord), "{bad:?}");
        }
    }
}
