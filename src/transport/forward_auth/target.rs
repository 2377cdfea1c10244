//! The target of the client's request, as the proxy reports it.

use http::{HeaderValue, request::Parts};

use crate::transport::status::Refusal;

/// The headers in which proxies send the path and the query of the client's request: Caddy and
/// Traefik use the first, many nginx configurations the second.
const HEADERS: [&str; 2] = ["x-forwarded-uri", "x-original-uri"];

/// Whether the proxy sent the target of the client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// One value, in one header or repeated.
    Present,
    /// No header.
    Missing,
}

impl Target {
    /// Looks for the target. Several different values are an error: nothing shows which one is from
    /// the proxy and which from a client.
    pub(super) fn of(parts: &Parts) -> Result<Self, Refusal> {
        let mut values = values(parts);
        let Some(first) = values.next() else { return Ok(Self::Missing) };
        if values.all(|other| other == first) {
            return Ok(Self::Present);
        }
        let [one, other] = HEADERS;
        Err(Refusal::invalid(format!(
            "{one} and {other} hold different URIs; let the proxy set one and remove the other"
        )))
    }

    /// The refusal when no other source has a key: a missing credential would blame the client for
    /// what the proxy omits.
    pub(super) fn missing() -> Refusal {
        let [one, _] = HEADERS;
        Refusal::invalid(format!(
            "a key may be in the query, which the proxy does not send; let it set {one}"
        ))
    }
}

/// All values, in the order of `HEADERS`.
pub(super) fn values(parts: &Parts) -> impl Iterator<Item = &[u8]> {
    let values = HEADERS.into_iter().flat_map(|name| parts.headers.get_all(name));
    values.map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::builder(), |r, (name, v)| r.header(*name, *v));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn repeated_equal_values_count_as_one() {
        let (forwarded, original) = (("x-forwarded-uri", "/?a"), ("x-original-uri", "/?a"));
        for headers in [&[forwarded][..], &[original], &[forwarded, original, forwarded]] {
            let parts = parts(headers);
            assert_eq!(Target::of(&parts), Ok(Target::Present), "{headers:?}");
            assert_eq!(values(&parts).next(), Some(&b"/?a"[..]));
        }
        assert_eq!(Target::of(&parts(&[("x-other", "/")])), Ok(Target::Missing));
    }

    #[test]
    fn different_values_are_refused() {
        for names in [HEADERS, ["x-forwarded-uri"; 2], ["x-original-uri"; 2]] {
            for values in [["/?a", "/?b"], ["/", ""]] {
                let headers = [(names[0], values[0]), (names[1], values[1])];
                let refusal = Target::of(&parts(&headers)).unwrap_err();
                assert_eq!(refusal.reason, "REQUEST_INVALID", "{headers:?}");
                assert!(HEADERS.iter().all(|name| refusal.message().contains(name)));
            }
        }
    }
}
