//! Changes, and what is kept of them.

use jiff::ToSpan;
use keystead::{
    key::{Action, Lifetime, Rights, Successor},
    store::{KeyAdmin, Page, StoreErrorKind, WriteError},
};

use super::{by, id, key, knows, store, with_a_key};

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_the_record_before_and_after() {
    let (postgres, store) = with_a_key().await;
    let retire_at = by().at + 24.hours();
    let successor = Successor { key: key(2), lifetime: Lifetime::OfOld };
    store
        .act(&id(1), Action::Rotate { retire_at, again: false }, Some(&successor), &by())
        .await
        .unwrap();
    store.act(&id(2), Action::Revoke, None, &by()).await.unwrap();

    let log = postgres
        .sql(
            "SELECT action, key_id, before->>'expires_at', after->>'expires_at', \
             before->>'state', after->>'state', after->>'principal' \
             FROM keystead.audit_log ORDER BY id",
        )
        .await;
    let end = retire_at.to_string();
    assert_eq!(
        log,
        [
            "create|key_000001|NULL|NULL|NULL|active|acme".to_owned(),
            format!("rotate|key_000001|NULL|{end}|active|active|acme"),
            "create|key_000002|NULL|NULL|NULL|active|acme".to_owned(),
            "revoke|key_000002|NULL|NULL|active|revoked|acme".to_owned(),
        ]
    );
    let who = "SELECT DISTINCT actor, origin, extract(epoch FROM at)::bigint \
               FROM keystead.audit_log";
    assert_eq!(postgres.sql(who).await, ["cli:alice|laptop|1800000000"]);
    let digests = "SELECT count(*) FROM keystead.audit_log \
                   WHERE before::text || after::text LIKE '%digest%'";
    assert_eq!(postgres.value(digests).await, "0");
}

#[tokio::test]
async fn audit_log_holds_the_record_as_it_is_read() {
    let (postgres, store) = with_a_key().await;
    let record = store.get(&id(1)).await.unwrap().unwrap();
    let logged = postgres.value("SELECT after FROM keystead.audit_log").await;
    let logged: serde_json::Value = serde_json::from_str(&logged).unwrap();
    assert_eq!(logged, serde_json::to_value(&record).unwrap());
}

#[tokio::test]
async fn refused_change_stores_nothing_and_keeps_its_connection() {
    let (postgres, store) = with_a_key().await;
    store.act(&id(1), Action::Revoke, None, &by()).await.unwrap();
    let (before, connections) =
        (postgres.sql("SELECT * FROM keystead.audit_log").await, postgres.backends().await);

    let refused = store.act(&id(1), Action::Enable, None, &by()).await;
    assert!(matches!(refused, Err(WriteError::Refused { .. })));
    let missing = store.act(&id(9), Action::Revoke, None, &by()).await;
    assert!(matches!(missing, Err(WriteError::NotFound(at)) if at == id(9)));
    let duplicates = store.insert(&[key(2), key(1), key(3), key(2)], &by()).await;
    assert!(matches!(duplicates, Err(WriteError::Duplicates(at)) if at == [1, 3]));

    assert!(!knows(&store, 2).await.unwrap());
    assert_eq!(postgres.sql("SELECT * FROM keystead.audit_log").await, before);
    assert_eq!(postgres.backends().await, connections);
}

#[tokio::test]
async fn rotation_to_a_key_that_is_stored_already_changes_nothing() {
    let (_postgres, store) = with_a_key().await;
    let before = store.get(&id(1)).await.unwrap();
    let successor = Successor { key: key(1), lifetime: Lifetime::OfOld };
    let action = Action::Rotate { retire_at: by().at, again: false };
    let refused = store.act(&id(1), action, Some(&successor), &by()).await;
    assert!(matches!(refused, Err(WriteError::Duplicates(at)) if at == [0]));
    assert_eq!(store.get(&id(1)).await.unwrap(), before);
}

