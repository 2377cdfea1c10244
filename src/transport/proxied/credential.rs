//! The key in a request, and its removal from the request.

use std::{borrow::Cow, collections::HashSet, fmt, iter, ops::Deref};

use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::{
    CredentialSources, Proxied,
    cookie::{Cookie, cookies, starts},
    identity::lookalikes,
    items,
    source::Source,
    trimmed,
};
use crate::check::{Denial, MissingCredential, PresentedTwice};

const AUTHORIZATION: &str = "authorization";
const COOKIE: &str = "cookie";

/// A presented key: a slice of the request, or decoded from it and zeroized on drop.
pub(in crate::transport) enum Credential<'a> {
    /// As sent in the request.
    AsSent(&'a [u8]),
    /// Percent-decoded from a query parameter.
    Decoded(Zeroizing<Vec<u8>>),
}

/// What to remove from a request so that the key does not pass the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::transport) struct Removal<'a> {
    /// Headers in the request, except those of [`CredentialSources::headers`].
    pub(in crate::transport) headers: Vec<&'static str>,
    /// Query parameters, by their names as spelled in the request.
    pub(in crate::transport) parameters: Vec<&'a str>,
    /// The header `cookie` without the cookies that held a key; `None` if it stays as it is.
    /// Without cookies that are not UTF-8, which cannot be sent to a proxy.
    pub(in crate::transport) cookie: Option<String>,
}

impl CredentialSources {
    /// The key in a request: that of the first non-empty source.
    ///
    /// `None` if all sources are empty. Several values in one source are an error: the proxy or the
    /// upstream might use another one.
    pub(in crate::transport) fn find<'a>(
        &'a self,
        request: &'a impl Proxied,
    ) -> Result<Option<Credential<'a>>, PresentedTwice> {
        for source in self.iter() {
            let found = source.find(request)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The denial when all sources are empty. It adds a hint if `authorization` has a key without a
    /// scheme.
    pub(in crate::transport) fn missing(&self, request: &impl Proxied) -> Denial {
        let mut denial = Denial::from(MissingCredential);
        let is_word = |item: &[u8]| !item.is_empty() && item.iter().all(u8::is_ascii_graphic);
        let is_scheme = |item: &[u8]| {
            self.iter().any(
                |it| matches!(it, Source::Authorization(scheme) if token(item, scheme).is_some()),
            )
        };
        let has_scheme = self.iter().any(|source| matches!(source, Source::Authorization(_)));
        if has_scheme
            && items(request.header(AUTHORIZATION)).any(|item| is_word(item) && !is_scheme(item))
        {
            denial.without_scheme();
        }
        denial
    }

    /// The headers of `header:NAME` sources, which always hold a key, and the names that a server
    /// may confuse with them.
    pub(in crate::transport) fn headers(&self) -> impl Iterator<Item = String> {
        let names = self.iter().filter_map(|source| match source {
            Source::Header(name) => Some(name.as_str()),
            Source::Authorization(_) | Source::Query(_) | Source::Cookie(_) => None,
        });
        names.flat_map(|name| iter::once(name.to_owned()).chain(lookalikes(name)))
    }

    /// Whether a source is a query parameter.
    pub(in crate::transport) fn has_query(&self) -> bool {
        self.iter().any(|source| matches!(source, Source::Query(_)))
    }

    /// The values in any of the sources, including sources after the first non-empty one, but not
    /// those of [`CredentialSources::headers`].
    pub(in crate::transport) fn removal<'a>(&'a self, request: &'a impl Proxied) -> Removal<'a> {
        let mut removal = Removal::default();
        for source in self.iter() {
            match source {
                Source::Authorization(scheme) => {
                    let mut items = items(request.header(AUTHORIZATION));
                    let present = items.any(|item| token(item, scheme).is_some());
                    if present && !removal.headers.contains(&AUTHORIZATION) {
                        removal.headers.push(AUTHORIZATION);
                    }
                }
                Source::Query(name) => {
                    // The spellings of a name are too many for a linear search per parameter.
                    let mut seen = HashSet::new();
                    let spelled = parameters(request.target(), name).map(|(spelled, _)| spelled);
                    removal.parameters.extend(spelled.filter(|spelled| seen.insert(*spelled)));
                }
                // Headers are always removed, and cookies are removed together below, as they share
                // a header.
                Source::Header(_) | Source::Cookie(_) => {}
            }
        }
        self.remove_cookies(request, &mut removal);
        removal
    }

    fn remove_cookies(&self, request: &impl Proxied, removal: &mut Removal<'_>) {
        let is_source = |cookie: &Cookie<'_>| {
            self.iter().any(
                |source| matches!(source, Source::Cookie(name) if cookie.name == name.as_bytes()),
            )
        };
        let source_in = |text| {
            let mut starts = starts(text).filter(|(_, cookie)| is_source(cookie));
            starts.next().map(|(at, _)| at)
        };
        if !cookies(request.header(COOKIE)).any(|cookie| source_in(cookie.text).is_some()) {
            return;
        }
        // Text after a comma that follows a key may be part of the key.
        let kept =
            cookies(request.header(COOKIE)).filter_map(|cookie| match source_in(cookie.text) {
                Some(at) => cookie.text[..at].strip_suffix(b",").map(trimmed),
                None => Some(cookie.text),
            });
        let kept = kept.filter(|text| !text.is_empty());
        let kept: Vec<_> = kept.filter_map(|text| str::from_utf8(text).ok()).collect();
        if kept.is_empty() {
            removal.headers.push(COOKIE);
        } else {
            removal.cookie = Some(kept.join("; "));
        }
    }
}

