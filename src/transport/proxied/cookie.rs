//! The header `cookie` (RFC 6265, 4.2).

use super::trimmed;

/// A cookie as a client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie<'a> {
    /// Name and value, trimmed.
    pub(super) text: &'a [u8],
    pub(super) name: &'a [u8],
    /// Without surrounding quotes.
    pub(super) value: &'a [u8],
}

/// The cookies in all values of the header, in order.
pub(super) fn cookies<'a>(
    values: impl Iterator<Item = &'a [u8]>,
) -> impl Iterator<Item = Cookie<'a>> {
    let texts = values.flat_map(|value| value.split(|byte| *byte == b';')).map(trimmed);
    texts.filter(|text| !text.is_empty()).map(cookie)
}

/// The positions in a text of [`cookies`] at which a cookie may begin: the start, and after each
/// comma. A cookie contains no comma (RFC 6265, 4.1.1), but headers that were joined have one
/// between them. The value extends to the end of the text.
///
/// A name is searched only up to the next comma, so that a text of commas takes linear time.
pub(super) fn starts(text: &[u8]) -> impl Iterator<Item = (usize, Cookie<'_>)> {
    let mut start = 0;
    let parts = text.split(|byte| *byte == b',').map(move |part| {
        let at = start;
        start += part.len() + 1;
        (at, part)
    });
    let named =
        move |(at, part): &(usize, &[u8])| part.contains(&b'=') || at + part.len() == text.len();
    parts.filter(named).map(|(at, _)| (at, cookie(trimmed(&text[at..]))))
}

/// Parses a cookie. One without `=` is a name only, as in most servers.
fn cookie(text: &[u8]) -> Cookie<'_> {
    let mut parts = text.splitn(2, |byte| *byte == b'=');
    let [name, value] = [(); 2].map(|()| trimmed(parts.next().unwrap_or_default()));
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Cookie { text, name, value: unquoted.unwrap_or(value) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&'static str]) -> Vec<(&'static str, &'static str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        let values = values.iter().map(|value| value.as_bytes());
        cookies(values).map(|cookie| (text(cookie.name), text(cookie.value))).collect()
    }

    #[test]
    fn cookies_are_parsed_as_servers_parse_them() {
        assert_eq!(read(&["a=1; b=2"]), [("a", "1"), ("b", "2")]);
        assert_eq!(read(&["a=1;b=2;", " ; c = 3 "]), [("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(read(&["a=x=y=; b"]), [("a", "x=y="), ("b", "")]);
        assert_eq!(read(&["a=\"1\"; b=\"; c=\"2"]), [("a", "1"), ("b", "\""), ("c", "\"2")]);
        assert_eq!(read(&["", ";;"]), []);
        assert_eq!(read(&["=x"]), [("", "x")]);
    }

    #[test]
    fn cookie_may_start_after_a_comma() {
        let names = starts(b"a=1, key=x,b").map(|(at, cookie)| (at, cookie.name));
        assert_eq!(names.collect::<Vec<_>>(), [(0, &b"a"[..]), (4, b"key"), (11, b"b")]);
        assert_eq!(starts(b"").count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_into_parts_of_themselves(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
        ) {
            for cookie in cookies(values.iter().map(Vec::as_slice)) {
                prop_assert!(!cookie.text.contains(&b';'));
                prop_assert!(cookie.name.len() + cookie.value.len() <= cookie.text.len());
            }
        }
    }
}
