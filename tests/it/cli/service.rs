//! Commands that query a running service, and changes that reach it.

use std::{fs, net::TcpListener};

use serde_json::Value;
use tokio::process::Command;

use super::{import, mint, text};
use crate::harness::{
    eventually,
    keystead::{Keystead, Ran, Server},
};

const UNAUTHENTICATED: i32 = 10;
const PERMISSION_DENIED: i32 = 11;
const UNAVAILABLE: i32 = 12;

/// Checks a key with the service.
async fn check(keystead: &Keystead, server: &Server, key: &str, more: &[&str]) -> Ran {
    let url = server.url();
    let args = ["check", key, "--json", "--server", &url];
    keystead.run(args.iter().chain(more)).await
}

/// Waits until a check of a key ends with this exit code, and returns what it
/// printed. The key is in memory meanwhile.
async fn checks_as(keystead: &Keystead, server: &Server, key: &str, code: i32) -> Value {
    eventually("the service has learnt of the change", async || {
        let ran = check(keystead, server, key, &[]).await;
        (ran.code == Some(code)).then(|| serde_json::from_str(&ran.stdout).unwrap())
    })
    .await
}

#[tokio::test]
async fn the_first_start_prints_one_key_that_works() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let welcome = server.stdout();
    let key = welcome.split_whitespace().find(|word| word.starts_with("ks_live_")).unwrap();
    let url = server.url();
    let checked = keystead.run(["check", key, "--server", &url, "--json"]).await.json();
    assert_eq!(checked["code"], "OK");
    let checked = keystead.run_with(["check", "--server", &url], format!("{key}\n")).await.ok();
    assert!(checked.starts_with("valid\n"), "{checked}");
    assert!(!server.log().contains(key), "the key is never logged");
    assert!(server.stop().await.success());
}

/// The commands of the first screen, in their order.
fn commands(welcome: &str) -> Vec<&str> {
    let indented = welcome.lines().filter_map(|line| line.strip_prefix("    "));
    indented.filter(|line| line.contains(' ')).collect()
}

/// Runs a command as it was pasted into a shell, in another folder than the service.
async fn paste(line: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(folder.path());
    Ran::of(shell, "").await
}

#[tokio::test]
async fn first_screen_does_what_it_says_pasted_in_any_folder() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let welcome = server.stdout();
    let pasted = commands(&welcome);
    let [check, curl, leave, known, unknown, back, unknown_again, revoke] = pasted[..] else {
        panic!("{welcome}")
    };
    let says = async |line: &str, code: i32, said: &str| {
        let ran = paste(line).await;
        assert!(ran.code == Some(code) && ran.stdout.starts_with(said), "{line}: {ran}");
    };
    says(check, 0, "valid\n").await;
    says(curl, 0, "HTTP/1.1 200 OK").await;
    let lacking = paste(&format!("{check} --scope write")).await;
    assert!(
        lacking.code == Some(PERMISSION_DENIED) && lacking.stdout.contains("`write`"),
        "{lacking}"
    );
    says(leave, 0, "").await;
    says(known, 0, "valid\n").await;
    says(unknown, UNAVAILABLE, "no answer: STORE_UNREACHABLE\n").await;
    says(back, 0, "").await;
    eventually("the store says that there is no such key", async || {
        let ran = paste(unknown_again).await;
        assert!(ran.code == Some(UNAVAILABLE) || ran.code == Some(UNAUTHENTICATED), "{ran}");
        ran.stdout.starts_with("not valid: KEY_UNKNOWN\n").then_some(())
    })
    .await;
    says(revoke, 0, "").await;
    eventually("the revocation takes effect", async || {
        paste(check).await.stdout.starts_with("not valid: KEY_REVOKED\n").then_some(())
    })
    .await;
    let status = welcome.lines().find_map(|line| line.split_once(": http://")).unwrap().1;
    assert_eq!(status, format!("{}/status", server.admin));
}

#[tokio::test]
async fn a_check_ends_with_the_code_of_its_answer() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &["--scope", "read", "--allow-network", "10.0.0.0/8"]).await;
    let key = text(&created, "key");
    let server = keystead.serve(&[]).await;

    let here = ["--client-ip", "10.1.2.3", "--scope", "read"];
    let allowed = check(&keystead, &server, key, &here).await.json();
    assert_eq!((text(&allowed, "code"), &allowed["key_id"]), ("OK", &created["id"]));
    assert_eq!(allowed["scopes"], created["scopes"]);

    for (key, more, code, reason) in [
        (key, vec!["--client-ip", "10.1.2.3", "--scope", "x"], PERMISSION_DENIED, "SCOPE_MISSING"),
        (key, vec![], PERMISSION_DENIED, "CLIENT_NETWORK_FORBIDDEN"),
        ("ks_live_forged", vec![], UNAUTHENTICATED, "CREDENTIAL_MALFORMED"),
        ("somebody-else", vec![], UNAUTHENTICATED, "KEY_UNKNOWN"),
        ("", vec![], UNAUTHENTICATED, "CREDENTIAL_MISSING"),
    ] {
        let ran = check(&keystead, &server, key, &more).await;
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.code, text(&said, "reason")), (Some(code), reason), "{ran}");
        assert_eq!(ran.stderr, "");
    }
    let url = server.url();
    let no_address = ["check", key, "--server", &url, "--client-ip", "here"];
    keystead.run(no_address).await.failed(1);
    let plain = keystead.run(["check", key, "--server", &url]).await;
    assert!(plain.stdout.starts_with("not allowed: CLIENT_NETWORK_FORBIDDEN\n"), "{plain}");
}

