//! What Envoy asks, read where it is in the frame.
//!
//! Of the many fields of an `envoy.service.auth.v3.CheckRequest` these are read,
//! and the others are skipped:
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
//! A message that comes in parts is read as one, as every reader of Protobuf does;
//! texts need not be UTF-8.

use std::net::IpAddr;

use crate::transport::{
    needs,
    proxied::Proxied,
    status::Refusal,
    wire::{Fields, Malformed, Value},
};

/// What the context extensions begin with that are for us, in whatever case and
/// whatever follows: `Keystead.scopes` and `keystead_scopes` are slips of ours.
const OURS: &[u8] = b"keystead";

/// How much of the name of an unknown one a message repeats, in bytes.
const MAX_SHOWN: usize = 64;

/// How many headers there is place for at first: more than a browser sends.
const HEADERS: usize = 32;

/// What Envoy asks about. It may hold a key, and is never shown.
#[derive(Default)]
pub(super) struct Message<'a> {
    http: Option<HttpRequestView<'a>>,
    source: Source<'a>,
    extensions: Vec<Pair<'a>>,
}

/// The request that Envoy asks about.
#[derive(Default)]
pub(super) struct HttpRequestView<'a> {
    /// Envoy writes these, or those of a `header_map`.
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

/// The other end of the connection that the request came on.
#[derive(Default, Clone, Copy)]
enum Source<'a> {
    #[default]
    NotTold,
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

    /// `None` if there is no HTTP request in the message.
    pub(super) const fn asked(&self) -> Option<&HttpRequestView<'a>> {
        self.http.as_ref()
    }

    /// Which scopes, with spaces between them, and which audience the route needs,
    /// from its context extensions `keystead.scopes` and `keystead.audience`; or why
    /// they make no sense. One that is blank, or another one of ours, is a slip: to
    /// ignore it would need less than was meant.
    pub(super) fn needs(&self) -> Result<(&'a str, &'a str), Refusal> {
        let (mut scopes, mut audience) = ("", "");
        for Pair { key, value } in &self.extensions {
            // Of several the last counts, as in every map of protobuf.
            let (its_name, place) = match *key {
                b"keystead.scopes" => ("keystead.scopes", &mut scopes),
                b"keystead.audience" => ("keystead.audience", &mut audience),
                key if is_ours(key) => return Err(unknown(key)),
                _ => continue,
            };
            let not_utf8 = |_| Refusal::invalid(format!("`{its_name}` is not UTF-8"));
            *place = needs::not_blank(its_name, str::from_utf8(value).map_err(not_utf8)?)?;
        }
        Ok((scopes, audience))
    }

    /// The other end of the connection that the request came on, if it is an IP
    /// address.
    pub(super) fn source_ip(&self) -> Option<IpAddr> {
        match self.source {
            Source::Socket { address } => str::from_utf8(address).ok()?.parse().ok(),
            Source::NotTold | Source::Other => None,
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

    /// All headers with their values, in the order in which they came.
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
    /// An entry of a map.
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

    /// A header of a `header_map`, with its value in whichever way it was written.
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
    /// The last of several kinds of address counts.
    fn read(&mut self, address: &'a [u8]) -> Result<(), Malformed> {
        each(address, |number, value| {
            match number {
                1 => {
                    let mut address = match *self {
                        Self::Socket { address } => address,
                        Self::NotTold | Self::Other => &[],
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
        pairs.reserve(HEADERS);
    }
    pairs.push(pair);
}

/// Hands each field of a message to `take`.
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

fn is_ours(name: &[u8]) -> bool {
    let begins = name.trim_ascii_start().first_chunk::<{ OURS.len() }>();
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(OURS))
}

fn unknown(name: &[u8]) -> Refusal {
    let shown = &name[..name.len().min(MAX_SHOWN)];
    Refusal::invalid(format!(
        "`{}` is no context extension of ours; write `keystead.scopes` or `keystead.audience`",
        shown.escape_ascii()
    ))
}

#[cfg(test)]
mod tests;
