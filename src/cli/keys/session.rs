//! An open store, and who works on it.

use std::{num::NonZeroU32, path::Path, time::Duration};

use crate::{
    app::{open_ring, open_store_alone, verify_embedded_secret, verify_secrets},
    cli::{Failure, GlobalOptions, note, provenance},
    config::Config,
    key::{KeyId, KeyRecord, KeyRing},
    manage::CreateError,
    store::{
        AnyStore, KeyAdmin, Page, Provenance, StoreError, StoreErrorKind, StoreUrl, StoredKey,
        WriteError,
    },
    tasks::Tasks,
};

/// How long a reading call may take at least. A person waits for it, and not a
/// server for which `store.guard.query_timeout` is meant; a page of records over
/// a slow line takes a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// What every subcommand works with.
pub(super) struct Session {
    pub(super) store: AnyStore,
    pub(super) config: Config,
    /// Who makes the change, and when: the time of the whole command.
    pub(super) by: Provenance,
}

impl Session {
    /// Opens the store that the settings name, and no secrets: most subcommands
    /// need none. An embedded store must be there already: a mistyped path is
    /// not an empty store.
    pub(super) fn open(options: &GlobalOptions) -> Result<Self, Failure> {
        let config = options.load(Vec::new())?;
        must_exist(&config)?;
        Self::with(config)
    }

    /// As [`Session::open`], but makes an embedded store where there is none, and
    /// says so.
    pub(super) async fn open_or_create(options: &GlobalOptions) -> Result<Self, Failure> {
        let config = options.load(Vec::new())?;
        let made = missing(&config).map(Path::to_owned);
        let session = Self::with(config)?;
        verify_embedded_secret(&session.config, &session.store).await?;
        if let Some(path) = made {
            let path = path.display();
            note(format_args!("keystead: there was no store {path}, so one is made"));
        }
        Ok(session)
    }

    fn with(mut config: Config) -> Result<Self, Failure> {
        let query_timeout = &mut config.store.guard.query_timeout;
        *query_timeout = PATIENCE.max(*query_timeout);
        let store = open_store_alone(&config, &Tasks::here())?;
        Ok(Self { store, config, by: provenance::of_user() })
    }

    /// Opens the secrets, to mint with. They must be those of the store's keys.
    pub(super) async fn ring(&self) -> Result<KeyRing, Failure> {
        let ring = open_ring(&self.config, &self.store).await?;
        let held = verify_secrets(&ring, &self.config, &self.store).await;
        held.map_err(|error| self.no_answer(&error))??;
        Ok(ring)
    }

    /// The record of a key that must be there.
    pub(super) async fn record(&self, id: &KeyId) -> Result<KeyRecord, Failure> {
        let found = self.store.get(id).await.map_err(|error| self.no_answer(&error))?;
        found.ok_or_else(|| self.refused(&WriteError::NotFound(id.clone()), Some(id)))
    }

    /// The store could not be read.
    pub(super) fn no_answer(&self, error: &StoreError) -> Failure {
        Failure::new(format!("the store gave no answer: {error}{}", self.remedy(error)))
    }

    /// The store did not take a change, or may not have. `key` is the one whose
    /// record shows whether it did; none where there are many.
    pub(super) fn refused(&self, error: &WriteError, key: Option<&KeyId>) -> Failure {
        let remedy = match error {
            WriteError::Store(error) => self.remedy(error),
            WriteError::OutcomeUnknown(_) => key.map_or_else(
                || "; look with `keystead keys list` before you try again".to_owned(),
                |id| format!("; look with `keystead keys show {id}` before you try again"),
            ),
            WriteError::NotFound(_)
            | WriteError::Refused { .. }
            | WriteError::Duplicates(_)
            | WriteError::ReadOnly(_) => String::new(),
        };
        Failure::new(format!("{error}{remedy}"))
    }

    /// A new key could not be minted or stored.
    pub(super) fn not_created(&self, error: CreateError) -> Failure {
        match error {
            CreateError::Write(id, error) => self.refused(&error, Some(&id)),
            CreateError::Rights(_) | CreateError::Randomness(_) => error.into(),
        }
    }

    /// What to do about it, where the store itself does not say: the embedded
    /// one always does.
    fn remedy(&self, error: &StoreError) -> String {
        let StoreUrl::Postgres(_) = self.config.store.url else {
            return String::new();
        };
        let url = &self.config.store.url;
        match error.kind() {
            StoreErrorKind::Unreachable => {
                format!("; check that the server runs, and that `store.url` ({url}) is right")
            }
            StoreErrorKind::Timeout | StoreErrorKind::Saturated | StoreErrorKind::Lagging => {
                "; try again later".to_owned()
            }
            StoreErrorKind::Forbidden => {
                format!(
                    "; check the user, password and rights of `store.url` ({url}), and that the \
                     server takes changes"
                )
            }
            StoreErrorKind::Unreadable => "; correct the row".to_owned(),
            StoreErrorKind::Schema | StoreErrorKind::Blocked => String::new(),
        }
    }
}

/// How many records are read at once. A page is about 0.5 MB in memory.
const PAGE: NonZeroU32 = NonZeroU32::new(1000).unwrap();

/// All keys, or those of one principal, page by page in the order of their ids.
pub(super) struct Pages<'a> {
    session: &'a Session,
    /// What to read next; none when all has been read.
    next: Option<Page>,
}

impl<'a> Pages<'a> {
    pub(super) const fn new(session: &'a Session, principal: Option<String>) -> Self {
        Self { session, next: Some(Page { principal, after: None, limit: PAGE }) }
    }

    /// The next page, which is not empty; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<StoredKey>>, Failure> {
        let Some(page) = &mut self.next else {
            return Ok(None);
        };
        let keys = self.session.store.list(page).await;
        let keys = keys.map_err(|error| self.session.no_answer(&error))?;
        match keys.last() {
            Some(last) => page.after = Some(last.record.id.clone()),
            None => self.next = None,
        }
        Ok(Some(keys).filter(|keys| !keys.is_empty()))
    }
}

/// The embedded store that the settings name, if it is not there.
fn missing(config: &Config) -> Option<&Path> {
    match &config.store.url {
        StoreUrl::Sqlite { path } => (!path.exists()).then_some(path),
        StoreUrl::Postgres(_) => None,
    }
}

/// Refuses to go on without the embedded store that the settings name.
fn must_exist(config: &Config) -> Result<(), Failure> {
    missing(config).map_or(Ok(()), |path| {
        Err(Failure::new(format!(
            "there is no store {}; name the right one with `--store`, or make one with \
             `keystead serve` or `keystead keys create`",
            path.display()
        )))
    })
}
