//! Parses Envoy's request in place, without copying it.
//!
//! Of the many fields of an `envoy.service.auth.v3.CheckRequest` these are read, and the others are
//! skipped:
//!
//! ```text
//! CheckRequest.attributes 1
//!   source 1 . address 1            oneof: socket_address 1 . address 2, pipe 2, envoy_internal_address 3
//!   request 4 . http 2
//!     headers 3                     map: key 1, value 2
//!     path 4
//!     header_map 13 . headers 1     key 1, value 2, raw_value 3
//!   context_extensions 10           map: key 1, value 2
//! ```
//!
//! Messages split over several fields are merged, as Protobuf requires; strings need not be UTF-8.

use std::net::IpAddr;

use crate::transport::{
    needs,
    proxied::Proxied,
    status::Refusal,
    wire::{Fields, Malformed, Value},
};

/// Prefix of Keystead's context extensions, in any case and whatever follows: `Keystead.scopes` and
/// `keystead_scopes` are misspellings of them.
const PREFIX: &[u8] = b"keystead";

/// How many bytes of an unknown extension's name an error message repeats.
const MAX_SHOWN: usize = 64;

/// Initial capacity for headers: more than a browser sends.
const HEADERS_CAPACITY: usize = 32;

/// A `CheckRequest` of Envoy. It may hold a key, so it has no `Debug`.
#[derive(Default)]
pub(super) struct Message<'a> {
    http: Option<HttpRequestView<'a>>,
    source: Source<'a>,
    extensions: Vec<Pair<'a>>,
}

/// The HTTP request to check.
#[derive(Default)]
pub(super) struct HttpRequestView<'a> {
    /// Envoy fills either this or `raw`, the headers of a `header_map`.
    joined: Vec<Pair<'a>>,
    raw: Vec<Pair<'a>>,
    path: &'a [u8],
}

/// A name and its value.
#[derive(Default, Clone, Copy)]
struct Pair<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

/// The peer of the connection on which the request arrived.
#[derive(Default, Clone, Copy)]
enum Source<'a> {
    #[default]
    Unset,
    Socket {
        address: &'a [u8],
    },
    Other,
}

impl<'a> Message<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        each(message, |number, value| match number {
            1 => read.attributes(value.bytes()?),
            _ => Ok(()),
        })?;
        Ok(read)
    }

    fn attributes(&mut self, attributes: &'a [u8]) -> Result<(), Malformed> {
        each(attributes, |number, value| match number {
            1 => self.peer(value.bytes()?),
            4 => self.request(value.bytes()?),
            10 => {
                self.extensions.push(Pair::read(value.bytes()?)?);
                Ok(())
            }
            _ => Ok(()),
        })
    }

    fn peer(&mut self, peer: &'a [u8]) -> Result<(), Malformed> {
        each(peer, |number, value| match number {
            1 => self.source.read(value.bytes()?),
            _ => Ok(()),
        })
    }

    fn request(&mut self, request: &'a [u8]) -> Result<(), Malformed> {
        each(request, |number, value| match number {
            2 => self.http.get_or_insert_default().read(value.bytes()?),
            _ => Ok(()),
        })
    }

    /// The HTTP request; `None` if the message has none.
    pub(super) const fn http(&self) -> Option<&HttpRequestView<'a>> {
        self.http.as_ref()
    }

    /// The scopes, separated by spaces, and the audience that the route requires, from its context
    /// extensions `keystead.scopes` and `keystead.audience`. A blank one, or another one with
    /// Keystead's prefix, is an error: ignoring a misspelling would require less than intended.
    pub(super) fn needs(&self) -> Result<(&'a str, &'a str), Refusal> {
        let (mut scopes, mut audience) = ("", "");
        for Pair { key, value } in &self.extensions {
            // The last of several entries counts, as in every Protobuf map.
            let (name, slot) = match *key {
                b"keystead.scopes" => ("keystead.scopes", &mut scopes),
                b"keystead.audience" => ("keystead.audience", &mut audience),
                key if has_prefix(key) => return Err(unknown(key)),
                _ => continue,
            };
            let not_utf8 = |_| Refusal::invalid(format!("`{name}` is not UTF-8"));
            *slot = needs::not_blank(name, str::from_utf8(value).map_err(not_utf8)?)?;
        }
        Ok((scopes, audience))
    }

    /// The address of the peer of the connection on which the request arrived, if it is an IP
    /// address.
    pub(super) fn source_ip(&self) -> Option<IpAddr> {
        match self.source {
            Source::Socket { address } => str::from_utf8(address).ok()?.parse().ok(),
            Source::Unset | Source::Other => None,
        }
    }
}

