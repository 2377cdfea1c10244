//! The limits of what a key may carry, and the form of its networks. The command line,
//! imports and requests all use these limits.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use super::Rights;

/// The longest principal, name, scope or audience of a key or a request, in bytes.
///
/// Fits a URL, a SPIFFE ID of usual length or an e-mail address (254 bytes at most,
/// RFC 5321), and is short enough for any header.
pub const MAX_NAME_BYTES: usize = 256;

/// The maximum number of scopes that one request may require. A request that requires
/// more is a mistake.
pub const MAX_REQUIRED_SCOPES: usize = 64;

/// The maximum number of scopes, of networks and of audiences of one key. Every check
/// compares against all of them, and every response carries the scopes.
pub const MAX_ENTRIES: usize = 256;

/// The maximum number of metadata pairs. Every response carries them: with the two
/// limits below at most 36 KiB.
pub const MAX_METADATA_PAIRS: usize = 32;

/// The longest metadata name, in bytes.
pub const MAX_METADATA_NAME_BYTES: usize = 128;

/// The longest metadata value, in bytes.
pub const MAX_METADATA_VALUE_BYTES: usize = 1024;

/// Rights that no key may have. `Display` names the problem and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RightsError {
    /// A required field is empty.
    #[error("{what} is empty; write 1 to {max} bytes")]
    Empty {
        /// The field.
        what: &'static str,
        /// The maximum length in bytes.
        max: usize,
    },
    /// A field is too long.
    #[error("{what} is {bytes} bytes long; {max} are allowed, so shorten it")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The maximum length in bytes.
        max: usize,
    },
    /// A name contains white space.
    #[error("{what} {name:?} has white space in it; give each one by itself")]
    WhiteSpace {
        /// The field.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name contains a comma, so it is probably a list.
    #[error("{what} {name:?} has a comma in it; give each one by itself")]
    Comma {
        /// The field.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A character is invisible or changes how others are displayed, so that the text
    /// read differs from the text compared.
    #[error("{what} has the invisible character U+{code:04X} in it; remove it", code = u32::from(*.character))]
    Invisible {
        /// The field.
        what: &'static str,
        /// The character.
        character: char,
    },
    /// A list has too many entries.
    #[error("there are {count} {what}; {max} are allowed, so spread them over several keys")]
    TooMany {
        /// The list.
        what: &'static str,
        /// Its number of entries.
        count: usize,
        /// The maximum number of entries.
        max: usize,
    },
    /// The key expires before it becomes valid.
    #[error("it expires before it becomes valid; let `not_before` be the earlier of the two")]
    NeverValid,
}

/// The text is not a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither an address nor an address with a prefix length.
    #[error("{0:?} is no network; write one such as 10.0.0.0/8 or 2001:db8::/32")]
    NotANetwork(String),
    /// Bits are set beyond the prefix, so either the address or the length is wrong.
    #[error(
        "{given} has bits set beyond its prefix; did you mean {given_meant}, or {host} alone?",
        given_meant = .given.trunc(), host = .given.addr()
    )]
    HostBits {
        /// The network as written.
        given: IpNet,
    },
}

/// Parses a network or a single address into the form that client addresses are
/// compared with: IPv4-mapped networks become IPv4 networks.
pub fn parse_network(text: &str) -> Result<IpNet, NetworkError> {
    let network = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(network), _) => network,
        (Err(_), Ok(address)) => IpNet::from(address),
        (Err(_), Err(_)) => {
            return Err(NetworkError::NotANetwork(text.chars().take(MAX_SHOWN).collect()));
        }
    };
    let network = unmapped(network);
    if network.addr() == network.network() {
        Ok(network)
    } else {
        Err(NetworkError::HostBits { given: network })
    }
}

/// Parses a network that others stored, with plain SQL or in an existing table, into
/// the form of [`parse_network`]: an IPv4-mapped network becomes an IPv4 network, an
/// address a network of one; bits beyond the prefix are ignored. `None` if it is not a
/// network.
#[must_use]
pub fn stored_network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse().map(|address: IpAddr| address.into()));
    network.ok().map(|network| unmapped(network).trunc())
}

/// How much of an invalid network an error repeats, in characters: the longest
/// network has 49.
const MAX_SHOWN: usize = 64;

fn unmapped(network: IpNet) -> IpNet {
    /// The prefix length of `::ffff:0:0`.
    const MAPPED: u8 = 96;
    let IpNet::V6(v6) = network else {
        return network;
    };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED));
    mapped
        .and_then(|(address, length)| Ipv4Net::new(address, length).ok())
        .map_or(network, IpNet::V4)
}

