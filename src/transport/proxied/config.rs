//! Configuration of the surfaces for proxies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CredentialSources;

/// Where a proxied request carries its key, for Envoy (`ext_authz`) and for `/auth` alike.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialConfig {
    /// Where to look for the key, in this order: `authorization:SCHEME` is what follows the scheme
    /// in the header `authorization`, `header:NAME` a header, `query:NAME` a query parameter,
    /// `cookie:NAME` a cookie. The first non-empty source wins. A source with more than one value,
    /// such as a header that was sent twice, is answered with `CREDENTIAL_MALFORMED`. Proxies join
    /// the values of a repeated header with a comma, so a key that contains a comma is only
    /// possible in `query:NAME`. The name of a query parameter consists of letters, digits, `-`,
    /// `.`, `_` and `~`. Headers that proxies or Keystead write, or that shape the response, such
    /// as `accept`, cannot be sources. At most 8.
    pub sources: CredentialSources,
}

/// Envoy's `ext_authz` filter, served on `listen.grpc`.
///
/// The `context_extensions` of a route hold its requirements: `keystead.scopes`, separated by
/// spaces, and `keystead.audience`. A blank one, scopes with a comma, and any other that begins
/// with `keystead` in whatever case, are answered with `REQUEST_INVALID`: ignoring a misspelling
/// would let every key in.
///
/// The message size limit is 256 KiB, or `grpc.max_message_bytes` if that is more: Envoy sends a
/// path twice and allows headers of 60 KiB in total. A larger message is answered with 431, so
/// where `max_request_headers_kb` is raised, raise `grpc.max_message_bytes` to more than twice
/// that; at 8192, its maximum, a path of nearly 8 MiB is still too long. A body
/// (`with_request_body`) is ignored but counts too, so leave it out.
///
/// Every response that lets a request through tells Envoy to remove identity headers that are
/// spelled with `_` for `-`, which some servers take for the same. Where Envoy itself lets a
/// request through, by `failure_mode_allow`, nothing is removed, so remove `x-keystead-*` and
/// `x_keystead_*` before this filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtAuthzConfig {
    /// How a check without a decision is reported to Envoy.
    pub on_outage: OnOutage,
    /// Whether Envoy removes the key from the request, from all `credential.sources`, so that the
    /// upstream does not see it. A header is also removed under its names with `_` for `-`: under
    /// all of them, or under the one without any `-` if there are more than 4. Not covered, as no
    /// key is looked for there: cookies and parameters whose name is in another case, parameters
    /// separated by `;`, and cookies whose name is percent-encoded. Where a query parameter is
    /// removed, Envoy rewrites the query: ordered by name, and `?flag` as `?flag=`. Where a cookie
    /// is removed, the header is rewritten without cookies that are not UTF-8.
    pub remove_credential: bool,
    /// Which address is the client's, for keys that are restricted to networks. `0` is the source
    /// address that Envoy sends: that of the connection. `n` is the `n`th address in
    /// `x-forwarded-for`, counted from the right: `1` is the address that Envoy itself adds
    /// (`use_remote_address`), `2` the one that a proxy before Envoy adds. Addresses further left
    /// may be forged. With fewer addresses than `n` the client's is unknown, and a key that is
    /// restricted to networks is refused.
    #[schemars(range(max = 32))]
    pub trusted_hops: u8,
}

/// How a check without a decision is reported to Envoy: the store is down, this instance is
/// overloaded, or there is a bug.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// As an error with Keystead's own 503. Envoy counts it in `ext_authz.error` and lets the
    /// request through if `failure_mode_allow` is set. Before Envoy 1.37, which introduced it, it
    /// is treated as `denied_response`.
    #[default]
    ErrorResponse,
    /// As a refusal with Keystead's own 503, in every version of Envoy. It is counted in
    /// `ext_authz.denied`, and never lets a request through.
    DeniedResponse,
    /// As a failed call. Envoy answers with `status_on_error`, which is 403 if not set, and lets
    /// the request through if `failure_mode_allow` is set.
    GrpcStatus,
}

/// Forward-auth for proxies that check requests over HTTP, such as nginx, Caddy and Traefik: the
/// path `/auth`, on `listen.admin` or `listen.forward_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardAuthConfig {
    /// Which address is the client's, for keys that are restricted to networks. `n` is the `n`th
    /// address in `x-forwarded-for`, counted from the right: `1` is the address that the calling
    /// proxy adds. `0` is the address of that proxy. Addresses further left may be forged. With
    /// fewer addresses than `n` the client's is unknown, and a key that is restricted to networks
    /// is refused.
    #[schemars(range(max = 32))]
    pub trusted_hops: u8,
}

impl Default for ForwardAuthConfig {
    fn default() -> Self {
        Self { trusted_hops: 1 }
    }
}
