//! A proxied request for tests.

use super::Proxied;

/// Headers and a target.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) headers: Vec<(String, Vec<u8>)>,
    target: Vec<u8>,
}

impl Request {
    pub(super) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(super) fn to(mut self, target: impl AsRef<[u8]>) -> Self {
        self.target = target.as_ref().to_owned();
        self
    }

    /// Joins the values of each header, as Envoy does without `encode_raw_headers`.
    pub(super) fn joined(self) -> Self {
        let mut joined = Self { headers: Vec::new(), target: self.target };
        for (name, value) in self.headers {
            match joined.headers.iter_mut().find(|(other, _)| *other == name) {
                Some((_, values)) => values.extend([b",", value.as_slice()].concat()),
                None => joined.headers.push((name, value)),
            }
        }
        joined
    }

    /// Whether a header value or the target contains `bytes`.
    pub(super) fn contains(&self, bytes: &[u8]) -> bool {
        let texts = self.headers.iter().map(|(_, value)| value).chain([&self.target]);
        texts.into_iter().any(|text| text.windows(bytes.len()).any(|window| window == bytes))
    }
}

impl Proxied for Request {
    fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = self.headers.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| value.as_slice())
    }

    fn target(&self) -> &[u8] {
        &self.target
    }
}
