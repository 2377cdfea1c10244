//! Validates what a request requires of a key, with the same limits on every surface.

use std::net::IpAddr;

use super::status::Refusal;
use crate::{
    check::Needs,
    key::{MAX_NAME_BYTES, MAX_REQUIRED_SCOPES},
};

/// The requirements of a request. An empty audience means none.
pub(super) fn needs<'a>(
    scopes: &'a [&'a str],
    client_ip: Option<IpAddr>,
    audience: &'a str,
) -> Result<Needs<'a>, Refusal> {
    if scopes.len() > MAX_REQUIRED_SCOPES {
        return Err(Refusal::invalid(format!(
            "at most {MAX_REQUIRED_SCOPES} scopes may be required"
        )));
    }
    if scopes.iter().any(|scope| scope.is_empty() || scope.len() > MAX_NAME_BYTES) {
        return Err(Refusal::invalid(format!("a scope is 1 to {MAX_NAME_BYTES} bytes long")));
    }
    if audience.len() > MAX_NAME_BYTES {
        return Err(Refusal::invalid(format!(
            "an audience is at most {MAX_NAME_BYTES} bytes long"
        )));
    }
    let audience = Some(audience).filter(|name| !name.is_empty());
    Ok(Needs { scopes, client_ip, audience })
}

/// Checks a configured requirement, called `name` where it is configured. A blank one is an error:
/// it would require nothing, and let every key in, although its author meant to require something.
pub(super) fn not_blank<'a>(name: &str, text: &'a str) -> Result<&'a str, Refusal> {
    if text.trim_ascii().is_empty() {
        return Err(Refusal::invalid(format!("`{name}` is empty; leave it out")));
    }
    Ok(text)
}

/// Splits scopes at spaces. Takes at most one more than [`needs`] allows, so that `needs` refuses
/// longer lists. A comma is an error: the text would be a single scope, which no key has, so that
/// every caller would be refused and told to ask for it.
pub(super) fn scopes(text: &str) -> Result<Vec<&str>, Refusal> {
    if text.contains(',') {
        return Err(Refusal::invalid("scopes have a space between them, not a comma"));
    }
    Ok(text.split_ascii_whitespace().take(MAX_REQUIRED_SCOPES + 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(scopes: &[&str], audience: &str) -> bool {
        needs(scopes, None, audience).is_err()
    }

    #[test]
    fn values_at_their_limit_are_allowed_and_values_beyond_are_refused() {
        let name = "x".repeat(MAX_NAME_BYTES);
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        let texts = |count| vec![name.as_str(); count];
        assert!(!refused(&texts(MAX_REQUIRED_SCOPES), &name));
        assert!(refused(&texts(MAX_REQUIRED_SCOPES + 1), ""));
        assert!(refused(&[&long], ""));
        assert!(refused(&[""], ""));
        assert!(refused(&[], &long));
    }

    #[test]
    fn scopes_are_split_at_any_white_space() {
        assert_eq!(scopes("  read orders:write\tx ").unwrap(), ["read", "orders:write", "x"]);
        assert!(scopes(" ").unwrap().is_empty());
        let far_too_many = "x ".repeat(30_000);
        assert_eq!(scopes(&far_too_many).unwrap().len(), MAX_REQUIRED_SCOPES + 1);
        assert!(refused(&scopes(&far_too_many).unwrap(), ""));
    }

    #[test]
    fn comma_separated_scopes_are_refused_with_the_remedy() {
        for text in ["read,write", "read, write", "read ,", ","] {
            let refusal = scopes(text).unwrap_err();
            assert_eq!(refusal.reason, "REQUEST_INVALID");
            assert_eq!(refusal.message(), "scopes have a space between them, not a comma");
        }
    }

    #[test]
    fn blank_requirement_is_refused() {
        for blank in ["", " ", "\t \n"] {
            let refusal = not_blank("keystead.scopes", blank).unwrap_err();
            assert_eq!(refusal.reason, "REQUEST_INVALID");
            assert!(refusal.message().contains("`keystead.scopes`"), "{}", refusal.message());
        }
        assert_eq!(not_blank("x", " read "), Ok(" read "));
    }

    #[test]
    fn empty_audience_is_none() {
        assert_eq!(needs(&[], None, "").unwrap().audience, None);
        assert_eq!(needs(&[], None, "orders").unwrap().audience, Some("orders"));
    }
}
