//! The two stores as a service has them, and the ways in which both can be
//! disturbed. What only one of them can suffer is in the tests of that.

mod embedded;
mod server;

pub(crate) use embedded::Embedded;
pub(crate) use server::Server;

use std::time::Duration;

use keystead::{config::Config, key::Digest};

/// A store with its schema and without a key, private to its test.
pub(crate) trait Backend: Sized {
    /// The table of keys in plain SQL.
    const API_KEYS: &str;

    async fn start() -> Self;

    /// What a service uses it with: free ports, and time-outs that a busy
    /// machine keeps.
    fn config(&self) -> Config;

    /// Runs plain SQL past the store.
    async fn sql(&self, statements: &str);

    /// A digest in plain SQL.
    fn digest(digest: &Digest) -> String;

    /// From now on no lookup is answered; each ends by its time-out alone.
    async fn hang(&mut self);

    /// From now on each lookup takes a while, some tenths of a second or more.
    async fn slow_down(&mut self);

    /// Ends [`Backend::hang`] or [`Backend::slow_down`].
    async fn go_on(&mut self);

    /// From now on the store cannot be reached.
    async fn vanish(&mut self);

    /// Ends [`Backend::vanish`].
    async fn come_back(&mut self);
}

/// The configuration that both begin with.
fn patient() -> Config {
    let mut config = Config::default();
    config.listen.grpc.set_port(0);
    config.listen.admin.set_port(0);
    config.check.timeout = Duration::from_secs(30);
    config.store.guard.query_timeout = Duration::from_secs(25);
    config.store.connect_timeout = Duration::from_secs(20);
    config.drain.delay = Duration::ZERO;
    config
}

/// Makes a test of each case for each store.
macro_rules! on_both_stores {
    ($($case:ident,)*) => {
        mod embedded {
            use crate::harness::backend::{Backend as _, Embedded};
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(Embedded::start().await).await;
                }
            )*
        }
        mod server {
            use crate::harness::backend::{Backend as _, Server};
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(Server::start().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_stores;
