//! A store, a service on it, and a handle to make keys with.

use std::time::Duration;

use keystead::config::Config;

use super::{app::Service, backend::Backend, keys::Keys};

/// Longer than any test.
const NEVER: Duration = Duration::from_hours(1);

/// A store, a service on it, and a handle to make keys with.
#[derive(Debug)]
pub(crate) struct Fixture<B> {
    pub(crate) backend: B,
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    pub(crate) service: Service,
}

impl<B: Backend> Fixture<B> {
    pub(crate) async fn new(backend: B) -> Self {
        Self::with(backend, |_| ()).await
    }

    /// With its own settings. The service is ready.
    pub(crate) async fn with(backend: B, tune: impl FnOnce(&mut Config)) -> Self {
        let mut config = backend.config();
        tune(&mut config);
        let keys = Keys::open(&backend.config()).await;
        let service = Service::ready(&config).await;
        Self { backend, config, keys, service }
    }
}

/// Leaves the store to checks alone: nothing else takes a permit once the service
/// is ready.
pub(crate) fn without_background(config: &mut Config) {
    config.store.probe_every = NEVER;
    config.feed.poll_every = NEVER;
    config.feed.heartbeat_every = NEVER;
    config.feed.canary_every = NEVER;
}
