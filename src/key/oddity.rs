//! Hints for people about a refused credential: most are mistakes made while pasting it.

use super::{
    MAX_CREDENTIAL_BYTES, Prefix,
    form::{self, Shape},
};

/// A likely mistake in a presented credential. Reveals none of its bytes, and is no
/// evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// It has our form and a wrong tag.
    Letter,
    /// The header holds a key without a scheme.
    NoScheme,
    /// There are several credentials.
    Several,
    /// It begins with a scheme.
    Scheme,
    /// There is white space before or after it.
    Surrounded,
    /// There is white space inside it.
    WhiteSpace,
    /// It has a byte outside visible ASCII.
    NotVisible,
    /// It is in quotation marks.
    Quoted,
    /// It is longer than any key.
    Long,
    /// It begins with our prefix in another case.
    Case,
    /// It begins with our prefix and does not have our form.
    Form,
    /// It begins with our prefix and is shorter than our keys.
    Cut,
    /// It begins like a credential of another product.
    Elsewhere,
}

/// Prefixes of keys and tokens of other products: Stripe, `OpenAI`, `GitHub`, `GitLab`,
/// Slack, Google, AWS, and any JSON Web Token.
const ELSEWHERE: [&[u8]; 13] = [
    b"sk_live_",
    b"sk_test_",
    b"pk_live_",
    b"pk_test_",
    b"sk-",
    b"ghp_",
    b"gho_",
    b"github_pat_",
    b"glpat-",
    b"xoxb-",
    b"AIza",
    b"AKIA",
    b"eyJ",
];

impl Oddity {
    /// All variants.
    pub const ALL: [Self; 13] = [
        Self::Letter,
        Self::NoScheme,
        Self::Several,
        Self::Scheme,
        Self::Surrounded,
        Self::WhiteSpace,
        Self::NotVisible,
        Self::Quoted,
        Self::Long,
        Self::Case,
        Self::Form,
        Self::Cut,
        Self::Elsewhere,
    ];

    /// The first mistake found in a credential; `None` if it may well be an imported key.
    #[must_use]
    pub fn of(presented: &[u8], prefix: &Prefix) -> Option<Self> {
        if presented.len() > MAX_CREDENTIAL_BYTES {
            return Some(Self::Long);
        }
        match Shape::of(presented, prefix) {
            Shape::Ours { .. } => Some(Self::Letter),
            Shape::Broken | Shape::Foreign if !presented.iter().all(u8::is_ascii_graphic) => {
                Some(Self::not_visible(presented))
            }
            Shape::Broken => {
                let whole =
                    prefix.as_str().len() + "_live_".len() + form::RANDOM_LEN + form::TAG_LEN;
                Some(if presented.len() < whole { Self::Cut } else { Self::Form })
            }
            Shape::Foreign => Self::of_foreign(presented, prefix),
        }
    }

    fn not_visible(presented: &[u8]) -> Self {
        let inner = presented.trim_ascii();
        let mut words = inner.split(u8::is_ascii_whitespace);
        let first = words.next().unwrap_or_default();
        if words.next().is_some() && is_scheme(first) {
            Self::Scheme
        } else if !inner.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
            Self::NotVisible
        } else if inner.iter().any(u8::is_ascii_whitespace) {
            Self::WhiteSpace
        } else {
            Self::Surrounded
        }
    }

    fn of_foreign(presented: &[u8], prefix: &Prefix) -> Option<Self> {
        let is_quote = |byte: Option<&u8>| matches!(byte, Some(b'"' | b'\'' | b'`'));
        if is_quote(presented.first()) || is_quote(presented.last()) {
            return Some(Self::Quoted);
        }
        let begins = presented.split_at_checked(prefix.as_str().len());
        let in_another_case = begins.is_some_and(|(begins, rest)| {
            begins.eq_ignore_ascii_case(prefix.as_str().as_bytes()) && rest.starts_with(b"_")
        });
        if in_another_case {
            return Some(Self::Case);
        }
        let is_elsewhere = ELSEWHERE.iter().any(|begins| presented.starts_with(begins));
        is_elsewhere.then_some(Self::Elsewhere)
    }

    /// The mistake and its remedy. Printable ASCII.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Letter => "a letter of it is wrong, or another installation made it",
            Self::NoScheme => {
                "the header authorization names no scheme; write one before the key, such as Bearer"
            }
            Self::Several => "several were presented, and nothing says which one counts; send one",
            Self::Scheme => {
                "it begins with a scheme, such as Bearer; write that once, or the key alone"
            }
            Self::Surrounded => "there is white space or a line break around it; remove that",
            Self::WhiteSpace => "there is white space in it; remove that",
            Self::NotVisible => "it has a character that is not visible ASCII; copy it anew",
            Self::Quoted => "there are quotation marks around it; remove them",
            Self::Long => "it is longer than any key",
            Self::Case => {
                "it begins in letters of another case than a key; write it as it was given out"
            }
            Self::Form => "it has letters too many, or one that no key has; copy it anew",
            Self::Cut => "a part of it is missing; copy it anew",
            Self::Elsewhere => "it begins like a key or token of another product",
        }
    }
}

fn is_scheme(word: &[u8]) -> bool {
    const SCHEMES: [&[u8]; 5] = [b"bearer", b"basic", b"apikey", b"token", b"key"];
    let word = word.strip_suffix(b":").unwrap_or(word);
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUVDyq36RzI";

    #[test]
    fn oddities_are_recognised_and_described_in_printable_ascii() {
        for (presented, oddity) in [
            (KEY.to_owned(), Some(Oddity::Letter)),
            (format!("{KEY}\n"), Some(Oddity::Surrounded)),
            (format!(" {KEY}"), Some(Oddity::Surrounded)),
            (format!("Bearer {KEY}"), Some(Oddity::Scheme)),
            (format!("BEARER\t{KEY}\n"), Some(Oddity::Scheme)),
            (format!("Bearer: {KEY}"), Some(Oddity::Scheme)),
            (format!("{KEY} {KEY}"), Some(Oddity::WhiteSpace)),
            (format!("{KEY}\u{200b}"), Some(Oddity::NotVisible)),
            (format!("\u{201c}{KEY}\u{201d}"), Some(Oddity::NotVisible)),
            (format!("\"{KEY}\""), Some(Oddity::Quoted)),
            (format!("'{KEY}"), Some(Oddity::Quoted)),
            (KEY.replace("ks_", "KS_"), Some(Oddity::Case)),
            (KEY[..40].to_owned(), Some(Oddity::Cut)),
            (format!("{KEY}."), Some(Oddity::Form)),
            (KEY.replace('y', "-"), Some(Oddity::Form)),
            (KEY.repeat(20), Some(Oddity::Long)),
            ("sk_live_4eC39HqLyjWDarjtT1zdp7dc".to_owned(), Some(Oddity::Elsewhere)),
            ("eyJhbGciOiJIUzI1NiJ9.e30.x".to_owned(), Some(Oddity::Elsewhere)),
            ("0b1946ac92492d2347c6235b4d2611184".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(Oddity::of(presented.as_bytes(), &Prefix::default()), oddity, "{presented}");
        }
        for oddity in Oddity::ALL {
            let text = oddity.as_str();
            assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()), "{text}");
        }
    }
}
