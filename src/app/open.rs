//! Opens what the service and the commands on keys need: the store and, for minting or
//! checking keys, the ring of secrets.

use std::{
    fs, io,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use super::secrets;
use crate::{
    access::Group,
    config::Config,
    key::{KeyRing, RingError, SecretFile, SecretFileError},
    store::{
        AnyStore, KeyAdmin, Page, SecretUse, StoreError, StoreUrl,
        postgres::{PostgresConfig, PostgresConfigError, PostgresStore},
        sqlite::{SqliteConfig, SqliteStore},
    },
    tasks::Tasks,
};

/// The file name of the secret beside an embedded store.
const EMBEDDED_SECRET: &str = "keystead.secret";

/// Page size of the search for a minted key.
const PAGE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// A store, the secrets of its keys, and its background tasks.
#[derive(Debug)]
pub struct Opened {
    /// The store. A remote store may be down.
    pub store: AnyStore,
    /// The secrets.
    pub ring: KeyRing,
    /// Background tasks of the store.
    pub tasks: Tasks,
}

/// The store or its secrets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The embedded store cannot be opened.
    #[error("cannot open the embedded store {path}: {error}", path = .path.display())]
    Embedded {
        /// The database file.
        path: PathBuf,
        /// The cause.
        error: StoreError,
    },
    /// The configuration of PostgreSQL cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresConfigError),
    /// The secret file cannot be read or created.
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    /// The secret file holds no usable secrets.
    #[error("the secret file {path} cannot be used: {error}", path = .path.display())]
    Ring {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: RingError,
    },
    /// The store holds minted keys, but their secret is missing.
    #[error(
        "{store} holds keys that were minted with a secret, but {secret} is missing; restore it from \
         a backup, or name the file that holds it in keys.secret_file",
        store = .store.display(), secret = .secret.display()
    )]
    SecretLost {
        /// The database file.
        store: PathBuf,
        /// The expected path of the secret.
        secret: PathBuf,
    },
    /// The secret exists, but the store of its keys is missing.
    #[error(
        "{secret} is there, but {store} {state}: the keys of that secret are not here; put the store \
         back, or correct `store.url`; to begin anew on purpose remove {secret}, and with it its \
         keys for good",
        store = .store.display(), secret = .secret.display()
    )]
    StoreLost {
        /// The database file.
        store: PathBuf,
        /// The secret beside it.
        secret: PathBuf,
        /// The state of the store.
        state: &'static str,
    },
    /// The store has active keys of secrets that are not in the secret file.
    #[error(
        "the store has active keys of secrets that are not in the secret file: {}; name the right \
         file in `keys.secret_file`, add the secret to it as a further line, or list it in \
         `keys.retired_secrets` to give its keys up",
        secrets::described(.0)
    )]
    SecretUnknown(Vec<SecretUse>),
    /// No secret is configured, and none may be created.
    #[error(
        "`keys.secret_file` is not set, and with PostgreSQL all instances must have the same one; \
         make one with `keystead keys new-secret > FILE` and set `keys.secret_file`"
    )]
    SecretMissing,
}

/// Opens the configured store and secrets.
///
/// Creates an embedded store, with a secret beside it, if there is none. Does not
/// connect to PostgreSQL, which may be down.
pub async fn open_store(config: &Config) -> Result<Opened, OpenError> {
    let tasks = Tasks::here();
    let store = open_store_alone(config, &tasks)?;
    let ring = open_ring(config, &store).await?;
    Ok(Opened { store, ring, tasks })
}

/// Opens the store without its secrets: commands that neither mint nor check keys, such
/// as those that migrate or list, need not hold them.
///
/// Creates an embedded store if there is none. Does not connect to PostgreSQL.
/// Background work of the store runs in `tasks`.
pub fn open_store_alone(config: &Config, tasks: &Tasks) -> Result<AnyStore, OpenError> {
    let url = match &config.store.url {
        StoreUrl::Sqlite { path } => return open_embedded(config, path),
        StoreUrl::Postgres(url) => url.clone(),
    };
    let postgres = PostgresConfig {
        url,
        relation: config.store.relation.clone(),
        prepared_statements: config.store.prepared_statements,
        max_connections: config.store.guard.max_in_flight,
        connect_timeout: config.store.connect_timeout,
        query_timeout: config.store.guard.query_timeout,
        tcp_user_timeout: config.store.tcp_user_timeout,
        max_connection_age: config.store.max_connection_age,
        max_lag: config.store.max_lag,
    };
    Ok(AnyStore::Postgres(PostgresStore::new(&postgres, tasks.clone())?))
}

/// Opens the secrets of the keys in `store`, which belongs to the same configuration.
///
/// Beside an embedded store that holds no minted key, creates a secret if there is none.
pub async fn open_ring(config: &Config, store: &AnyStore) -> Result<KeyRing, OpenError> {
    let secrets = match (&config.keys.secret_file, &config.store.url) {
        (Some(path), _) => SecretFile::read(path, Group::Reads)?,
        (None, StoreUrl::Sqlite { path }) => embedded_secret(config, store, path).await?,
        (None, StoreUrl::Postgres(_)) => return Err(OpenError::SecretMissing),
    };
    ring_of(config, &secrets)
}

