//! Forward-auth over HTTP: asked directly, and by real proxies with the very
//! configuration that users copy from `examples/`.

mod gateways;
mod listeners;
mod outages;
mod refusals;
mod requests;
mod valid;

use std::net::{Ipv4Addr, SocketAddr};

use keystead::{config::Config, key::Rights};

use crate::harness::{
    admin::checks_of,
    app::Service,
    http::{Answer, get, send},
    keys::of_acme,
};

/// Puts `/auth` on its own listener.
fn on_its_own(config: &mut Config) {
    config.listen.forward_auth = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
}

/// Checks a key, as a proxy does.
async fn ask(service: &Service, path: &str, key: &str) -> Answer {
    ask_with(service, path, &[("x-api-key", key)]).await
}

async fn ask_with(service: &Service, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(service.auth, get(path, headers)).await
}

/// Name of a `keystead_checks_total` series.
fn counted(code: &str, reason: &str) -> String {
    checks_of("forward_auth", code, reason)
}

fn of_acme_with(scopes: &[&str]) -> Rights {
    Rights { scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(), ..of_acme() }
}
