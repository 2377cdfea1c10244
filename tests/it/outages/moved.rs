//! A move to another server: a logical copy is kept, everything that the docs show
//! is run on both, and the name is switched while callers check continuously.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use keystead::{
    key::Action,
    transport::pb::{Evidence, Freshness},
};
use tonic::Code;

use super::{
    RECOVERY,
    site::{Site, until_answered},
};
use crate::harness::{
    app::Service,
    backend::Backend,
    eventually,
    keys::{Key, Keys, of_acme},
    load::{KeyClass, Load, Plan},
    postgres::{Postgres, logical::logical},
    refusal::Refusal,
};

/// Keys that are in use all the time.
const SEEN: usize = 50;

/// How many of them are revoked after the move.
const REVOKED: usize = 10;

/// The statements that a page of the docs shows to those who run a server: those
/// that delete old rows.
fn shown_in(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let statements = blocks.flat_map(|block| block.split_inclusive(";\n"));
    let pruning = statements.filter(|statement| statement.trim_start().starts_with("DELETE"));
    pruning.map(str::to_owned).collect()
}

async fn prune(server: &Postgres) {
    let statements = shown_in("docs/postgresql.md");
    assert_eq!(statements.len(), 2, "{statements:?}");
    for statement in statements {
        // As if the rows were that old.
        let all = statement.replace("'2 days'", "'0'").replace("'1 year'", "'0'");
        server.sql(&all).await;
    }
}

/// Whether a key is refused as revoked. Holds that it is not called fresh when it
/// may no longer be, nor refused for another reason.
async fn is_revoked(service: &Service, key: &Key, since: Instant, fresh_for: Duration) -> bool {
    let asked_after = since.elapsed();
    match service.check_key(key).await {
        Ok(answer) => {
            let freshness = answer.evidence.as_ref().map(Evidence::freshness);
            let fresh = freshness == Some(Freshness::Fresh);
            assert!(!fresh || asked_after < fresh_for, "FRESH after {asked_after:?}");
            false
        }
        Err(status) => {
            let refusal = Refusal::of(&status);
            refusal.is_honest();
            assert!(
                refusal.reason == "KEY_REVOKED" || refusal.code == Code::Unavailable,
                "{refusal:?}"
            );
            refusal.reason == "KEY_REVOKED"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_revoked_on_a_logical_copy_after_the_move_to_it_are_denied() {
    let mut site = Site::with(Duration::from_millis(100), logical()).await;
    site.config.cache.fresh_for = Duration::from_secs(30);
    let old = Keys::open(&site.server.config()).await;
    let seen = old.create_many(SEEN).await;
    let origin = site.postgres();
    let copy = origin.logical_copy().await;

    let service = Service::ready(&site.config).await;
    for key in &seen {
        until_answered(&service, key).await;
    }
    let (warm, unseen) = (seen[REVOKED..].to_vec(), Vec::new());
    let plan = Plan { warm, unseen, callers: 4, rest: Duration::from_millis(2) };
    let mut load = Load::start(&service, plan, "before");
    prune(origin).await;
    prune(&copy).await;
    // Changes go on being written and copied.
    let late = old.create(of_acme()).await;
    old.act(&seen[0], Action::Disable).await;
    old.act(&seen[0], Action::Enable).await;
    service.admin.until_metric(r#"keystead_write_path{state="ok"}"#, 1.0).await;

    // No sequence was copied. The origin goes on, and the connections to it.
    copy.cut_over(origin).await;
    assert_eq!(copy.value("SELECT is_called FROM keystead.revision_seq").await, "f");
    load.phase("moved");
    site.proxy.switch_to(([127, 0, 0, 1], copy.port()).into());
    let mut config = site.config.clone();
    config.store.url = copy.url().parse().unwrap();
    let new = Keys::open(&config).await;
    until_answered(&service, &late).await;

    let newest: i64 =
        copy.value("SELECT max(revision) FROM keystead.key_changes").await.parse().unwrap();
    let bound = site.config.store.max_lag + Duration::from_secs(1);
    for key in &seen[..REVOKED] {
        let record = new.act(key, Action::Revoke).await;
        assert!(record.revision.0 > newest, "{} after {newest}", record.revision);
        let revoked = Instant::now();
        eventually("the revocation takes effect", async || {
            is_revoked(&service, key, revoked, bound).await.then_some(())
        })
        .await;
        assert!(revoked.elapsed() < bound + RECOVERY, "{:?}", revoked.elapsed());
    }
    let created = new.create(of_acme()).await;
    until_answered(&service, &created).await;
    service.admin.until_metric(r#"keystead_write_path{state="ok"}"#, 1.0).await;
    service.admin.until_metric(r#"keystead_instance_state{state="normal"}"#, 1.0).await;

    let record = load.stop().await;
    let all = record.all(KeyClass::Warm);
    assert_eq!(all.denials(), 0, "{:?}", all.tally);
    assert_eq!(all.tally.of_code(Code::Ok), all.count(), "{:?}", all.tally);
    assert!(all.count() > 1000, "{}", all.count());
}
