//! Imports, and others who change keys meanwhile.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use keystead::{
    config::Config,
    key::Action,
    store::{KeyAdmin, Page, StoreUrl},
};
use secrecy::ExposeSecret;

use crate::{
    cli::import::csv,
    harness::{
        backend::{Backend, on_both_stores},
        eventually,
        fixture::Fixture,
        keystead::{Keystead, Ran},
        refusal::Refusal,
    },
};

on_both_stores! {
    revocations_return_and_take_effect_within_a_second_each_during_an_import,
    keys_that_somebody_else_stores_meanwhile_are_named,
}

const LINES: u32 = 20_000;

/// How many lines others revoke keys beside, and how often: in an optimised build, as
/// `scripts/soak` makes it, what an operator may import on one day.
const MANY: u32 = if cfg!(debug_assertions) { LINES } else { 1_000_000 };
const EVERY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 1_000 });

/// Time limit for a revocation, and for its effect after the return.
const SOON: Duration = Duration::from_secs(1);

/// The store of a configuration as `--store` takes it.
fn url(config: &Config) -> String {
    match &config.store.url {
        StoreUrl::Sqlite { path } => format!("sqlite:{}", path.display()),
        StoreUrl::Postgres(url) => url.expose_secret().to_owned(),
    }
}

async fn revocations_return_and_take_effect_within_a_second_each_during_an_import(
    backend: impl Backend,
) {
    let fixture = Fixture::new(backend).await;
    let mut keys = fixture.keys.create_many(600).await;
    let keystead = Keystead::new();
    keystead.write("keys.csv", csv(0..MANY));
    let url = url(&fixture.config);
    let command = keystead.command(["keys", "import", "keys.csv", "--store", &url]);
    let importing = Ran::of(command, "");
    let mut importing = std::pin::pin!(importing);
    let (mut revoked, mut returned, mut felt) = (0, Duration::ZERO, Duration::ZERO);
    let ran = loop {
        let pause = tokio::time::sleep(EVERY);
        tokio::select! {
            ran = &mut importing => break ran,
            () = pause => {}
        }
        let Some(key) = keys.pop() else { continue };
        fixture.service.check_key(&key).await.unwrap();
        let began = Instant::now();
        fixture.keys.act(&key, Action::Revoke).await;
        returned = returned.max(began.elapsed());
        let began = Instant::now();
        eventually("it is revoked", async || {
            let status = fixture.service.check_key(&key).await.err()?;
            assert_eq!(Refusal::of(&status).reason, "KEY_REVOKED");
            Some(())
        })
        .await;
        felt = felt.max(began.elapsed());
        revoked += 1;
    };
    assert_eq!(ran.ok(), format!("imported {MANY} keys\n"));
    println!("{revoked} revocations: {returned:?} to return, {felt:?} to be felt");
    assert!(revoked >= 5, "the import was over after {revoked}");
    assert!(returned < SOON && felt < SOON, "{returned:?}, {felt:?}");
}

async fn keys_that_somebody_else_stores_meanwhile_are_named(backend: impl Backend) {
    let fixture = Fixture::new(backend).await;
    let keystead = Keystead::new();
    let url = url(&fixture.config);
    keystead.write("all.csv", csv(0..LINES));
    // The last line, long after it was looked up.
    keystead.write("last.csv", csv([LINES - 1]));
    let command = keystead.command(["keys", "import", "all.csv", "--store", &url]);
    let importing = Ran::of(command, "");
    let stored = async {
        let any = Page { principal: None, after: None, limit: NonZeroU32::MIN };
        eventually("keys are imported", async || {
            (!fixture.keys.engine().list(&any).await.unwrap().is_empty()).then_some(())
        })
        .await;
        keystead.run(["keys", "import", "last.csv", "--store", &url]).await.ok();
    };
    let (ran, ()) = tokio::join!(importing, stored);
    let said = ran.failed(1);
    assert!(said.contains("19750 of 19999 keys were imported"), "{said}");
    assert!(said.contains("--skip-bad"), "{said}");
    assert!(said.contains(&format!("line {}: its key is stored already", LINES + 1)), "{said}");
    let rest = keystead.run(["keys", "import", "all.csv", "--skip-bad", "--store", &url]).await;
    assert_eq!(rest.ok(), "imported 249 keys\n");
}
