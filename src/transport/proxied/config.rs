//! What proxies are set up to send, and how they are answered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CredentialSources;

/// Where a request that a proxy asks about carries its key, for Envoy
/// (`ext_authz`) and for `/auth` alike.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialConfig {
    /// Where to look, the first first: `authorization:SCHEME` is what follows the
    /// scheme in the header `authorization`, `header:NAME` a header, `query:NAME` a
    /// query parameter, `cookie:NAME` a cookie. The first that holds something
    /// wins. One that holds more than one thing, such as a header that was sent
    /// twice, is told as `CREDENTIAL_MALFORMED`. Proxies write the values of a
    /// repeated header with a comma between them, so that a key with a comma in it
    /// has no place but `query:NAME`. The name of a query parameter has letters,
    /// digits, `-`, `.`, `_` and `~` in it. A header that proxies or Keystead write,
    /// or by which an answer is made, such as `accept`, holds no key. At most 8.
    pub sources: CredentialSources,
}

/// Answers to Envoy's `ext_authz` filter, on `listen.grpc`.
///
/// What a route needs is told in its `context_extensions`: `keystead.scopes`, with
/// spaces between them, and `keystead.audience`. One that is blank, scopes with a comma,
/// and any other that begins with `keystead` in whatever case, are told as
/// `REQUEST_INVALID`: to ignore a slip would let everyone in.
///
/// A message of 256 KiB is read, or of `grpc.max_message_bytes` if that is more:
/// Envoy tells a path twice and allows headers of 60 KiB in all. A larger message is
/// answered with 431, so where `max_request_headers_kb` is raised, raise
/// `grpc.max_message_bytes` to more than twice that; at 8192, its maximum, a path of
/// nearly 8 MiB is still too long. A body (`with_request_body`) is not looked at and
/// counts too, so leave it out.
///
/// Whatever the request, Envoy is told to remove the identity headers that are
/// spelled with `_` for `-`, which some servers take for the same. It is told so in
/// an answer that lets a request through; where Envoy itself does that, by
/// `failure_mode_allow`, nothing is removed, so remove `x-keystead-*` and
/// `x_keystead_*` before this filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtAuthzConfig {
    /// How Envoy is told that a check has no answer.
    pub on_outage: OnOutage,
    /// Whether Envoy is told to remove the key from the request, out of all
    /// `credential.sources`, so that the upstream does not see it. A header is also
    /// removed under its names with `_` for `-`: under all of them, or under the one
    /// without any `-` if there are more than 4. What is not covered, as it is no
    /// place in which a key is looked for: cookies and parameters whose name is in
    /// another case, parameters with a `;` between them, and cookies whose name is
    /// percent-encoded. Where a query parameter is removed, Envoy writes the query
    /// anew: ordered by name, and `?flag` as `?flag=`. Where a cookie is removed, the
    /// header is written anew without cookies that are not UTF-8.
    pub remove_credential: bool,
    /// Which address is the client's, for keys that are restricted to networks.
    /// With `0` it is the source address that Envoy tells: that of the connection.
    /// With `n` it is the `n`th address in `x-forwarded-for`, counted from the
    /// right: `1` is the address that Envoy itself has put there
    /// (`use_remote_address`), `2` the one that a proxy before Envoy has put there.
    /// What is further left may be made up. With fewer addresses than `n` the
    /// client's is not known, and a key that is restricted to networks is refused.
    #[schemars(range(max = 32))]
    pub trusted_hops: u8,
}

/// How Envoy is told that a check has no answer: the store is down, this
/// instance is full, or there is a bug.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// As an error with a 503 of our own. Envoy counts it in `ext_authz.error`
    /// and lets the request through if `failure_mode_allow` is set. Before Envoy
    /// 1.37, which brought this, it is taken as `denied_response`.
    #[default]
    ErrorResponse,
    /// As a refusal with a 503 of our own, in every version of Envoy. It is
    /// counted in `ext_authz.denied`, and never lets a request through.
    DeniedResponse,
    /// As a failed call. Envoy answers with `status_on_error`, which is 403 where
    /// it is not set, and lets the request through if `failure_mode_allow` is set.
    GrpcStatus,
}

/// Answers to proxies that ask over HTTP, such as nginx, Caddy and Traefik: the
/// path `/auth`, on `listen.admin` or `listen.forward_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ForwardAuthConfig {
    /// Which address is the client's, for keys that are restricted to networks.
    /// With `n` it is the `n`th address in `x-forwarded-for`, counted from the
    /// right: `1` is the address that the proxy which asks has put there. With `0` it
    /// is that of the proxy. What is further left may be made up. With fewer addresses
    /// than `n` the client's is not known, and a key that is restricted to networks is
    /// refused.
    #[schemars(range(max = 32))]
    pub trusted_hops: u8,
}

impl Default for ForwardAuthConfig {
    fn default() -> Self {
        Self { trusted_hops: 1 }
    }
}