impl Rights {
    /// Checks whether a key may have these rights. Returns the first problem.
    pub fn check(&self) -> Result<(), RightsError> {
        named("the principal", &self.principal)?;
        text("the name", &self.name, MAX_NAME_BYTES)?;
        at_most("scopes", self.scopes.len(), MAX_ENTRIES)?;
        self.scopes.iter().try_for_each(|scope| word("the scope", scope))?;
        at_most("networks", self.allowed_networks.len(), MAX_ENTRIES)?;
        at_most("audiences", self.audiences.len(), MAX_ENTRIES)?;
        self.audiences.iter().try_for_each(|audience| word("the audience", audience))?;
        at_most("pairs of metadata", self.metadata.len(), MAX_METADATA_PAIRS)?;
        for (name, value) in &self.metadata {
            filled("a name of metadata", name, MAX_METADATA_NAME_BYTES)?;
            text("a name of metadata", name, MAX_METADATA_NAME_BYTES)?;
            text("a value of metadata", value, MAX_METADATA_VALUE_BYTES)?;
        }
        let begins_after_end =
            self.not_before.zip(self.expires_at).is_some_and(|(start, end)| end <= start);
        if begins_after_end { Err(RightsError::NeverValid) } else { Ok(()) }
    }
}

/// Checks a required name.
fn named(what: &'static str, name: &str) -> Result<(), RightsError> {
    filled(what, name, MAX_NAME_BYTES)?;
    text(what, name, MAX_NAME_BYTES)
}

/// Checks a name that is compared as a whole and listed separated by spaces.
fn word(what: &'static str, name: &str) -> Result<(), RightsError> {
    named(what, name)?;
    if name.contains(char::is_whitespace) {
        return Err(RightsError::WhiteSpace { what, name: name.to_owned() });
    }
    if name.contains(',') {
        return Err(RightsError::Comma { what, name: name.to_owned() });
    }
    Ok(())
}

fn filled(what: &'static str, value: &str, max: usize) -> Result<(), RightsError> {
    if value.is_empty() { Err(RightsError::Empty { what, max }) } else { Ok(()) }
}

fn text(what: &'static str, value: &str, max: usize) -> Result<(), RightsError> {
    if value.len() > max {
        return Err(RightsError::TooLong { what, bytes: value.len(), max });
    }
    match value.chars().find(|character| is_invisible(*character)) {
        Some(character) => Err(RightsError::Invisible { what, character }),
        None => Ok(()),
    }
}

