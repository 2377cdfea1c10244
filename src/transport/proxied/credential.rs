//! The key in a request, and how a request reads without it.

use std::{borrow::Cow, collections::HashSet, fmt, iter, ops::Deref};

use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::{
    CredentialSources, Proxied,
    cookie::{Cookie, beginnings, cookies},
    identity::lookalikes,
    items,
    source::Source,
    trimmed,
};
use crate::check::{Denial, MissingCredential, PresentedTwice};

const AUTHORIZATION: &str = "authorization";
const COOKIE: &str = "cookie";

/// What was presented as a key: a part of the request, or decoded from it and
/// wiped when dropped.
pub(in crate::transport) enum Credential<'a> {
    /// As it is in the request.
    AsSent(&'a [u8]),
    /// From a query parameter with percent signs in it.
    Decoded(Zeroizing<Vec<u8>>),
}

/// What is to be removed from a request, so that nobody behind the proxy sees
/// the key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::transport) struct Removal<'a> {
    /// Headers that are there, but for those of [`CredentialSources::headers`].
    pub(in crate::transport) headers: Vec<&'static str>,
    /// Query parameters, by their names as they are spelled in the request.
    pub(in crate::transport) parameters: Vec<&'a str>,
    /// The header `cookie` as it reads without those that held a key; `None` if
    /// it stays as it is. Without a cookie that is not UTF-8, which a proxy could
    /// not be told.
    pub(in crate::transport) cookie: Option<String>,
}

impl CredentialSources {
    /// The key in a request: that of the first source that holds something.
    ///
    /// `None` if no source does. A source that holds something must hold it once;
    /// of several nobody could say which one the proxy or the upstream takes.
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

    /// That no source holds anything. Tells it where a header has a key without a scheme.
    pub(in crate::transport) fn missing(&self, request: &impl Proxied) -> Denial {
        let mut denial = Denial::from(MissingCredential);
        let is_word = |item: &[u8]| !item.is_empty() && item.iter().all(u8::is_ascii_graphic);
        let is_scheme = |item: &[u8]| {
            self.iter().any(
                |it| matches!(it, Source::Authorization(scheme) if token(item, scheme).is_some()),
            )
        };
        let looks = self.iter().any(|source| matches!(source, Source::Authorization(_)));
        if looks
            && items(request.header(AUTHORIZATION)).any(|item| is_word(item) && !is_scheme(item))
        {
            denial.without_scheme();
        }
        denial
    }

    /// The headers of `header:NAME`, which hold a key if they are there, and the names
    /// that a server may take for theirs.
    pub(in crate::transport) fn headers(&self) -> impl Iterator<Item = String> {
        let names = self.iter().filter_map(|source| match source {
            Source::Header(name) => Some(name.as_str()),
            Source::Authorization(_) | Source::Query(_) | Source::Cookie(_) => None,
        });
        names.flat_map(|name| iter::once(name.to_owned()).chain(lookalikes(name)))
    }

    /// Whether a key may be in a query.
    pub(in crate::transport) fn has_query(&self) -> bool {
        self.iter().any(|source| matches!(source, Source::Query(_)))
    }

    /// All that is in any of the sources, also in those that were not asked as an
    /// earlier one held something, but for [`CredentialSources::headers`].
    pub(in crate::transport) fn removal<'a>(&'a self, request: &'a impl Proxied) -> Removal<'a> {
        let mut removal = Removal::default();
        for source in self.iter() {
            match source {
                Source::Authorization(scheme) => {
                    let mut items = items(request.header(AUTHORIZATION));
                    let there = items.any(|item| token(item, scheme).is_some());
                    if there && !removal.headers.contains(&AUTHORIZATION) {
                        removal.headers.push(AUTHORIZATION);
                    }
                }
                Source::Query(name) => {
                    // A name has more spellings than can be looked through for each.
                    let mut seen = HashSet::new();
                    let spelled = parameters(request.target(), name).map(|(spelled, _)| spelled);
                    removal.parameters.extend(spelled.filter(|spelled| seen.insert(*spelled)));
                }
                // The first are always to be removed, and the second are below all
                // at once, as they share a header.
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
            let mut begins = beginnings(text).filter(|(_, cookie)| is_source(cookie));
            begins.next().map(|(at, _)| at)
        };
        if !cookies(request.header(COOKIE)).any(|cookie| source_in(cookie.text).is_some()) {
            return;
        }
        // What is behind a comma after a key may be a part of the key.
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
                let begun = cookies.flat_map(|cookie| beginnings(cookie.text));
                let ours = begun.filter(|(_, cookie)| cookie.name == name.as_bytes());
                match once(ours.map(|(_, cookie)| cookie.value))? {
                    // Another cookie begins there.
                    Some(value) if value.contains(&b',') => Err(PresentedTwice),
                    value => Ok(value.map(Credential::AsSent)),
                }
            }
        }
    }
}

/// The one item that there is, unless it is empty. Of several all must be empty.
fn once<'a>(mut items: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, PresentedTwice> {
    let Some(first) = items.next() else { return Ok(None) };
    let (mut more, mut holds) = (false, !first.is_empty());
    for item in items {
        more = true;
        holds |= !item.is_empty();
    }
    match (holds, more) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(first)),
        (true, true) => Err(PresentedTwice),
    }
}

/// What follows a scheme; `None` if it is another one. The scheme may be written
/// in any case (RFC 9110, 11.1).
pub(in crate::transport) fn token<'a>(credentials: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (its, token) = credentials.split_at_checked(scheme.len())?;
    let ends = matches!(token.first(), None | Some(b' ' | b'\t'));
    (its.eq_ignore_ascii_case(scheme.as_bytes()) && ends).then(|| trimmed(token))
}

/// The parameters of that name in the query of a target: the name as it is
/// spelled, which is ASCII, and the value as it is.
fn parameters<'a>(target: &'a [u8], name: &str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let query = target.splitn(2, |byte| *byte == b'?').nth(1).unwrap_or_default();
    query.split(|byte| *byte == b'&').filter_map(move |parameter| {
        let mut parts = parameter.splitn(2, |byte| *byte == b'=');
        let spelled = parts.next().unwrap_or_default();
        let is_it = percent_decode(spelled).eq(name.bytes());
        let spelled = is_it.then(|| str::from_utf8(spelled).ok()).flatten()?;
        Some((spelled, parts.next().unwrap_or_default()))
    })
}

/// The value of a query parameter as it was meant (RFC 3986, 2.1).
///
/// A `+` is a plus: that it stands for a space is a habit of HTML forms. No key
/// has a space in it, while one that was made elsewhere may well be base64.
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

/// Leaves the key out.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

#[cfg(test)]
mod tests;
