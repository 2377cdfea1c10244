//! The address of a client, as far as proxies are trusted.

use std::net::{IpAddr, SocketAddr};

use super::{FORWARDED_FOR, Proxied, items};

/// The address of a client: entry `hops` of `x-forwarded-for`, counted from the right, or that of
/// the `peer` if `hops` is 0.
///
/// Each proxy appends an address on the right, so a client can forge entries on the left but not
/// the entry of a trusted proxy. `None` means unknown, if that entry is missing or is not an
/// address: no other address replaces it, least of all that of the proxy, to which a key may be
/// restricted.
pub(in crate::transport) fn client_ip(
    request: &impl Proxied,
    hops: u8,
    peer: Option<IpAddr>,
) -> Option<IpAddr> {
    let Some(skipped) = usize::from(hops).checked_sub(1) else { return peer };
    let values = || request.header(FORWARDED_FOR).filter(|value| !value.trim_ascii().is_empty());
    let position = items(values()).count().checked_sub(skipped + 1)?;
    items(values()).nth(position).and_then(address)
}

/// Parses an address with or without a port. An IPv6 address with a port is in brackets; one
/// without may be.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(item).ok()?;
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().map(IpAddr::V6).ok();
    let address = text.parse().ok().or_else(in_brackets);
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::proxied::fixture::Request;

    const PEER: &str = "192.0.2.9";

    fn client(values: &[&str], hops: u8) -> Option<String> {
        let with = |request: Request, value: &&str| request.with(FORWARDED_FOR, value);
        let request = values.iter().fold(Request::default(), with);
        client_ip(&request, hops, Some(PEER.parse().unwrap())).map(|ip| ip.to_string())
    }

    #[test]
    fn client_is_counted_from_the_right_across_all_headers() {
        let values = ["203.0.113.1, 203.0.113.2", "203.0.113.3 ,203.0.113.4"];
        for (hops, ip) in [
            (0, Some(PEER)),
            (1, Some("203.0.113.4")),
            (2, Some("203.0.113.3")),
            (3, Some("203.0.113.2")),
            (4, Some("203.0.113.1")),
            (5, None),
            (32, None),
        ] {
            assert_eq!(client(&values, hops).as_deref(), ip, "{hops}");
        }
    }

    #[test]
    fn client_is_unknown_with_fewer_entries_than_trusted_hops() {
        for values in [&[][..], &[""], &[" ", "\t"]] {
            assert_eq!(client(values, 1), None);
            assert_eq!(client(values, 0).as_deref(), Some(PEER), "the header is ignored");
        }
    }

    #[test]
    fn forged_entries_do_not_shift_the_trusted_one() {
        for made_up in ["10.0.0.1", "", ",", "10.0.0.1, ", "unknown, \"", "[", "10.0.0.1,,,"] {
            let seen = client(&[made_up, "203.0.113.7"], 1);
            assert_eq!(seen.as_deref(), Some("203.0.113.7"), "{made_up}");
            let seen = client(&[&format!("{made_up}, 203.0.113.7")], 1);
            assert_eq!(seen.as_deref(), Some("203.0.113.7"), "{made_up}");
        }
    }

    #[test]
    fn every_notation_of_an_address_is_parsed() {
        for (text, ip) in [
            ("203.0.113.1", "203.0.113.1"),
            ("203.0.113.1:8080", "203.0.113.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:8080", "2001:db8::1"),
            ("::ffff:203.0.113.1", "::ffff:203.0.113.1"),
        ] {
            assert_eq!(client(&[text], 1).as_deref(), Some(ip), "{text}");
        }
    }

    #[test]
    fn client_is_unknown_if_the_trusted_entry_is_not_an_address() {
        for text in [
            "unknown",
            "203.0.113",
            "203.0.113.1:",
            "203.0.113.1:x",
            "[203.0.113.1]",
            "2001:db8::1]",
            "[2001:db8::1",
            "\"203.0.113.1\"",
            "203.0.113.1 203.0.113.2",
            "0xcb007101",
            "203.0.113.01",
        ] {
            assert_eq!(client(&["203.0.113.8", text], 1), None, "{text}");
        }
        // An empty entry counts, if there are others.
        assert_eq!(client(&["203.0.113.8,"], 1), None);
        assert_eq!(client(&["203.0.113.8,"], 2).as_deref(), Some("203.0.113.8"));
    }

    proptest! {
        #[test]
        fn last_trusted_entry_counts_whatever_precedes_it(
            noise in prop::collection::vec(any::<u8>(), 0..60), hops in 0..6_u8,
        ) {
            let request = Request::default().with(FORWARDED_FOR, noise);
            let _ = client_ip(&request, hops, None);
            let request = request.with(FORWARDED_FOR, "198.51.100.1");
            prop_assert_eq!(client_ip(&request, 1, None), "198.51.100.1".parse().ok());
        }

        #[test]
        fn every_formatted_address_is_parsed(ip in any::<IpAddr>(), port in any::<u16>()) {
            for text in [ip.to_string(), SocketAddr::new(ip, port).to_string()] {
                prop_assert_eq!(address(text.as_bytes()), Some(ip));
            }
        }
    }
}
