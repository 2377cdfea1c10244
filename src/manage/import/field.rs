//! What a line may hold.

/// A column of CSV, or a field of a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Sha256,
    Principal,
    Name,
    Scopes,
    AllowedNetworks,
    Audiences,
    Metadata,
    State,
    NotBefore,
    ExpiresAt,
    /// The secret of a key that keystead minted. An export has it.
    Secret,
    /// Whatever else an export has, and an import makes anew.
    Exported,
}

impl Field {
    /// Every field that a line may have, under the name that it has there.
    const ALL: [(&'static str, Self); 18] = [
        ("sha256", Self::Sha256),
        ("principal", Self::Principal),
        ("name", Self::Name),
        ("scopes", Self::Scopes),
        ("allowed_networks", Self::AllowedNetworks),
        ("audiences", Self::Audiences),
        ("metadata", Self::Metadata),
        ("state", Self::State),
        ("not_before", Self::NotBefore),
        ("expires_at", Self::ExpiresAt),
        ("secret", Self::Secret),
        ("id", Self::Exported),
        ("hint", Self::Exported),
        ("created_at", Self::Exported),
        ("last_used_at", Self::Exported),
        ("predecessor", Self::Exported),
        ("successor", Self::Exported),
        ("revision", Self::Exported),
    ];

    /// Reads a name. The error says which one it is like. A name is repeated only then:
    /// what is like none may be a key. `place` is what it is called instead.
    pub(super) fn parse(name: &str, place: impl FnOnce() -> String) -> Result<Self, String> {
        if let Some((_, field)) = Self::ALL.into_iter().find(|(known, _)| *known == name) {
            return Ok(field);
        }
        Err(match Self::nearest(name) {
            Some(nearest) => {
                format!("`{}` is not known; did you mean `{nearest}`?", name.escape_debug())
            }
            None => {
                format!("{} is not known; see `keystead keys import --help`", place())
            }
        })
    }

    /// The name that a text is like: at least half of the longer one is the same.
    pub(super) fn nearest(text: &str) -> Option<&'static str> {
        const ALIKE: f64 = 0.5;
        let lower = text.to_lowercase();
        let likeness = |known| strsim::normalized_damerau_levenshtein(known, &lower);
        let known = Self::ALL.into_iter().map(|(known, _)| (known, likeness(known)));
        let (nearest, likeness) = known.max_by(|a, b| a.1.total_cmp(&b.1))?;
        (likeness >= ALIKE).then_some(nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_an_error_that_names_the_nearest() {
        for (name, nearest) in [
            ("scope", "scopes"),
            ("SHA256", "sha256"),
            ("expires", "expires_at"),
            ("allowed-networks", "allowed_networks"),
            ("princpal", "principal"),
            ("meta", "metadata"),
        ] {
            let error = Field::parse(name, || "it".to_owned()).unwrap_err();
            assert_eq!(error, format!("`{name}` is not known; did you mean `{nearest}`?"));
        }
        assert_eq!(Field::parse("expires_at", String::new), Ok(Field::ExpiresAt));
    }

    #[test]
    fn a_name_that_is_like_none_is_not_repeated() {
        for name in ["ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUVDyq36RzI", "digest", "hunter2", ""] {
            let error = Field::parse(name, || "it".to_owned()).unwrap_err();
            assert_eq!(error, "it is not known; see `keystead keys import --help`");
        }
    }
}
