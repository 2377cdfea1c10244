//! What stands behind the memory, as the composition root puts it together, before the
//! embedded store.

use std::{error::Error, sync::Arc, time::Duration};

use keystead::{
    app::{self, Opened},
    config::Config,
    fill::{Fill, Parts},
    guard::Guarded,
    key::{Credential, Digest},
    snapshot::Journal,
    store::{AnyStore, StoreUrl},
    suspect::{SuspectConfig, Suspicion},
    tasks::Tasks,
    telemetry::Metrics,
    tier::Tier,
    time::Clock,
};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use crate::in_process;

/// Longer than any call.
const PATIENCE: Duration = Duration::from_mins(1);

/// A fill and its guard, before an embedded store without keys.
pub(crate) struct Behind {
    store: Arc<Guarded<AnyStore>>,
    fill: Fill<AnyStore>,
    runtime: Runtime,
    _folder: TempDir,
}

impl Behind {
    pub(crate) fn new() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let folder = tempfile::tempdir()?;
        let mut config = Config::default();
        config.store.guard.query_timeout = PATIENCE;
        config.store.url = StoreUrl::Sqlite { path: folder.path().join("keystead.db") };
        let inside = runtime.enter();
        let Opened { store, .. } = runtime.block_on(app::open_store(&config))?;
        let (metrics, _) = Metrics::new()?;
        let guard = config.store.guard;
        let store = Arc::new(Guarded::new(store, guard, Arc::clone(&metrics), Clock::System));
        let parts = Parts {
            memory: Arc::new(in_process::memory()),
            journal: Journal::default(),
            suspicion: Arc::new(Suspicion::new(SuspectConfig::default())),
            store: Arc::clone(&store),
            tasks: Tasks::here(),
            metrics,
            clock: Clock::System,
        };
        let fill = Fill::new(config.fill, PATIENCE, parts);
        drop(inside);
        Ok(Self { store, fill, runtime, _folder: folder })
    }

    /// Asks the guarded store about keys that it does not have.
    pub(crate) fn ask(&self, digests: &[Digest]) {
        let deadline = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            let place = self.store.acquire(deadline).await.expect("there is a place");
            place.find(digests).await.expect("the store answers");
        });
    }

    /// Asks for one through the fill, as a check does whose key is not in memory.
    pub(crate) fn fill(&self, digest: Digest) {
        let deadline = Instant::now() + PATIENCE;
        let found = self.fill.find(Credential::Ours(digest), deadline);
        self.runtime.block_on(found).expect("the store answers");
    }
}