#[tokio::test]
async fn no_answer_from_the_store_is_code_12_and_no_word_against_the_key() {
    let keystead = Keystead::new();
    let created = mint(&keystead, &[]).await;
    let server = keystead.serve(&[]).await;
    fs::rename(keystead.path("keystead.db"), keystead.path("elsewhere.db")).unwrap();
    let ran = check(&keystead, &server, text(&created, "key"), &[]).await;
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, text(&said, "code")), (Some(UNAVAILABLE), "UNAVAILABLE"), "{ran}");
    assert_eq!(text(&said, "reason"), "STORE_UNREACHABLE");
}

#[tokio::test]
async fn a_service_that_is_not_there_is_code_12() {
    let keystead = Keystead::new();
    let url = "http://127.0.0.1:1";
    for command in [vec!["health", "--server", url], vec!["check", "k", "--server", url]] {
        let error = keystead.run(&command).await.failed(UNAVAILABLE);
        assert!(error.contains("is `keystead serve` running there?"), "{error}");
    }
    let error = keystead.run(["health", "--server", "not a url"]).await.failed(1);
    assert!(error.contains("write http://HOST:PORT"), "{error}");
}

#[tokio::test]
async fn port_that_is_not_of_a_grpc_service_is_code_12_and_one_sentence_with_the_remedy() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, cause) in
        [(server.admin, "gave no gRPC answer"), (silent.local_addr().unwrap(), "Timeout expired")]
    {
        let url = format!("http://{address}");
        for command in [vec!["health"], vec!["check", "k"], vec!["check", "k", "--json"]] {
            let server = ["--server", &url, "--timeout", "300ms"];
            let ran = keystead.run(command.iter().chain(&server)).await;
            let error = ran.failed(UNAVAILABLE);
            assert!(error.contains(cause), "{command:?}: {error}");
            assert!(error.ends_with("is this the address of its `listen.grpc`?\n"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

#[tokio::test]
async fn health_reports_the_status_of_each_service() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let url = server.url();
    for service in ["", "keystead.v1.Authz", "liveness", "store"] {
        let health = ["health", "--server", &url, "--service", service, "--json"];
        let serving = eventually("it serves", async || {
            let ran = keystead.run(health).await;
            (ran.code == Some(0)).then(|| ran.json())
        });
        assert_eq!(text(&serving.await, "status"), "SERVING");
    }
    assert_eq!(keystead.run(["health", "--server", &url]).await.ok(), "SERVING\n");
    let unknown = ["health", "--server", &url, "--service", "nonsense"];
    let error = keystead.run(unknown).await.failed(1);
    assert!(error.contains("`keystead health --help` lists the names"), "{error}");
    assert_ne!(server.grpc, server.admin);
}

#[tokio::test]
async fn a_running_service_learns_of_every_change_of_a_key() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let created = mint(&keystead, &[]).await;
    let (id, key) = (text(&created, "id"), text(&created, "key"));
    checks_as(&keystead, &server, key, 0).await;
    for (action, code, reason) in [
        ("disable", UNAUTHENTICATED, Some("KEY_DISABLED")),
        ("enable", 0, None),
        ("revoke", UNAUTHENTICATED, Some("KEY_REVOKED")),
    ] {
        keystead.run(["keys", action, id]).await.ok();
        let said = checks_as(&keystead, &server, key, code).await;
        assert_eq!(said["reason"].as_str(), reason, "{said}");
    }
    assert!(!server.log().contains(key));
}

#[tokio::test]
async fn both_keys_work_during_the_grace_of_a_rotation_and_the_new_one_after_it() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let created = mint(&keystead, &[]).await;
    let (id, old) = (text(&created, "id"), text(&created, "key"));
    checks_as(&keystead, &server, old, 0).await;
    let rotate = async |id: &str, grace| {
        keystead.run(["keys", "rotate", id, "--grace", grace, "--json"]).await.json()
    };
    let second = rotate(id, "1h").await;
    // The old one has an end now, and has not reached it.
    let end = eventually("the service knows the end of the old key", async || {
        let said = checks_as(&keystead, &server, old, 0).await;
        said["expires_at"].as_str().map(str::to_owned)
    });
    assert_eq!(end.await, text(&second["replaces"], "expires_at"));
    checks_as(&keystead, &server, text(&second, "key"), 0).await;

    let third = rotate(text(&second, "id"), "0s").await;
    let said = checks_as(&keystead, &server, text(&second, "key"), UNAUTHENTICATED).await;
    assert_eq!(text(&said, "reason"), "KEY_EXPIRED");
    checks_as(&keystead, &server, text(&third, "key"), 0).await;
}

#[tokio::test]
async fn an_imported_key_works_as_it_always_did() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    keystead.run_with(["keys", "import", "-"], import::csv([7])).await.ok();
    let said = checks_as(&keystead, &server, &import::foreign(7), 0).await;
    assert_eq!(said["scopes"], serde_json::json!(["read", "write"]));
}