#[tokio::test]
async fn everything_of_a_key_reads_back() {
    let (_postgres, store) = with_a_key().await;
    let rights = Rights {
        principal: "Ünïcode \"quoted\" \\ {a,b}".to_owned(),
        name: "line\nbreak".to_owned(),
        scopes: vec!["a b".to_owned(), "{\"x\"}".to_owned(), String::new(), "NULL".to_owned()],
        allowed_networks: ["10.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap()).to_vec(),
        audiences: vec!["api".to_owned()],
        metadata: [("k".to_owned(), "v\u{1}".to_owned())].into(),
        not_before: Some(by().at - 1.hour()),
        expires_at: Some(by().at + 1.microsecond()),
    };
    let mut new = key(2);
    new.rights = rights.clone();
    new.hint = "ks_live_…abcd".to_owned();
    new.secret = Some("0011223344556677".parse().unwrap());
    store.insert(std::slice::from_ref(&new), &by()).await.unwrap();
    let record = store.get(&id(2)).await.unwrap().unwrap();
    assert_eq!(record.rights, rights);
    assert_eq!((record.hint, record.secret), (new.hint, new.secret));
    assert_eq!(record.created_at, by().at);
}

#[tokio::test]
async fn import_of_more_keys_than_fit_a_statement_is_still_all_or_nothing() {
    let (postgres, store) = with_a_key().await;
    // The first of them is stored already, and so is none of the rest.
    let keys: Vec<_> = (1..=12_000).map(key).collect();
    let refused = store.insert(&keys, &by()).await;
    assert!(matches!(refused, Err(WriteError::Duplicates(at)) if at == [0]));
    let mut again = keys[1..].to_vec();
    again.push(key(7_000));
    let refused = store.insert(&again, &by()).await;
    assert!(matches!(refused, Err(WriteError::Duplicates(at)) if at == [11_999]));
    assert_eq!(postgres.value("SELECT count(*) FROM keystead.api_keys").await, "1");

    store.insert(&keys[1..], &by()).await.unwrap();
    for table in ["api_keys", "key_changes", "audit_log"] {
        let count = format!("SELECT count(*) FROM keystead.{table}");
        assert_eq!(postgres.value(&count).await, "12000", "{table}");
    }
    let page = Page { principal: None, after: Some(id(11_998)), limit: 10.try_into().unwrap() };
    let ids: Vec<_> = store.list(&page).await.unwrap().into_iter().map(|k| k.record.id).collect();
    assert_eq!(ids, [id(11_999), id(12_000)]);
}

#[tokio::test]
async fn cancelled_change_is_undone() {
    let (postgres, warm) = with_a_key().await;
    drop(warm);
    let store = store(&postgres.url());
    let blocker = postgres.client().await;
    blocker.batch_execute("BEGIN; SELECT keystead.lock_changes()").await.unwrap();
    {
        let by = by();
        let new = [key(2)];
        let mut insert = std::pin::pin!(store.insert(&new, &by));
        crate::harness::eventually("the change waits for its turn", async || {
            assert!(futures::poll!(&mut insert).is_pending());
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            (postgres.value(waits).await == "1").then_some(())
        })
        .await;
    }
    blocker.batch_execute("ROLLBACK").await.unwrap();
    store.insert(&[key(3)], &by()).await.unwrap();
    assert!(!knows(&store, 2).await.unwrap() && knows(&store, 3).await.unwrap());
}

#[tokio::test]
async fn answer_that_is_lost_while_committing_leaves_the_outcome_open() {
    let (postgres, store) = with_a_key().await;
    for (at_commit, kind) in [
        ("PERFORM pg_terminate_backend(pg_backend_pid())", StoreErrorKind::Unreachable),
        ("RAISE EXCEPTION 'no'", StoreErrorKind::Schema),
    ] {
        let trigger = format!(
            "CREATE OR REPLACE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN {at_commit}; RETURN NULL; END $$; \
             DROP TRIGGER IF EXISTS at_commit ON keystead.api_keys; \
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON keystead.api_keys \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.at_commit()"
        );
        postgres.sql(&trigger).await;
        let inserted = store.insert(&[key(2)], &by()).await.unwrap_err();
        let acted = store.act(&id(1), Action::Disable, None, &by()).await.unwrap_err();
        for error in [inserted, acted] {
            let (open, error) = match error {
                WriteError::OutcomeUnknown(error) => (true, error),
                WriteError::Store(error) => (false, error),
                other => panic!("{other}"),
            };
            assert_eq!(error.kind(), kind, "{error}");
            // A server that says no has undone it.
            assert_eq!(open, kind == StoreErrorKind::Unreachable, "{error}");
        }
    }
}
