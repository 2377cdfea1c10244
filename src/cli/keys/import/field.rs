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

/// How like a name must be to one that there is to be taken for it, from 0 to 1: `meta` is
/// to `metadata` as 0.5, `digest` to nothing as 0.4.
const NEAR: f64 = 0.45;

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

    /// Reads a name. The error names the nearest one that there is.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        if let Some((_, field)) = Self::ALL.into_iter().find(|(known, _)| *known == name) {
            return Ok(field);
        }
        let lower = name.to_lowercase();
        let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, &lower);
        let nearest = Self::ALL
            .into_iter()
            .map(|(known, _)| known)
            .filter(|known| likeness(known) >= NEAR)
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hint = nearest.map(|nearest| format!("; did you mean `{nearest}`?"));
        let shown = super::line::shown(name);
        Err(format!("{shown} is not known{}", hint.unwrap_or_default()))
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
            let error = Field::parse(name).unwrap_err();
            assert_eq!(error, format!("`{name}` is not known; did you mean `{nearest}`?"));
        }
        let far = "`digest` is not known".to_owned();
        assert_eq!(Field::parse("digest"), Err(far), "nothing is near");
        assert_eq!(Field::parse("expires_at"), Ok(Field::ExpiresAt));
    }
}
