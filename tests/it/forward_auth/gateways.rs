//! Through real nginx and real Caddy.

mod conduct;
mod identity;
mod silence;

use std::net::SocketAddr;

use keystead::{config::Config, key::Rights};

use super::on_its_own;
use crate::harness::{
    backend::{Backend, Embedded},
    caddy,
    fixture::Fixture,
    gateway::Gateway,
    keys::{Key, of_acme},
    nginx,
    upstream::Upstream,
};

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Caddy,
}

impl Kind {
    async fn start(self, keystead: SocketAddr, upstream: SocketAddr) -> Gateway {
        self.start_changed(("", ""), keystead, upstream).await
    }

    /// With one text in the example replaced by another.
    async fn start_changed(
        self,
        change: (&str, &str),
        keystead: SocketAddr,
        upstream: SocketAddr,
    ) -> Gateway {
        match self {
            Self::Nginx => nginx::start(change, keystead, upstream).await,
            Self::Caddy => caddy::start(change, keystead, upstream).await,
        }
    }
}

/// A service behind a proxy that asks Keystead.
#[derive(Debug)]
struct Site {
    fixture: Fixture<Embedded>,
    upstream: Upstream,
    gateway: Gateway,
}

impl Site {
    async fn new(kind: Kind) -> Self {
        Self::with(kind, |_| ()).await
    }

    async fn with(kind: Kind, tune: impl FnOnce(&mut Config)) -> Self {
        let fixture = Fixture::with(Embedded::start().await, |config| {
            on_its_own(config);
            tune(config);
        });
        let (fixture, upstream) = (fixture.await, Upstream::start().await);
        let gateway = kind.start(fixture.service.auth, upstream.address).await;
        Self { fixture, upstream, gateway }
    }

    /// A key that may do what the examples ask for at `/orders/`, and no more.
    async fn orders_key(&self) -> Key {
        self.fixture.keys.create(of_orders()).await
    }

    /// A key without scopes, for everything else.
    async fn plain_key(&self) -> Key {
        self.fixture.keys.create(of_acme()).await
    }
}

fn of_orders() -> Rights {
    let scopes = ["orders:read", "orders:list"].map(str::to_owned);
    Rights { scopes: scopes.into(), audiences: vec!["orders".to_owned()], ..of_acme() }
}

/// Makes a test of each case for each program.
macro_rules! through_both {
    ($($case:ident,)*) => {
        mod nginx {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(super::Kind::Nginx).await;
                }
            )*
        }
        mod caddy {
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(super::Kind::Caddy).await;
                }
            )*
        }
    };
}
use through_both;
