//! A table or view that was brought along.

use std::num::NonZeroU32;

use jiff::Timestamp;
use keystead::{
    key::{Action, CompactKey, KeyRecord, Revision, State},
    store::{
        Answer, CanaryError, Changes, KeyAdmin, Lookups, Page, StoreErrorKind, Usage, WriteError,
        postgres::{PostgresConfig, PostgresConfigError, PostgresStore},
    },
    tasks::Tasks,
};

use super::{by, config, digest, id, key, knows, store_with};
use crate::harness::postgres::Postgres;

/// Somebody's table, of other types than ours where they may be. No migration.
async fn with_table() -> Postgres {
    let postgres = Postgres::start_new().await;
    let table = format!(
        r#"CREATE SCHEMA "Billing";
        CREATE TYPE "Billing".key_state AS ENUM ('active', 'disabled', 'revoked');
        CREATE TABLE "Billing"."API Keys" (
            id varchar PRIMARY KEY, digest bytea NOT NULL, secret text, hint text,
            principal varchar, name text, scopes varchar[], allowed_networks inet[],
            audiences text[], metadata json, state "Billing".key_state NOT NULL,
            not_before timestamptz, expires_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(), last_used_at timestamptz,
            revision int NOT NULL DEFAULT 7);
        INSERT INTO "Billing"."API Keys"
            (id, digest, principal, scopes, allowed_networks, metadata, state)
        VALUES ('{}', '\x{}', 'acme', '{{read}}', '{{10.0.0.1,10.1.0.0/16}}',
            '{{"plan": "gold"}}', 'active');
        GRANT USAGE ON SCHEMA "Billing" TO keystead;
        GRANT SELECT ON "Billing"."API Keys" TO keystead"#,
        id(1),
        digest(1).to_hex()
    );
    postgres.sql(&table).await;
    postgres
}

fn store(postgres: &Postgres, relation: &str) -> PostgresStore {
    let relation = Some(relation.to_owned());
    store_with(&PostgresConfig { relation, ..config(&postgres.url()) })
}

const TABLE: &str = r#""Billing"."API Keys""#;

