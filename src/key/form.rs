//! The form of a key: prefix, environment and base62 digits.

use std::{fmt, ops::Range, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The base62 digits, by value.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The number of random base62 digits of a key: 32 × log2(62) = 190 bits.
pub(super) const RANDOM_LEN: usize = 32;

/// The number of base62 digits of a tag. 62^8 > 2^47, so 47 bits fit.
pub(super) const TAG_LEN: usize = 8;

/// The number of bits of the keyed hash that the tag holds.
const TAG_BITS: u32 = 47;

/// The first part of every key of an installation, `ks` by default. Secret scanners
/// recognise leaked keys by it.
///
/// 1 to 16 lower-case letters and digits, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(title = "a prefix such as `ks`", extend("pattern" = "^[a-z][a-z0-9]{0,15}$"))]
pub struct Prefix(String);

/// A prefix that would be ambiguous in a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key prefix is 1 to 16 lower-case letters and digits and begins with a letter")]
pub struct PrefixError;

impl Prefix {
    const MAX_LEN: usize = 16;

    /// The prefix without its underscore.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("ks".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        let goes_on_well = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if begins_well && goes_on_well && text.len() <= Self::MAX_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(PrefixError)
        }
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

/// The environment of a key. It is part of the key's text, so that a test key is never
/// mistaken for a live one; the service treats both alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Environment {
    /// Written `live`.
    #[default]
    Live,
    /// Written `test`.
    Test,
}

impl Environment {
    /// The text in the key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The syntactic form of a credential, before its tag is verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// It has our form: everything before the tag, and the tag.
    Ours { body: &'a [u8], tag: &'a [u8] },
    /// It begins with our prefix and `_`, but the rest does not have our form.
    Broken,
    /// It does not begin with our prefix.
    Foreign,
}

impl Shape<'_> {
    /// Classifies any bytes.
    pub(super) fn of<'a>(credential: &'a [u8], prefix: &Prefix) -> Shape<'a> {
        let Some(rest) = credential
            .strip_prefix(prefix.as_str().as_bytes())
            .and_then(|rest| rest.strip_prefix(b"_"))
        else {
            return Shape::Foreign;
        };
        let Some(digits) = rest.strip_prefix(b"live_").or_else(|| rest.strip_prefix(b"test_"))
        else {
            return Shape::Broken;
        };
        if digits.len() != RANDOM_LEN + TAG_LEN || !digits.iter().all(u8::is_ascii_alphanumeric) {
            return Shape::Broken;
        }
        let (body, tag) = credential.split_at(credential.len() - TAG_LEN);
        Shape::Ours { body, tag }
    }
}

/// Encodes the first 47 bits of a keyed hash as base62, most significant digit first.
pub(super) fn tag_digits(hash: &[u8; 32]) -> [u8; TAG_LEN] {
    let head: [u8; 8] = std::array::from_fn(|i| hash[i]);
    let mut rest = u64::from_be_bytes(head) >> (u64::BITS - TAG_BITS);
    let mut digits = [0; TAG_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Draws unbiased base62 digits by rejection sampling.
///
/// `fill` provides random bytes; its error is returned.
pub(super) fn random_digits<E>(
    count: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<String, E> {
    // The largest multiple of 62 that fits a byte; larger bytes would favour the
    // first digits.
    const UNBIASED: Range<u8> = 0..248;

    let mut digits = String::with_capacity(count);
    let mut pool = [0; 64];
    while digits.len() < count {
        fill(&mut pool)?;
        let drawn = pool.iter().filter(|byte| UNBIASED.contains(*byte));
        digits.extend(
            drawn
                .take(count - digits.len())
                .map(|byte| char::from(ALPHABET[usize::from(byte % 62)])),
        );
    }
    zeroize::Zeroize::zeroize(&mut pool);
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_short_lower_case_and_begins_with_a_letter() {
        for good in ["ks", "k", "acme2", "abcdefghijklmnop"] {
            assert_eq!(good.parse::<Prefix>().map(|p| p.0), Ok(good.to_owned()));
        }
        for bad in ["", "2k", "KS", "k_s", "k-s", "abcdefghijklmnopq", "ké"] {
            assert_eq!(bad.parse::<Prefix>(), Err(PrefixError), "{bad}");
        }
    }

    #[test]
    fn largest_tag_fits_eight_digits() {
        // 2^47 - 1 in base62.
        assert_eq!(&tag_digits(&[0xff; 32]), b"dxlGgaI3");
        assert_eq!(&tag_digits(&[0; 32]), b"00000000");
        // Only the first 47 bits count.
        let mut hash = [0xff; 32];
        hash[5] = 0xfe;
        hash[6..].fill(0);
        assert_eq!(&tag_digits(&hash), b"dxlGgaI3");
    }

    #[test]
    fn random_digits_are_unbiased() {
        let mut next = 0_u8;
        let digits = random_digits(1000, |pool| {
            pool.fill_with(|| {
                next = next.wrapping_add(1);
                next
            });
            Ok::<_, ()>(())
        });
        let digits = digits.unwrap();
        assert_eq!(digits.len(), 1000);
        // 248 usable bytes are four full rounds of 62: every digit equally often.
        let round = &digits[..248 * 4];
        for digit in ALPHABET {
            assert_eq!(round.bytes().filter(|b| b == digit).count(), 16);
        }
    }
}
