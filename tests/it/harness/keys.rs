//! Keys of a test, made by the same means as those of the command line.

use jiff::{SignedDuration, Timestamp};
use keystead::{
    app::{self, Opened},
    config::Config,
    key::{Action, Digest, Environment, KeyId, KeyRecord, Minted, NewKey, Rights, State},
    store::{AnyStore, KeyAdmin, Provenance},
    time::Clock,
};

/// A separate handle on the store, and the secret that mints.
#[derive(Debug)]
pub(crate) struct Keys(Opened);

/// A key with its text.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) text: String,
    pub(crate) digest: Digest,
}

/// A key of the right form with another tag.
pub(crate) fn forged(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "0" { "1" } else { "0" })
}

/// The rights that a test has no wish about.
pub(crate) fn of_acme() -> Rights {
    Rights { principal: "acme".to_owned(), ..Rights::default() }
}

/// Some time from now, to the microsecond, as stores keep it.
pub(crate) fn from_now(seconds: i64) -> Timestamp {
    let now = Clock::System.wall().as_microsecond();
    Timestamp::from_microsecond(now).unwrap() + SignedDuration::from_secs(seconds)
}

fn by_the_test() -> Provenance {
    Provenance { actor: "test".to_owned(), origin: "test".to_owned(), at: Clock::System.wall() }
}

impl Keys {
    pub(crate) async fn open(config: &Config) -> Self {
        Self(app::open_store(config).await.unwrap())
    }

    /// The store.
    pub(crate) fn engine(&self) -> &AnyStore {
        &self.0.store
    }

    /// A key that is stored nowhere.
    pub(crate) fn draw(&self) -> Minted {
        self.0.ring.mint(Environment::Live).unwrap()
    }

    /// Stores an active key.
    pub(crate) async fn store(&self, minted: &Minted, rights: Rights) -> Key {
        self.insert(&[NewKey::minted(minted, rights)]).await;
        let Minted { id, key, digest, .. } = minted.clone();
        Key { id, text: key.expose().to_owned(), digest }
    }

    /// A new active key.
    pub(crate) async fn create(&self, rights: Rights) -> Key {
        self.store(&self.draw(), rights).await
    }

    /// Many new active keys of acme.
    pub(crate) async fn create_many(&self, count: usize) -> Vec<Key> {
        let minted: Vec<_> = (0..count).map(|_| self.draw()).collect();
        let new: Vec<_> = minted.iter().map(|minted| NewKey::minted(minted, of_acme())).collect();
        self.insert(&new).await;
        let known = minted.into_iter().map(|minted| {
            let text = minted.key.expose().to_owned();
            Key { id: minted.id, text, digest: minted.digest }
        });
        known.collect()
    }

    /// Stores the SHA-256 of a key that was minted elsewhere.
    pub(crate) async fn import(&self, text: &str, rights: Rights) -> Key {
        let key = Key {
            id: KeyId::generate().unwrap(),
            text: text.to_owned(),
            digest: Digest::sha256_of(text.as_bytes()),
        };
        let new = NewKey {
            id: key.id.clone(),
            digest: key.digest,
            secret: None,
            hint: String::new(),
            rights,
            state: State::Active,
        };
        self.insert(&[new]).await;
        key
    }

    async fn insert(&self, keys: &[NewKey]) {
        self.0.store.insert(keys, &by_the_test()).await.unwrap();
    }

    pub(crate) async fn act(&self, key: &Key, action: Action) -> KeyRecord {
        self.0.store.act(&key.id, action, None, &by_the_test()).await.unwrap()
    }

    pub(crate) async fn record(&self, key: &Key) -> KeyRecord {
        self.0.store.get(&key.id).await.unwrap().unwrap()
    }
}
