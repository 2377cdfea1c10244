//! The fields that many keys share: thousands of keys have few distinct profiles.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    iter::FusedIterator,
    net::IpAddr,
    str,
    sync::OnceLock,
};

use ipnet::IpNet;
use triomphe::ThinArc;

use super::{text, varint};
use crate::key::Rights;

/// What a key may do, where and for whom, and its metadata: all that keys of one
/// kind share. Clones share one copy.
///
/// Packed into one allocation. Profiles with the same content are equal, wherever
/// they are allocated, and have the same bytes.
#[derive(Clone)]
pub struct Profile(ThinArc<Head, u8>);

struct Head {
    scopes: Range,
    audiences: Range,
    /// The metadata follows it.
    networks: Range,
    prepared: [OnceLock<Box<[u8]>>; PreparedFor::ALL.len()],
}

impl Head {
    fn new(scopes: Range, audiences: Range, networks: Range) -> Self {
        Self { scopes, audiences, networks, prepared: Default::default() }
    }
}

/// The range of a part, without its length prefix.
#[derive(Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
}

/// A surface whose responses reuse bytes that it prepared once from a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreparedFor {
    /// `keystead.v1.Authz`.
    Authz,
    /// `envoy.service.auth.v3.Authorization`.
    ExtAuthz,
}

impl PreparedFor {
    /// All surfaces.
    pub const ALL: [Self; 2] = [Self::Authz, Self::ExtAuthz];
}

/// Bytes that do not encode a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no profile of a key")]
pub struct NotAProfile;

impl Profile {
    /// Reads the bytes of [`packed`](Self::packed).
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, NotAProfile> {
        let mut rest = bytes;
        let mut part = || {
            let length = varint::take(&mut rest).ok_or(NotAProfile)?.len();
            let end = bytes.len() - rest.len();
            Ok(Range { start: end - length, end })
        };
        let head = Head::new(part()?, part()?, part()?);
        let profile = Self(ThinArc::from_header_and_slice(head, bytes));
        let whole = profile.scopes().is_whole()
            && profile.audiences().is_whole()
            && profile.networks().is_whole()
            && profile.metadata().is_whole();
        if whole { Ok(profile) } else { Err(NotAProfile) }
    }

    /// The bytes that `encode` returned on the first call for this `surface`. The
    /// surface defines their meaning. They live as long as the profile, so they must
    /// depend on nothing else.
    pub fn prepared(&self, surface: PreparedFor, encode: impl FnOnce(&Self) -> Box<[u8]>) -> &[u8] {
        self.head().prepared[surface as usize].get_or_init(|| encode(self))
    }

    /// The scopes granted to keys with this profile.
    #[must_use]
    pub fn scopes(&self) -> Texts<'_> {
        Texts(self.part(self.head().scopes))
    }

    /// Whether `scope` is granted. Compares whole strings.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        let mut rest = self.part(self.head().scopes);
        std::iter::from_fn(|| varint::take(&mut rest)).any(|it| it == scope.as_bytes())
    }

    /// The client networks that may use these keys; empty means any.
    #[must_use]
    pub fn networks(&self) -> Networks<'_> {
        Networks(self.part(self.head().networks))
    }

    /// The services that may accept these keys; empty means any.
    #[must_use]
    pub fn audiences(&self) -> Texts<'_> {
        Texts(self.part(self.head().audiences))
    }

    /// Metadata returned with every valid check, ordered by name.
    #[must_use]
    pub fn metadata(&self) -> Pairs<'_> {
        Pairs(Texts(&self.packed()[self.head().networks.end..]))
    }

    /// The encoded profile, identical for identical content: scopes, audiences and
    /// networks, each with a length prefix, then metadata.
    pub(crate) fn packed(&self) -> &[u8] {
        &self.0.slice
    }

    /// Whether both share one allocation.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.address() == other.address()
    }

    /// Identifies the profile while it is alive.
    pub(crate) fn address(&self) -> usize {
        self.0.ptr().addr()
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn part(&self, Range { start, end }: Range) -> &[u8] {
        &self.packed()[start..end]
    }
}