fn ring_of(config: &Config, SecretFile { path, text }: &SecretFile) -> Result<KeyRing, OpenError> {
    KeyRing::parse(text, config.keys.prefix.clone(), config.keys.accept_imported)
        .map_err(|error| OpenError::Ring { path: path.clone(), error })
}

/// Fails if the store has active keys of secrets that are neither in the ring nor
/// retired: keys that the ring mints would be mixed with those of another ring.
pub async fn verify_secrets(
    ring: &KeyRing,
    config: &Config,
    store: &AnyStore,
) -> Result<Result<(), OpenError>, StoreError> {
    let given_up = config.keys.retired_secrets.iter().copied();
    let known: Vec<_> = ring.fingerprints().chain(given_up).collect();
    let missing = store.unknown_secrets(&known).await?;
    Ok(if missing.is_empty() { Ok(()) } else { Err(OpenError::SecretUnknown(missing)) })
}

/// Fails if an embedded store has replaced the one that belongs to the secret beside it:
/// the first key stored there would make it look like the original.
pub async fn verify_embedded_secret(config: &Config, store: &AnyStore) -> Result<(), OpenError> {
    if let (None, StoreUrl::Sqlite { path }, AnyStore::Sqlite(embedded)) =
        (&config.keys.secret_file, &config.store.url, store)
    {
        embedded_secret_of_store(config, embedded, path).await?;
    }
    Ok(())
}

fn open_embedded(config: &Config, path: &Path) -> Result<AnyStore, OpenError> {
    let sqlite = SqliteConfig {
        path: path.to_owned(),
        max_readers: config.store.guard.max_in_flight,
        query_timeout: config.store.guard.query_timeout,
    };
    let secret = path.with_file_name(EMBEDDED_SECRET);
    if config.keys.secret_file.is_none()
        && secret.exists()
        && let Some(state) = missing_or_empty(path)
    {
        return Err(OpenError::StoreLost { store: path.to_owned(), secret, state });
    }
    let store = SqliteStore::open(&sqlite)
        .map_err(|error| OpenError::Embedded { path: path.to_owned(), error })?;
    Ok(AnyStore::Sqlite(store))
}

/// The state of a database file that is missing or empty.
fn missing_or_empty(path: &Path) -> Option<&'static str> {
    match fs::metadata(path) {
        Ok(file) if file.len() == 0 => Some("is an empty file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing"),
        // Opening the file reports all other errors.
        Ok(_) | Err(_) => None,
    }
}

/// The secret beside an embedded store, created on the first start.
///
/// No secret is created if the store holds a minted key: under a new secret all of them
/// would be refused as malformed. Nor is a secret accepted whose keys were in another
/// store. The store records the secret before the file exists, so a first start that
/// fails half-way can be repeated.
async fn embedded_secret(
    config: &Config,
    store: &AnyStore,
    database: &Path,
) -> Result<SecretFile, OpenError> {
    let path = database.with_file_name(EMBEDDED_SECRET);
    let failed = |error| OpenError::Embedded { path: database.to_owned(), error };
    let AnyStore::Sqlite(embedded) = store else {
        return Err(OpenError::SecretMissing);
    };
    if let Some(secrets) = embedded_secret_of_store(config, embedded, database).await? {
        return Ok(secrets);
    }
    if holds_minted_key(store).await.map_err(failed)? {
        return Err(OpenError::SecretLost { store: database.to_owned(), secret: path });
    }
    let draft = SecretFile::draft(&path)?;
    let secrets = SecretFile { path: path.clone(), text: draft.text().to_owned().into() };
    for fingerprint in ring_of(config, &secrets)?.fingerprints() {
        embedded.note_secret(fingerprint).await.map_err(failed)?;
    }
    Ok(draft.keep()?)
}

/// The existing secret beside an embedded store; fails if the store is not its own.
async fn embedded_secret_of_store(
    config: &Config,
    embedded: &SqliteStore,
    database: &Path,
) -> Result<Option<SecretFile>, OpenError> {
    let path = database.with_file_name(EMBEDDED_SECRET);
    if !path.exists() {
        return Ok(None);
    }
    let secrets = SecretFile::read(&path, Group::Writes)?;
    let fingerprints: Vec<_> = ring_of(config, &secrets)?.fingerprints().collect();
    let belongs = embedded.belongs_to(&fingerprints).await;
    if belongs.map_err(|error| OpenError::Embedded { path: database.to_owned(), error })? {
        return Ok(Some(secrets));
    }
    let (store, state) = (database.to_owned(), "has no key and never had one");
    Err(OpenError::StoreLost { store, secret: path, state })
}

async fn holds_minted_key(store: &AnyStore) -> Result<bool, StoreError> {
    let mut page = Page { principal: None, after: None, limit: PAGE };
    loop {
        let keys = store.list(&page).await?;
        if keys.iter().any(|key| key.record.secret.is_some()) {
            return Ok(true);
        }
        match keys.last() {
            Some(last) => page.after = Some(last.record.id.clone()),
            None => return Ok(false),
        }
    }
}
