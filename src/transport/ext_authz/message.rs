//! What Envoy asks, read where it is in the frame.

use std::{fmt, net::IpAddr};

use crate::transport::{
    edge::Proxied,
    envoy_pb::{CheckRequest, Entry, HeaderValue, HttpRequest, address::Address},
    needs,
    status::Refusal,
};

/// What the context extensions begin with that are for us.
const OURS: &[u8] = b"keystead.";

/// How much of the name of an unknown one a message repeats, in bytes.
const MAX_SHOWN: usize = 64;

/// The request that Envoy asks about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a>(&'a HttpRequest);

impl<'a> Asked<'a> {
    /// `None` if there is no HTTP request in the message.
    pub(super) fn of(message: &'a CheckRequest) -> Option<Self> {
        message.attributes.as_ref()?.request.as_ref()?.http.as_ref().map(Self)
    }

    /// All headers with their values, in the order in which they came.
    fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let raw = self.0.header_map.as_ref().map_or(&[][..], |map| &map.headers);
        // Envoy writes one of the two.
        let joined = if raw.is_empty() { &self.0.headers[..] } else { &[] };
        let raw = raw.iter().map(|header| (&*header.key, header.bytes()));
        raw.chain(joined.iter().map(|Entry { key, value }| (&**key, &**value)))
    }
}

impl Proxied for Asked<'_> {
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |(its, _): &(&[u8], _)| its.eq_ignore_ascii_case(name.as_bytes());
        self.headers().filter(named).map(|(_, value)| value)
    }

    fn target(&self) -> &[u8] {
        &self.0.path
    }
}

impl HeaderValue {
    /// The value in whichever way it was written.
    fn bytes(&self) -> &[u8] {
        if self.raw_value.is_empty() { &self.value } else { &self.raw_value }
    }
}

/// Which scopes and which audience the route needs, from its context extensions
/// `keystead.scopes` and `keystead.audience`; or why they make no sense. One that is
/// blank, or another one of ours, is a slip: to ignore it would need less than was
/// meant.
pub(super) fn needs(message: &CheckRequest) -> Result<(Vec<String>, &str), Refusal> {
    let (mut scopes, mut audience) = ("", "");
    let extensions = message.attributes.iter().flat_map(|it| &it.context_extensions);
    for Entry { key, value } in extensions {
        let Some(name) = key.strip_prefix(OURS) else { continue };
        // Of several the last counts, as in every map of protobuf.
        let (its_name, place) = match name {
            b"scopes" => ("keystead.scopes", &mut scopes),
            b"audience" => ("keystead.audience", &mut audience),
            _ => return Err(unknown(key)),
        };
        let not_utf8 = |_| Refusal::invalid(format!("`{its_name}` is not UTF-8"));
        *place = needs::not_blank(its_name, str::from_utf8(value).map_err(not_utf8)?)?;
    }
    Ok((needs::scopes(scopes), audience))
}

fn unknown(name: &[u8]) -> Refusal {
    let shown = &name[..name.len().min(MAX_SHOWN)];
    Refusal::invalid(format!(
        "`{}` is no context extension of ours; write `keystead.scopes` or `keystead.audience`",
        shown.escape_ascii()
    ))
}

/// The other end of the connection that the request came on, if it is an IP
/// address.
pub(super) fn source_ip(message: &CheckRequest) -> Option<IpAddr> {
    let address = message.attributes.as_ref()?.source.as_ref()?.address.as_ref()?;
    match address.address.as_ref()? {
        Address::SocketAddress(address) => str::from_utf8(&address.address).ok()?.parse().ok(),
        Address::Pipe(_) | Address::EnvoyInternalAddress(_) => None,
    }
}

/// Leaves out the query, which may hold a key.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { headers, path, header_map } = self;
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        f.debug_struct("HttpRequest")
            .field("headers", headers)
            .field("path", &String::from_utf8_lossy(path))
            .field("header_map", header_map)
            .finish()
    }
}

/// Leaves out the value, which may be a key.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value: _ } = self;
        f.debug_struct("Entry").field("key", key).finish_non_exhaustive()
    }
}

/// Leaves out the value, which may be a key.
impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value: _, raw_value: _ } = self;
        f.debug_struct("HeaderValue").field("key", key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