impl From<&Rights> for Profile {
    fn from(rights: &Rights) -> Self {
        let Rights { scopes, audiences, allowed_networks, metadata, .. } = rights;
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            varint::put(&mut bytes, part);
            Range { start: bytes.len() - part.len(), end: bytes.len() }
        };
        let (scopes, audiences) = (put(&runs(scopes)), put(&runs(audiences)));
        let mut networks = Vec::new();
        for network in allowed_networks {
            put_network(&mut networks, network);
        }
        let head = Head::new(scopes, audiences, put(&networks));
        bytes.extend(runs(metadata.iter().flat_map(|(name, value)| [name, value])));
        Self(ThinArc::from_header_and_slice(head, &bytes))
    }
}

/// Length-prefixed texts, concatenated.
fn runs<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        varint::put(&mut bytes, text.as_bytes());
    }
    bytes
}

/// Appends a length prefix, the prefix length of the network, and an address of 4 or
/// 16 bytes.
fn put_network(into: &mut Vec<u8>, network: &IpNet) {
    let address = match network.addr() {
        IpAddr::V4(address) => &address.octets()[..],
        IpAddr::V6(address) => &address.octets(),
    };
    varint::put_length(into, 1 + address.len());
    into.push(network.prefix_len());
    into.extend_from_slice(address);
}

fn network(bytes: &[u8]) -> Option<IpNet> {
    let (prefix_len, address) = bytes.split_first()?;
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(address).map(IpAddr::from);
    IpNet::new(v4.or(v6).ok()?, *prefix_len).ok()
}

/// Iterates over texts of a profile.
#[derive(Debug, Clone, Default)]
pub struct Texts<'a>(&'a [u8]);

/// Iterates over networks of a profile.
#[derive(Debug, Clone, Default)]
pub struct Networks<'a>(&'a [u8]);

/// Iterates over pairs of texts of a profile.
#[derive(Debug, Clone, Default)]
pub struct Pairs<'a>(Texts<'a>);

impl Texts<'_> {
    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_whole(&self) -> bool {
        is_whole(self.0, |bytes| str::from_utf8(bytes).is_ok())
    }
}

impl Networks<'_> {
    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_whole(&self) -> bool {
        is_whole(self.0, |bytes| network(bytes).is_some())
    }
}

impl Pairs<'_> {
    /// Whether none is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_whole(&self) -> bool {
        self.0.is_whole() && self.0.clone().count().is_multiple_of(2)
    }
}

/// Whether `rest` consists of length-prefixed runs that all satisfy `is_right`.
fn is_whole(mut rest: &[u8], is_right: impl Fn(&[u8]) -> bool) -> bool {
    while !rest.is_empty() {
        if !varint::take(&mut rest).is_some_and(&is_right) {
            return false;
        }
    }
    true
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        varint::take(&mut self.0).map(text)
    }
}

impl Iterator for Networks<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        varint::take(&mut self.0).and_then(network)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

impl FusedIterator for Texts<'_> {}
impl FusedIterator for Networks<'_> {}
impl FusedIterator for Pairs<'_> {}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        self.packed() == other.packed()
    }
}

impl Eq for Profile {}

impl Hash for Profile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.packed().hash(state);
    }
}

/// `Eq` and `Hash` agree with those of the bytes.
impl Borrow<[u8]> for Profile {
    fn borrow(&self) -> &[u8] {
        self.packed()
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("scopes", &self.scopes().collect::<Vec<_>>())
            .field("audiences", &self.audiences().collect::<Vec<_>>())
            .field("networks", &self.networks().collect::<Vec<_>>())
            .field("metadata", &self.metadata().collect::<Vec<_>>())
            .finish()
    }
}
