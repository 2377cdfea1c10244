//! What a client asked a proxy for, as far as the proxy tells it.

use http::{HeaderValue, request::Parts};

use crate::transport::status::Refusal;

/// The headers in which proxies tell the path and the query that a client asked
/// for: Caddy and Traefik the first, and many configurations of nginx the second.
const HEADERS: [&str; 2] = ["x-forwarded-uri", "x-original-uri"];

/// Whether a proxy tells what a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// By one value, however often it is there.
    Told,
    /// By no header.
    Untold,
}

impl Target {
    /// Looks whether it is told. Of several values that differ nobody could say
    /// which one is a word of the proxy and which one of a client.
    pub(super) fn of(asked: &Parts) -> Result<Self, Refusal> {
        let mut told = told(asked);
        let Some(first) = told.next() else { return Ok(Self::Untold) };
        if told.all(|other| other == first) {
            return Ok(Self::Told);
        }
        let [one, other] = HEADERS;
        Err(Refusal::invalid(format!(
            "{one} and {other} tell more than one URI; let the proxy set one and remove the other"
        )))
    }

    /// What is told when the key is nowhere else: that there is none would blame
    /// the client for what the proxy leaves out.
    pub(super) fn missing() -> Refusal {
        let [one, _] = HEADERS;
        Refusal::invalid(format!(
            "a key may be in the query, which the proxy does not tell; let it set {one}"
        ))
    }
}

/// All values, in the order of the headers.
pub(super) fn told(asked: &Parts) -> impl Iterator<Item = &[u8]> {
    let values = HEADERS.into_iter().flat_map(|name| asked.headers.get_all(name));
    values.map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::builder(), |r, (name, v)| r.header(*name, *v));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn one_value_is_told_however_often_it_is_there() {
        let (forwarded, original) = (("x-forwarded-uri", "/?a"), ("x-original-uri", "/?a"));
        for headers in [&[forwarded][..], &[original], &[forwarded, original, forwarded]] {
            let asked = asked(headers);
            assert_eq!(Target::of(&asked), Ok(Target::Told), "{headers:?}");
            assert_eq!(told(&asked).next(), Some(&b"/?a"[..]));
        }
        assert_eq!(Target::of(&asked(&[("x-other", "/")])), Ok(Target::Untold));
    }

    #[test]
    fn values_that_differ_make_no_sense() {
        for names in [HEADERS, ["x-forwarded-uri"; 2], ["x-original-uri"; 2]] {
            for values in [["/?a", "/?b"], ["/", ""]] {
                let headers = [(names[0], values[0]), (names[1], values[1])];
                let refusal = Target::of(&asked(&headers)).unwrap_err();
                assert_eq!(refusal.reason, "REQUEST_INVALID", "{headers:?}");
                assert!(HEADERS.iter().all(|name| refusal.message().contains(name)));
            }
        }
    }
}