impl Source {
    fn find<'a>(
        &'a self,
        request: &'a impl Proxied,
    ) -> Result<Option<Credential<'a>>, PresentedTwice> {
        match self {
            Self::Authorization(scheme) => {
                let items = items(request.header(AUTHORIZATION));
                let tokens = items.map(|item| token(item, scheme).unwrap_or_default());
                Ok(once(tokens)?.map(Credential::AsSent))
            }
            Self::Header(name) => Ok(once(items(request.header(name)))?.map(Credential::AsSent)),
            Self::Query(name) => {
                let values = parameters(request.target(), name).map(|(_, value)| value);
                Ok(once(values)?.map(decoded))
            }
            Self::Cookie(name) => {
                let cookies = cookies(request.header(COOKIE));
                let candidates = cookies.flat_map(|cookie| starts(cookie.text));
                let named = candidates.filter(|(_, cookie)| cookie.name == name.as_bytes());
                match once(named.map(|(_, cookie)| cookie.value))? {
                    // Another cookie starts after the comma.
                    Some(value) if value.contains(&b',') => Err(PresentedTwice),
                    value => Ok(value.map(Credential::AsSent)),
                }
            }
        }
    }
}

/// The only item, unless it is empty. Several items are allowed only if all are empty.
fn once<'a>(mut items: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, PresentedTwice> {
    let Some(first) = items.next() else { return Ok(None) };
    let (mut more, mut non_empty) = (false, !first.is_empty());
    for item in items {
        more = true;
        non_empty |= !item.is_empty();
    }
    match (non_empty, more) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(first)),
        (true, true) => Err(PresentedTwice),
    }
}

/// The credentials after a scheme; `None` if the scheme is another one. Schemes are
/// case-insensitive (RFC 9110, 11.1).
pub(in crate::transport) fn token<'a>(credentials: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (prefix, token) = credentials.split_at_checked(scheme.len())?;
    let ends = matches!(token.first(), None | Some(b' ' | b'\t'));
    (prefix.eq_ignore_ascii_case(scheme.as_bytes()) && ends).then(|| trimmed(token))
}

/// The parameters called `name` in the query of a target: the name as spelled, which is ASCII, and
/// the undecoded value.
fn parameters<'a>(target: &'a [u8], name: &str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let query = target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
    query.split(|byte| *byte == b'&').filter_map(move |parameter| {
        let mut parts = parameter.splitn(2, |byte| *byte == b'=');
        let spelled = parts.next().unwrap_or_default();
        let is_named = percent_decode(spelled).eq(name.bytes());
        let spelled = is_named.then(|| str::from_utf8(spelled).ok()).flatten()?;
        Some((spelled, parts.next().unwrap_or_default()))
    })
}

/// Percent-decodes the value of a query parameter (RFC 3986, 2.1).
///
/// A `+` stays a plus; only HTML forms use it for a space. No key has a space in it, while a
/// foreign key may well be base64.
fn decoded(value: &[u8]) -> Credential<'_> {
    match Cow::from(percent_decode(value)) {
        Cow::Borrowed(value) => Credential::AsSent(value),
        Cow::Owned(value) => Credential::Decoded(Zeroizing::new(value)),
    }
}

impl Deref for Credential<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::AsSent(bytes) => bytes,
            Self::Decoded(bytes) => bytes,
        }
    }
}

/// Omits the key.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

#[cfg(test)]
mod tests;
