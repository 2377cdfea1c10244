//! The identity of a key's owner, as headers for the upstream.

use std::borrow::Cow;

use crate::key::{CompactKey, Profile};

/// The header with the id of the key.
pub(in crate::transport) const KEY_ID: &str = "x-keystead-key-id";
/// The header with the owner of the key.
pub(in crate::transport) const PRINCIPAL: &str = "x-keystead-principal";
/// The header with the scopes of the key.
pub(in crate::transport) const SCOPES: &str = "x-keystead-scopes";

const NAMES: [&str; 3] = [KEY_ID, PRINCIPAL, SCOPES];

/// The most dashes in a name for which [`lookalikes`] returns all spellings.
const MAX_DASHES: usize = 4;

/// The names that a server may confuse with those of [`all`].
pub(in crate::transport) fn all_lookalikes() -> impl Iterator<Item = String> {
    NAMES.into_iter().flat_map(lookalikes)
}

/// The names that a server may confuse with that of a header: servers that pass headers in
/// variables replace `-` by `_` (CGI, RFC 3875, 4.1.18). For a name with more than 4 dashes, only
/// the one with all of them replaced.
pub(super) fn lookalikes(name: &str) -> impl Iterator<Item = String> {
    let dashes = name.bytes().filter(|byte| *byte == b'-').count();
    let all = (1_u32 << dashes.min(MAX_DASHES)) - 1;
    let first = if dashes > MAX_DASHES { all } else { 1 };
    (first..=all).map(move |chosen| {
        let mut position = 0;
        let spelled = name.chars().map(|letter| {
            if letter != '-' {
                return letter;
            }
            let underscore = chosen >> position.min(MAX_DASHES - 1) & 1 == 1;
            position += 1;
            if underscore { '_' } else { '-' }
        });
        spelled.collect()
    })
}

/// The identity headers with their values; `None` for a header that is not set and must be removed,
/// as a client may have sent it.
pub(in crate::transport) fn all(key: &CompactKey) -> [(&'static str, Option<String>); 3] {
    let set = |value: String| Some(value).filter(|value| !value.is_empty());
    [
        (KEY_ID, set(value(key.id()).into_owned())),
        (PRINCIPAL, set(value(key.principal()).into_owned())),
        (SCOPES, set(scopes(key.profile()))),
    ]
}

/// The scopes as a header value: separated by spaces, with spaces within a scope encoded.
pub(in crate::transport) fn scopes(profile: &Profile) -> String {
    let mut scopes = String::new();
    for scope in profile.scopes() {
        if !scopes.is_empty() {
            scopes.push(' ');
        }
        encode(&mut scopes, scope, false);
    }
    scopes
}

/// Encodes any text as a header value: `%`, everything but printable ASCII, and a space at either
/// end are percent-encoded as UTF-8.
pub(in crate::transport) fn value(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return text.into();
    }
    let mut encoded = String::with_capacity(text.len());
    encode(&mut encoded, text, true);
    encoded.into()
}

/// Appends an encoded text; with `spaces`, inner spaces stay as they are.
fn encode(encoded: &mut String, text: &str, spaces: bool) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let last = text.len().saturating_sub(1);
    let is_plain = |at: usize, byte: u8| match byte {
        b' ' => spaces && at != 0 && at != last,
        b'%' => false,
        other => other.is_ascii_graphic(),
    };
    encoded.reserve(text.len());
    for (at, byte) in text.bytes().enumerate() {
        if is_plain(at, byte) {
            encoded.push(byte.into());
        } else {
            let digits = [byte >> 4, byte & 0xf].map(|digit| HEX[usize::from(digit)]);
            encoded.push('%');
            encoded.extend(digits.map(char::from));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;
    use crate::{key::KeyRecord, store::fake::record};

    fn headers(change: impl FnOnce(&mut KeyRecord)) -> [(&'static str, Option<String>); 3] {
        let mut record = record("acme", 1);
        change(&mut record);
        all(&CompactKey::from(&record))
    }

    #[test]
    fn headers_contain_key_id_principal_and_scopes() {
        let scopes = ["read", "orders:write"].map(str::to_owned);
        let [key_id, principal, granted] = headers(|record| record.rights.scopes = scopes.into());
        assert_eq!(key_id.0, "x-keystead-key-id");
        assert!(key_id.1.unwrap().starts_with("key_"));
        assert_eq!(principal, ("x-keystead-principal", Some("acme".to_owned())));
        assert_eq!(granted, ("x-keystead-scopes", Some("read orders:write".to_owned())));
    }

    #[test]
    fn missing_attribute_has_a_name_without_a_value() {
        let [_, principal, scopes] = headers(|record| record.rights.principal.clear());
        assert_eq!((principal.1, scopes.1), (None, None));
    }

    #[test]
    fn value_that_is_not_a_valid_header_is_encoded() {
        let name = " Größe 100%\r\nx-admin: 1 ".to_owned();
        let [_, principal, _] = headers(|record| record.rights.principal = name);
        let expected = "%20Gr%C3%B6%C3%9Fe 100%25%0D%0Ax-admin: 1%20";
        assert_eq!(principal.1.as_deref(), Some(expected));
        // A scope is never read as two.
        let scope = vec!["read admin".to_owned()];
        let [_, _, scopes] = headers(|record| record.rights.scopes = scope);
        assert_eq!(scopes.1.as_deref(), Some("read%20admin"));
    }

    #[test]
    fn every_name_with_an_underscore_for_a_dash_is_a_lookalike() {
        let of = |name| lookalikes(name).collect::<Vec<_>>();
        assert_eq!(of("x-api-key"), ["x_api-key", "x-api_key", "x_api_key"]);
        assert_eq!(of("a-b-c-d-e").len(), 15);
        assert_eq!(of("a-b-c-d-e-f-g"), ["a_b_c_d_e_f_g"]);
        assert!(of("key").is_empty());
        let names: Vec<_> = all_lookalikes().collect();
        assert_eq!(names.len(), 7 + 3 + 3);
        assert!(names.contains(&"x-keystead_key-id".to_owned()), "{names:?}");
        assert!(NAMES.iter().all(|name| !names.contains(&(*name).to_owned())));
    }

    proptest! {
        #[test]
        fn every_principal_encodes_to_a_valid_header_and_decodes_back(name in any::<String>()) {
            for spaces in [true, false] {
                let mut encoded = String::new();
                encode(&mut encoded, &name, spaces);
                prop_assert!(HeaderValue::from_str(&encoded).is_ok());
                prop_assert_eq!(encoded.trim(), &encoded);
                prop_assert_eq!(percent_decode_str(&encoded).decode_utf8().unwrap(), &*name);
            }
        }
    }
}
