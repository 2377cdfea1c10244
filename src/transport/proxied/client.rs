//! Where a client is, as far as proxies can be trusted.

use std::net::{IpAddr, SocketAddr};

use super::{FORWARDED_FOR, Proxied, items};

/// The address of a client: the one at place `hops` of `x-forwarded-for`, counted
/// from the right, or that of the `peer` if `hops` is 0.
///
/// Each proxy adds an address at the right, so that a client can write what it
/// likes at the left and nothing at the place of a proxy that is trusted. `None`,
/// not known, if there is no address at that place: no other one takes its place,
/// above all not that of the proxy, which a key may be restricted to.
pub(in crate::transport) fn client_ip(
    request: &impl Proxied,
    hops: u8,
    peer: Option<IpAddr>,
) -> Option<IpAddr> {
    let Some(behind) = usize::from(hops).checked_sub(1) else { return peer };
    let values = || request.header(FORWARDED_FOR).filter(|value| !value.trim_ascii().is_empty());
    let position = items(values()).count().checked_sub(behind + 1)?;
    items(values()).nth(position).and_then(address)
}

/// An address with or without a port; an IPv6 address with a port, and maybe one
/// without, is in brackets.
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
    fn the_client_is_counted_from_the_right_over_all_headers() {
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
    fn with_fewer_entries_than_trusted_hops_the_client_is_not_known() {
        for values in [&[][..], &[""], &[" ", "\t"]] {
            assert_eq!(client(values, 1), None);
            assert_eq!(client(values, 0).as_deref(), Some(PEER), "the header does not count");
        }
    }

    #[test]
    fn what_a_client_writes_moves_no_trusted_place() {
        for made_up in ["10.0.0.1", "", ",", "10.0.0.1, ", "unknown, \"", "[", "10.0.0.1,,,"] {
            let seen = client(&[made_up, "203.0.113.7"], 1);
            assert_eq!(seen.as_deref(), Some("203.0.113.7"), "{made_up}");
            let seen = client(&[&format!("{made_up}, 203.0.113.7")], 1);
            assert_eq!(seen.as_deref(), Some("203.0.113.7"), "{made_up}");
        }
    }

    #[test]
    fn every_way_to_write_an_address_is_read() {
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
    fn what_is_no_address_at_the_trusted_place_is_not_known() {
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
        // An empty entry is one too, if there are others.
        assert_eq!(client(&["203.0.113.8,"], 1), None);
        assert_eq!(client(&["203.0.113.8,"], 2).as_deref(), Some("203.0.113.8"));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_last_trusted_entry_stands(
            noise in prop::collection::vec(any::<u8>(), 0..60), hops in 0..6_u8,
        ) {
            let request = Request::default().with(FORWARDED_FOR, noise);
            let _ = client_ip(&request, hops, None);
            let request = request.with(FORWARDED_FOR, "198.51.100.1");
            prop_assert_eq!(client_ip(&request, 1, None), "198.51.100.1".parse().ok());
        }

        #[test]
        fn every_address_is_read_as_it_is_written(ip in any::<IpAddr>(), port in any::<u16>()) {
            for text in [ip.to_string(), SocketAddr::new(ip, port).to_string()] {
                prop_assert_eq!(address(text.as_bytes()), Some(ip));
            }
        }
    }
}
