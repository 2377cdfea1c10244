//! What the surfaces behind proxies have in common: where a request carries its
//! key and its client's address, and how an answer reads as HTTP. Pure.
//!
//! Each surface shows its requests through [`Proxied`].

mod client;
mod config;
mod cookie;
mod credential;
pub(super) mod identity;
mod reply;
mod source;

pub(super) use client::client_ip;
pub use config::{CredentialConfig, ExtAuthzConfig, ForwardAuthConfig, OnOutage};
pub(super) use credential::{Removal, token};
pub(super) use reply::{Form, HttpRefusal, json_body};
pub use source::{CredentialSources, SourcesError};

/// The header in which proxies note where a request came from, one address
/// after the other.
pub(super) const FORWARDED_FOR: &str = "x-forwarded-for";

/// A request that a proxy has received and asks about.
pub(super) trait Proxied {
    /// All values of a header in the order in which they came, by its name in
    /// lower case. Several values may have become one with a comma between them.
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;

    /// The path with the query, as it came.
    fn target(&self) -> &[u8];
}

/// A list in one header or in several (RFC 9110, 5.3): its items without the
/// white space around them. An item may be empty.
fn items<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(trimmed)
}

/// Without the white space that HTTP allows around a value and is no part of it: spaces
/// and tabs (RFC 9110, 5.6.3). Whatever else is there was sent as a part of it.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

#[cfg(test)]
mod fixture;
