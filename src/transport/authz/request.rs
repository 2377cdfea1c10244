//! Parses the request of `Authz/Check`.

use std::net::IpAddr;

use crate::transport::{
    status::Refusal,
    wire::{Fields, Malformed, Value},
};

/// A `CheckRequest`, borrowed from the received message.
#[derive(Default)]
pub(super) struct CheckRequestView<'a> {
    pub(super) api_key: &'a str,
    pub(super) required_scopes: Vec<&'a str>,
    pub(super) client_ip: &'a str,
    pub(super) audience: &'a str,
}

impl<'a> CheckRequestView<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let mut request = Self::default();
        for field in Fields::of(message) {
            request.take(field).map_err(|Malformed| {
                Refusal::invalid("the message is no `keystead.v1.CheckRequest`")
            })?;
        }
        Ok(request)
    }

    fn take(&mut self, field: Result<(u32, Value<'a>), Malformed>) -> Result<(), Malformed> {
        let (number, value) = field?;
        match number {
            1 => self.api_key = value.text()?,
            2 => self.required_scopes.push(value.text()?),
            3 => self.client_ip = value.text()?,
            4 => self.audience = value.text()?,
            _ => {}
        }
        Ok(())
    }
}

/// Parses the client address; an empty text means unknown.
pub(in crate::transport) fn client_ip(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| Refusal::invalid("client_ip is not an IPv4 or IPv6 address without a port"))
}