impl<'a> HttpRequestView<'a> {
    fn read(&mut self, http: &'a [u8]) -> Result<(), Malformed> {
        each(http, |number, value| {
            match number {
                3 => push(&mut self.joined, Pair::read(value.bytes()?)?),
                4 => self.path = value.bytes()?,
                13 => each(value.bytes()?, |number, value| {
                    if number == 1 {
                        push(&mut self.raw, Pair::read_raw(value.bytes()?)?);
                    }
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })
    }

    /// All headers in the order of arrival.
    fn headers(&self) -> &[Pair<'a>] {
        if self.raw.is_empty() { &self.joined } else { &self.raw }
    }
}

impl Proxied for HttpRequestView<'_> {
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = |it: &&Pair<'_>| it.key.eq_ignore_ascii_case(name.as_bytes());
        self.headers().iter().filter(named).map(|it| it.value)
    }

    fn target(&self) -> &[u8] {
        self.path
    }
}

impl<'a> Pair<'a> {
    /// Parses a map entry.
    fn read(entry: &'a [u8]) -> Result<Self, Malformed> {
        let mut pair = Self::default();
        each(entry, |number, value| {
            match number {
                1 => pair.key = value.bytes()?,
                2 => pair.value = value.bytes()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(pair)
    }

    /// Parses a header of a `header_map`, whose value is in either of two fields.
    fn read_raw(header: &'a [u8]) -> Result<Self, Malformed> {
        let (mut pair, mut raw): (Self, &[u8]) = (Self::read(header)?, &[]);
        each(header, |number, value| {
            if number == 3 {
                raw = value.bytes()?;
            }
            Ok(())
        })?;
        if !raw.is_empty() {
            pair.value = raw;
        }
        Ok(pair)
    }
}

impl<'a> Source<'a> {
    /// Parses an address; the last of several kinds counts.
    fn read(&mut self, address: &'a [u8]) -> Result<(), Malformed> {
        each(address, |number, value| {
            match number {
                1 => {
                    let mut address = match *self {
                        Self::Socket { address } => address,
                        Self::Unset | Self::Other => &[],
                    };
                    each(value.bytes()?, |number, value| {
                        if number == 2 {
                            address = value.bytes()?;
                        }
                        Ok(())
                    })?;
                    *self = Self::Socket { address };
                }
                2 | 3 => {
                    value.bytes()?;
                    *self = Self::Other;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

fn push<'a>(pairs: &mut Vec<Pair<'a>>, pair: Pair<'a>) {
    if pairs.is_empty() {
        pairs.reserve(HEADERS_CAPACITY);
    }
    pairs.push(pair);
}

/// Calls `take` with each field of a message.
fn each<'a>(
    message: &'a [u8],
    mut take: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for field in Fields::of(message) {
        let (number, value) = field?;
        take(number, value)?;
    }
    Ok(())
}

fn has_prefix(name: &[u8]) -> bool {
    let begins = name.trim_ascii_start().first_chunk::<{ PREFIX.len() }>();
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(PREFIX))
}

fn unknown(name: &[u8]) -> Refusal {
    let shown = &name[..name.len().min(MAX_SHOWN)];
    Refusal::invalid(format!(
        "`{}` is no context extension of Keystead; write `keystead.scopes` or `keystead.audience`",
        shown.escape_ascii()
    ))
}

#[cfg(test)]
mod tests;
