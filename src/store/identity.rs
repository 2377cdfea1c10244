//! Which store it is, so that what was kept of one is not taken for another's.

use std::{env, fmt, path::Path};

use secrecy::ExposeSecret;
use sha2::{Digest as _, Sha256};

use super::{StoreUrl, postgres};

/// Stands for a store: the hash of where it is. For PostgreSQL these are hosts,
/// ports, database and `store.relation`, for SQLite the path of the file. User,
/// password and how to connect are no part of it, so that they may change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreIdentity([u8; Self::LEN]);

impl StoreIdentity {
    /// The length in bytes.
    pub const LEN: usize = 32;

    /// The store at `url`, whose keys are in `relation` if that is set. Opens nothing.
    #[must_use]
    pub fn of(url: &StoreUrl, relation: Option<&str>) -> Self {
        let place = match url {
            StoreUrl::Sqlite { path } => vec!["sqlite".to_owned(), whole(path)],
            StoreUrl::Postgres(url) => postgres::place(url.expose_secret()),
        };
        let relation = relation.map(|relation| format!("relation {relation}"));
        let mut hash = Sha256::new();
        for part in place.iter().chain(&relation) {
            // With its length, so that no two lists read the same.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// Takes bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes as they are.
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

/// A path that says the same from every folder.
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
    fn how_one_connects_is_no_part_of_which_store_it_is() {
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
    fn another_place_is_another_store() {
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
    fn a_file_is_the_same_by_any_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys.db"), "").unwrap();
        let [one, other] = ["keys.db", "./x/../keys.db"].map(|name| {
            std::fs::create_dir_all(folder.path().join("x")).unwrap();
            of(&format!("sqlite:{}", folder.path().join(name).display()), None)
        });
        assert_eq!(one, other);
    }
}