async fn found(store: &PostgresStore) -> KeyRecord {
    let lookup = store.find(&[digest(1), digest(2)]).await.unwrap();
    assert!(matches!(lookup.get(&digest(2)), Some(Answer::Absent(_))));
    match lookup.get(&digest(1)) {
        Some(Answer::Found(known)) => {
            let record = store.get(&known.key_id()).await.unwrap().unwrap();
            assert_eq!(*known, CompactKey::from(&record));
            record
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn table_of_somebody_else_is_read_as_it_is() {
    let postgres = with_table().await;
    let store = store(&postgres, TABLE);
    let record = found(&store).await;
    assert_eq!(record.state, State::Active);
    assert_eq!(record.rights.scopes, ["read"]);
    let networks: Vec<_> = record.rights.allowed_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.1/32", "10.1.0.0/16"]);
    assert_eq!(record.rights.metadata["plan"], "gold");
    assert_eq!((record.rights.name.as_str(), record.revision), ("", Revision(7)));

    assert_eq!(store.get(&id(1)).await.unwrap(), Some(record.clone()));
    let page = Page { principal: Some("acme".into()), after: None, limit: NonZeroU32::MIN };
    assert_eq!(store.list(&page).await.unwrap()[0].record, record);
    let page = Page { after: Some(id(1)), ..page };
    assert_eq!(store.list(&page).await.unwrap(), []);
}

#[tokio::test]
async fn view_is_read_like_a_table() {
    let postgres = with_table().await;
    let view = format!(
        "CREATE VIEW public.keys_of_ours AS SELECT * FROM {TABLE}; \
         GRANT SELECT ON public.keys_of_ours TO keystead"
    );
    postgres.sql(&view).await;
    assert_eq!(found(&store(&postgres, "Keys_Of_Ours")).await.id, id(1));
}

#[tokio::test]
async fn keys_of_somebody_else_are_not_changed() {
    let postgres = with_table().await;
    let store = store(&postgres, TABLE);
    let before = found(&store).await;
    let inserted = store.insert(&[key(2)], &by()).await;
    assert!(matches!(inserted, Err(WriteError::ReadOnly(table)) if table == TABLE));
    let acted = store.act(&id(1), Action::Revoke, None, &by()).await;
    assert!(matches!(acted, Err(WriteError::ReadOnly(_))));
    store.touch(&[(id(1), by().at)]).await.unwrap();
    assert_eq!(found(&store).await, before);
    assert!(store.follow().await.unwrap().is_none());
    let canary = store.canary(&digest(9)).await.unwrap_err();
    assert!(matches!(canary, CanaryError::ReadOnly(_)), "{canary}");
}

#[tokio::test]
async fn missing_table_column_or_type_is_a_schema_error_that_says_which() {
    let postgres = with_table().await;
    for (change, names, undo) in [
        ("RENAME audiences TO services", "audiences", "RENAME services TO audiences"),
        (
            "ALTER digest TYPE text USING digest::text",
            "bytea",
            "ALTER digest TYPE bytea USING digest::bytea",
        ),
        ("ALTER created_at TYPE timestamp", "created_at", "ALTER created_at TYPE timestamptz"),
    ] {
        postgres.sql(&format!("ALTER TABLE {TABLE} {change}")).await;
        let error = knows(&store(&postgres, TABLE), 1).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Schema, "{error}");
        assert!(error.detail().contains(names), "{error}");
        postgres.sql(&format!("ALTER TABLE {TABLE} {undo}")).await;
        assert!(knows(&store(&postgres, TABLE), 1).await.unwrap());
    }
    let error = knows(&store(&postgres, "nowhere"), 1).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
    assert!(error.detail().contains("store.relation"), "{error}");
}

#[tokio::test]
async fn row_that_cannot_be_read_is_unreadable_and_names_the_key() {
    let postgres = with_table().await;
    let store = store(&postgres, TABLE);
    for (set, names) in [
        ("principal = NULL", "principal"),
        ("principal = ''", "principal"),
        ("metadata = '[1]'", "metadata"),
        ("metadata = '{\"n\": 1}'", "metadata"),
        ("digest = '\\x00'", "digest"),
        ("secret = 'nonsense'", "secret"),
        ("scopes = '{NULL}'", "scopes"),
        ("allowed_networks = '{NULL}'", "allowed_networks"),
    ] {
        postgres.sql(&format!("UPDATE {TABLE} SET {set}")).await;
        let error = store.get(&id(1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unreadable, "{set}: {error}");
        let says = error.detail();
        assert!(says.contains(id(1).as_str()) && says.contains(names), "{set}: {says}");
        let undo = format!(
            "UPDATE {TABLE} SET principal = 'acme', metadata = NULL, digest = '\\x{}', \
             secret = NULL, scopes = NULL, allowed_networks = NULL",
            digest(1).to_hex()
        );
        postgres.sql(&undo).await;
    }
    assert!(knows(&store, 1).await.unwrap());
}

#[tokio::test]
async fn times_outside_all_time_neither_widen_nor_narrow_a_key() {
    let postgres = with_table().await;
    let store = store(&postgres, TABLE);
    let set = format!("UPDATE {TABLE} SET not_before = '-infinity', expires_at = 'infinity'");
    postgres.sql(&set).await;
    let rights = found(&store).await.rights;
    assert_eq!((rights.not_before, rights.expires_at), (None, None));
    let set = format!("UPDATE {TABLE} SET not_before = 'infinity', expires_at = '-infinity'");
    postgres.sql(&set).await;
    let rights = found(&store).await.rights;
    assert_eq!(rights.not_before, Some(Timestamp::MAX));
    assert_eq!(rights.expires_at, Some(Timestamp::MIN));
}

#[tokio::test]
async fn digest_that_a_view_shows_twice_is_unreadable() {
    let postgres = with_table().await;
    postgres
        .sql(&format!(
            "INSERT INTO {TABLE} (id, digest, principal, state) \
             SELECT 'key_other', digest, 'evil', 'active' FROM {TABLE}"
        ))
        .await;
    let lookup = store(&postgres, TABLE).find(&[digest(1)]).await.unwrap();
    let error = lookup.unreadable(&digest(1)).unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Unreadable);
    assert!(error.detail().contains(&digest(1).to_hex()), "{error}");
}

#[tokio::test]
async fn relation_is_a_name_and_nothing_else() {
    let relation = Some("keys; DROP TABLE keys".to_owned());
    let config = PostgresConfig { relation, ..config("postgres://h/d") };
    let error = PostgresStore::new(&config, Tasks::here()).unwrap_err();
    assert!(matches!(error, PostgresConfigError::Relation(_)));
}
