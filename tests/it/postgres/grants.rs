//! `keystead migrate --grant-to ROLE`

use keystead::store::KeyAdmin;
use tokio_postgres::error::SqlState;

use super::{by, key, store, with_a_key};
use crate::harness::{
    eventually,
    keystead::Keystead,
    postgres::{Postgres, rows},
};

/// A role whose name has to be quoted, and its name in SQL and in a URL.
const ROLE: &str = r#"Serving "role""#;
const IN_SQL: &str = r#""Serving ""role""""#;
const IN_URL: &str = "Serving%20%22role%22";

#[tokio::test]
async fn granted_role_serves_mints_changes_and_revokes_keys() {
    let postgres = Postgres::start_new().await;
    postgres.add_role(IN_SQL).await;
    let keystead = Keystead::new();
    let secret = keystead.run(["keys", "new-secret"]).await.ok();
    keystead.write("secret", secret);
    let owner = postgres.url();
    let migrate = ["migrate", "--store", &owner, "--grant-to", ROLE];
    let granted = format!("granted {ROLE} the rights to serve and to change keys\n");
    let said = keystead.run(migrate).await.ok();
    assert_eq!(said, format!("applied V1__keys\n{granted}"));
    let said = keystead.run(migrate).await.ok();
    assert_eq!(said, format!("the schema is up to date\n{granted}"));

    let config = format!(
        "store.url = '{}'\nkeys.secret_file = 'secret'\nfeed.canary_every = '100ms'\n",
        postgres.url_for(IN_URL)
    );
    let keystead = keystead.configured_by("keystead.toml", config);
    let server = keystead.serve(&[]).await;
    let create = ["keys", "create", "--json", "--principal", "acme"];
    let made = keystead.run(create).await.json();
    let [key, id] = ["key", "id"].map(|name| made[name].as_str().unwrap());
    let check = ["check", key, "--server", &server.url()];
    keystead.run(check).await.ok();
    for action in ["disable", "enable", "show", "rotate"] {
        keystead.run(["keys", action, id]).await.ok();
    }
    let digests = format!("sha256,principal\n{},acme\n", "ab".repeat(32));
    keystead.run_with(["keys", "import", "-"], digests).await.ok();
    assert!(keystead.run(["keys", "export"]).await.ok().contains(id));
    eventually("the use of the key is noted", async || {
        let used = "SELECT count(*) FROM keystead.api_keys WHERE last_used_at IS NOT NULL";
        (postgres.value(used).await == "1").then_some(())
    })
    .await;
    keystead.run(["keys", "revoke", id]).await.ok();
    eventually("the key is refused", async || {
        let ran = keystead.run(check).await;
        ran.stdout.contains("KEY_REVOKED").then_some(())
    })
    .await;
    eventually("a canary was written", async || {
        let canaries = "SELECT count(*) > 0 FROM keystead.key_changes WHERE kind = 'canary'";
        (postgres.value(canaries).await == "t").then_some(())
    })
    .await;
    assert!(!server.log().contains("permission denied"), "{}", server.log());
}

#[tokio::test]
async fn granted_role_can_do_nothing_else() {
    let (postgres, store) = with_a_key().await;
    postgres.add_role(IN_SQL).await;
    store.grant(ROLE).await.unwrap();
    let client = postgres.client().await;
    rows(&client, &format!("SET ROLE {IN_SQL}")).await;
    for refused in [
        "DROP TABLE keystead.api_keys",
        "DROP SCHEMA keystead CASCADE",
        "CREATE TABLE keystead.more ()",
        "CREATE SCHEMA more",
        "ALTER TABLE keystead.api_keys DISABLE TRIGGER ALL",
        "TRUNCATE keystead.api_keys",
        "DELETE FROM keystead.api_keys",
        "UPDATE keystead.api_keys SET digest = digest",
        "UPDATE keystead.api_keys SET scopes = '{admin}'",
        "INSERT INTO keystead.key_changes VALUES (99, '', 'deleted')",
        "DELETE FROM keystead.key_changes",
        "SELECT * FROM keystead.audit_log",
        "DELETE FROM keystead.audit_log",
        "LOCK TABLE keystead.change_order IN ACCESS SHARE MODE",
        "SELECT keystead.next_revision()",
        "SELECT * FROM keystead.refinery_schema_history",
        "CREATE ROLE more",
    ] {
        let error = client.simple_query(&format!("BEGIN; {refused}")).await.unwrap_err();
        rows(&client, "ROLLBACK").await;
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{refused}: {error:?}");
    }
}

#[tokio::test]
async fn role_that_does_not_exist_is_refused_and_nobody_gets_rights() {
    let postgres = Postgres::start_new().await;
    let long = "a".repeat(64);
    postgres.add_role(&long[1..]).await;
    let keystead = Keystead::new();
    let rights = "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'keystead' \
        UNION ALL SELECT relacl::text FROM pg_class WHERE relname = 'api_keys'";
    // `public` is every role, and a name that is too long would be cut to that of another.
    for role in ["nobody", "public", "PUBLIC", "current_user", "", "a; DROP SCHEMA keystead", &long]
    {
        let migrate = ["migrate", "--store", &postgres.url(), "--grant-to", role];
        let said = keystead.run(migrate).await.failed(1);
        let expected = format!("there is no role {role:?} to grant rights to; create it first");
        assert!(said.contains(&expected), "{said}");
        assert_eq!(postgres.sql(rights).await, ["NULL", "NULL"], "{role}");
    }
    let said = keystead.run(["migrate", "--grant-to", "keystead"]).await.failed(1);
    assert!(said.contains("--grant-to is for PostgreSQL"), "{said}");
    assert!(!keystead.path("keystead.db").exists());
}

#[tokio::test]
async fn of_many_who_grant_at_once_none_fails() {
    let (postgres, granting) = with_a_key().await;
    postgres.add_role("serving").await;
    let grant_often = async || {
        // Often enough that without a lock some would meet.
        for _ in 0..20 {
            granting.grant("serving").await.unwrap();
        }
    };
    futures::future::join_all((0..4).map(|_| grant_often())).await;
    let serving = store(&postgres.url_for("serving"));
    serving.insert(&[key(2)], &by()).await.unwrap();
}
