//! What a service asks.

use std::net::IpAddr;

use crate::transport::{
    status::Refusal,
    wire::{Fields, Malformed, Value},
};

/// A `CheckRequest`, read where it is.
#[derive(Default)]
pub(super) struct CheckRequestView<'a> {
    pub(super) api_key: &'a str,
    pub(super) required_scopes: Vec<&'a str>,
    pub(super) client_ip: &'a str,
    pub(super) audience: &'a str,
}

impl<'a> CheckRequestView<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let mut asked = Self::default();
        for field in Fields::of(message) {
            asked.take(field).map_err(|Malformed| {
                Refusal::invalid("the message is no `keystead.v1.CheckRequest`")
            })?;
        }
        Ok(asked)
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

/// Where the client is, from a text that is empty if that is not known.
pub(in crate::transport) fn client_ip(text: &str) -> Result<Option<IpAddr>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let told = text.parse().map(Some);
    told.map_err(|_| Refusal::invalid("client_ip is not an IPv4 or IPv6 address without a port"))
}
