//! Identity of a store, so that data kept for one store is never used for another.

use std::{env, fmt, path::Path};

use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};

use super::{StoreUrl, postgres};

/// Hash of a store's location. For PostgreSQL: hosts, ports, database and `store.relation`; for
/// SQLite: the path of the file. User, password and connection settings are excluded, so that
/// they may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreIdentity([u8; Self::LEN]);

impl StoreIdentity {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// Identity of the store at `url` with `relation`, if set. Opens nothing.
    #[must_use]
    pub fn of(url: &StoreUrl, relation: Option<&str>) -> Self {
        let place = match url {
            StoreUrl::Sqlite { path } => vec!["sqlite".to_owned(), whole(path)],
            StoreUrl::Postgres(url) => postgres::place(url.expose_secret()),
        };
        let relation = relation.map(|relation| format!("relation {relation}"));
        let mut hash = Sha256::new();
        for part in place.iter().chain(&relation) {
            // The length prefix keeps different lists distinct.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Wraps raw bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for StoreIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreIdentity({}…)", hex::encode(&self.0[..4]))
    }
}

/// Makes a path independent of the working directory.
fn whole(path: &Path) -> String {
    let whole = path.canonicalize().or_else(|_| env::current_dir().map(|here| here.join(path)));
    whole.unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, relation: Option<&str>) -> StoreIdentity {
        StoreIdentity::of(&url.parse().unwrap(), relation)
    }

    #[test]
    fn connection_settings_do_not_change_the_identity() {
        let store = of("postgres://u:p@db/keys", None);
        for same in [
            "postgres://u:other@db/keys",
            "postgresql://somebody:p@db:5432/keys?sslmode=require",
            "postgres://u@/keys?host=db&connect_timeout=3",
        ] {
            assert_eq!(of(same, None), store, "{same}");
        }
        assert_eq!(of("postgres://u@db", None), of("postgres://x@db/u", None));
    }

    #[test]
    fn different_locations_are_different_stores() {
        let all = [
            of("postgres://u@db/keys", None),
            of("postgres://u@db/keys", Some("billing.keys")),
            of("postgres://u@db/keys", Some("billing.old_keys")),
            of("postgres://u@db:5433/keys", None),
            of("postgres://u@db2/keys", None),
            of("postgres://u@db/other", None),
            of("postgres://u@db,db2/keys", None),
            of("sqlite:keys", None),
            of("sqlite:other/keys", None),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn file_has_the_same_identity_by_any_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.db"), "").unwrap();
        let [one, other] = ["keys.db", "./x/../keys.db"].map(|name| {
            std::fs::create_dir_all(folder.path().join("x")).unwrap();
            of(&format!("sqlite:{}", folder.path().join(name).display()), None)
        });
        assert_eq!(one, other);
    }
}
