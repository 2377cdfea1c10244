//! The commands that work on a server.

use super::{digest, id, with_a_key};
use crate::harness::{keystead::Keystead, postgres::Postgres};

#[tokio::test]
async fn command_that_mints_no_key_needs_no_secret_file() {
    let postgres = Postgres::start_new().await;
    let url = postgres.url();
    let keystead = Keystead::new();
    let run = async |args: &[&str]| keystead.run([args, &["--store", &url]].concat()).await;

    assert_eq!(run(&["migrate"]).await.ok(), "applied V1__keys\n");
    let line = format!("sha256,principal\n{},acme\n", digest(1).to_hex());
    keystead.write("keys.csv", line);
    run(&["keys", "import", "keys.csv"]).await.ok();
    let listed = run(&["keys", "list", "--json"]).await.json();
    let id = listed[0]["id"].as_str().unwrap();
    for command in ["disable", "enable", "revoke", "show"] {
        run(&["keys", command, id]).await.ok();
    }
    assert!(run(&["keys", "export"]).await.ok().contains(id));
    run(&["config"]).await.ok();

    for command in [&["keys", "create", "--principal", "acme"][..], &["serve"]] {
        let said = run(command).await.failed(1);
        assert!(said.contains("`keystead keys new-secret > FILE`"), "{said}");
    }
}

#[tokio::test]
async fn change_with_unknown_outcome_is_reported_as_unknown() {
    let (postgres, _store) = with_a_key().await;
    postgres
        .sql(
            "CREATE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON keystead.api_keys \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.at_commit()",
        )
        .await;
    let (id, url) = (id(1), postgres.url());
    let command = ["keys", "disable", id.as_str(), "--store", &url];
    let said = Keystead::new().run(command).await.failed(1);
    assert!(said.contains("it is not known whether the store took the change"), "{said}");
    assert!(said.contains(&format!("look with `keystead keys show {id}`")), "{said}");
}
