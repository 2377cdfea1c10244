//! Shared parts of the surfaces for proxies: where a request carries its key and its client's
//! address, and how a refusal is rendered as HTTP. Pure.
//!
//! Each surface implements [`Proxied`] for its requests.

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

/// The header in which proxies list the addresses that a request came through.
pub(super) const FORWARDED_FOR: &str = "x-forwarded-for";

/// A request that a proxy received and asks to have checked.
pub(super) trait Proxied {
    /// All values of a header in the order of arrival, by its lower-case name. Several values may
    /// have been joined into one with commas.
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]>;

    /// The path with the query, as received.
    fn target(&self) -> &[u8];
}

/// The items of a list in one header or in several (RFC 9110, 5.3), trimmed. An item may be empty.
fn items<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| value.split(|byte| *byte == b',')).map(trimmed)
}

/// Trims the white space that HTTP allows around a value: spaces and tabs (RFC 9110, 5.6.3). Other
/// characters are part of the value.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

#[cfg(test)]
mod fixture;