/// Control characters, and formatting characters, which include all that change text
/// direction.
fn is_invisible(character: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    matches!(character.general_category(), Control | Format | LineSeparator | ParagraphSeparator)
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), RightsError> {
    if count > max { Err(RightsError::TooMany { what, count, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn acme() -> Rights {
        Rights { principal: "acme".to_owned(), ..Rights::default() }
    }

    fn refused(change: impl FnOnce(&mut Rights)) -> String {
        let mut rights = acme();
        change(&mut rights);
        rights.check().unwrap_err().to_string()
    }

    #[test]
    fn values_at_their_limit_are_allowed() {
        let name = "é".repeat(MAX_NAME_BYTES / 2);
        let metadata = (0..MAX_METADATA_PAIRS).map(|i| {
            let name = format!("{i:0MAX_METADATA_NAME_BYTES$}");
            (name, "v".repeat(MAX_METADATA_VALUE_BYTES))
        });
        let rights = Rights {
            principal: name.clone(),
            name: name.clone(),
            scopes: vec![name.clone(); MAX_ENTRIES],
            audiences: vec![name; MAX_ENTRIES],
            allowed_networks: vec![parse_network("::/0").unwrap(); MAX_ENTRIES],
            metadata: metadata.collect(),
            not_before: Some(Timestamp::UNIX_EPOCH),
            expires_at: Some(Timestamp::MAX),
        };
        assert_eq!(rights.check(), Ok(()));
        assert_eq!(acme().check(), Ok(()));
    }

    #[test]
    fn values_over_their_limit_are_refused_with_the_limit() {
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for error in [
            refused(|r| r.principal.clone_from(&long)),
            refused(|r| r.name.clone_from(&long)),
            refused(|r| r.scopes.push(long.clone())),
            refused(|r| r.audiences.push(long.clone())),
        ] {
            assert!(error.contains("257 bytes long; 256"), "{error}");
        }
        let pair = |name: usize, value: usize| ("n".repeat(name), "v".repeat(value));
        assert!(refused(|r| r.metadata.extend([pair(129, 1)])).contains("129 bytes long; 128"));
        assert!(refused(|r| r.metadata.extend([pair(1, 1025)])).contains("1025 bytes long; 1024"));
        let many = (0..33).map(|i| (i.to_string(), String::new()));
        assert!(refused(|r| r.metadata.extend(many)).contains("33 pairs of metadata; 32"));
        let scopes = vec!["s".to_owned(); MAX_ENTRIES + 1];
        assert!(refused(|r| r.scopes = scopes).contains("257 scopes; 256"));
    }

    #[test]
    fn empty_or_invisible_text_is_refused() {
        assert!(refused(|r| r.principal.clear()).contains("the principal is empty"));
        assert!(refused(|r| r.scopes.push(String::new())).contains("the scope is empty"));
        let unnamed = (String::new(), "value".to_owned());
        assert!(refused(|r| r.metadata.extend([unnamed])).contains("a name of metadata is empty"));
        for (bad, shown) in [
            ("a\nb", "U+000A"),
            ("a\0b", "U+0000"),
            ("\x1b[31m", "U+001B"),
            ("a\u{85}b", "U+0085"),
            ("acme\u{202e}nimda", "U+202E"),
            ("a\u{2066}b\u{2069}", "U+2066"),
            ("a\u{200b}b", "U+200B"),
            ("a\u{ad}b", "U+00AD"),
            ("\u{feff}a", "U+FEFF"),
            ("a\u{2028}b", "U+2028"),
            ("a\u{2029}b", "U+2029"),
            ("a\u{e0041}b", "U+E0041"),
        ] {
            for error in [
                refused(|r| r.principal = bad.to_owned()),
                refused(|r| r.name = bad.to_owned()),
                refused(|r| r.scopes.push(bad.to_owned())),
                refused(|r| r.audiences.push(bad.to_owned())),
                refused(|r| r.metadata.extend([(bad.to_owned(), String::new())])),
                refused(|r| r.metadata.extend([("a".to_owned(), bad.to_owned())])),
            ] {
                assert!(error.contains(&format!("invisible character {shown} in it")), "{error}");
                assert!(!error.contains(bad), "{error}");
            }
        }
        assert_eq!(Rights { name: "Größe 東京 🗝 ‐".to_owned(), ..acme() }.check(), Ok(()));
    }

    #[test]
    fn scope_or_audience_with_white_space_or_comma_is_refused() {
        let error = refused(|r| r.scopes.push("read write".to_owned()));
        assert_eq!(
            error,
            "the scope \"read write\" has white space in it; give each one by itself"
        );
        assert!(refused(|r| r.audiences.push("a\u{a0}b".to_owned())).contains("white space"));
        let error = refused(|r| r.scopes.push("read,write".to_owned()));
        assert_eq!(error, "the scope \"read,write\" has a comma in it; give each one by itself");
        assert!(refused(|r| r.audiences.push("a,b".to_owned())).contains("comma"));
    }

    #[test]
    fn key_that_expires_before_it_is_valid_is_refused() {
        let error = refused(|r| {
            r.not_before = Some(Timestamp::UNIX_EPOCH);
            r.expires_at = Some(Timestamp::UNIX_EPOCH);
        });
        assert!(error.contains("expires before it becomes valid"), "{error}");
    }

    #[test]
    fn networks_are_parsed_into_canonical_form() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_network(text).map(|n| n.to_string()), Ok(network.to_owned()));
        }
        for text in ["", "10.0.0.0/33", "example.net", "10.0.0.0/8 ", "10.0.0/8"] {
            let error = parse_network(text).unwrap_err().to_string();
            assert!(error.contains("is no network; write one such as"), "{error}");
        }
    }

    #[test]
    fn stored_networks_are_parsed_into_canonical_form() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(stored_network(text).map(|n| n.to_string()), Some(network.to_owned()));
        }
        for text in ["", "10.0.0.0/33", "example.net", "10.0.0.0/8 ", "10.0.0/8"] {
            assert_eq!(stored_network(text), None, "{text}");
        }
    }

    #[test]
    fn network_with_host_bits_is_refused_with_suggestions() {
        let error = parse_network("10.1.2.3/8").unwrap_err().to_string();
        assert_eq!(
            error,
            "10.1.2.3/8 has bits set beyond its prefix; did you mean 10.0.0.0/8, or 10.1.2.3 alone?"
        );
    }
}
