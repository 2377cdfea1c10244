//! What a caller pastes from `examples/`, and grpcurl, against the running
//! service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{
    keys::forged,
    keystead::{Keystead, Ran, Server},
    postgres::Postgres,
};

/// The two programs of `examples/`, which behave alike.
#[derive(Debug, Clone, Copy)]
enum Example {
    Python,
    Node,
}

/// A key as `keys create` prints it.
struct Key {
    secret: String,
    id: String,
}

impl Example {
    const BOTH: [Self; 2] = [Self::Python, Self::Node];

    /// Asks about a key, which goes in by stdin, and must not come out.
    async fn check(self, server: &str, key: &str, more: &[&str]) -> Ran {
        let mut command = match self {
            Self::Python => {
                let mut command = Command::new(installed("target/venv/bin/python"));
                command.env("PYTHONPATH", installed("target/python"));
                command.arg(path("examples/python/check.py"));
                command
            }
            Self::Node => {
                installed("examples/node/node_modules");
                let mut command = Command::new("node");
                command.arg(path("examples/node/check.mjs"));
                command
            }
        };
        command.args(["-", "--server", server]).args(more);
        let ran = Ran::of(command, format!("{key}\n")).await;
        assert!(!ran.to_string().contains(key), "{self:?} shows the key: {ran}");
        ran
    }
}

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn installed(below: &str) -> PathBuf {
    let path = path(below);
    assert!(path.exists(), "{below} is missing; make it with `scripts/test install`");
    path
}

/// Holds the Kubernetes resources in these folders against their schemas.
async fn validate(folders: &[PathBuf]) -> Ran {
    installed("tests/it/kubernetes/node_modules");
    let mut command = Command::new("node");
    command.arg(path("tests/it/kubernetes/validate.mjs")).args(folders);
    Ran::of(command, "").await
}

async fn create(keystead: &Keystead, more: &[&str]) -> Key {
    let create = ["keys", "create", "--json", "--principal", "acme", "--scope", "read"];
    let made = keystead.run(create.iter().chain(more)).await.json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Key { secret: text("key"), id: text("id") }
}

async fn grpcurl(server: &Server, call: &[&str], data: &str) -> Ran {
    let mut command = Command::new(installed("target/venv/bin/grpcurl"));
    command.args(["-plaintext", "-d", "@"]).arg(server.grpc.to_string()).args(call);
    Ran::of(command, data).await
}

#[tokio::test]
async fn examples_print_whose_key_it_is() {
    let keystead = Keystead::new();
    let key = create(&keystead, &["--scope", "write"]).await;
    let server = keystead.serve(&[]).await;
    for example in Example::BOTH {
        let needs = ["--scope", "read", "--scope", "write"];
        let said = example.check(&server.grpc.to_string(), &key.secret, &needs).await.ok();
        let id = &key.id;
        let expected =
            format!("valid\n  key        {id}\n  principal  acme\n  scopes     read write\n");
        assert_eq!(said, expected, "{example:?}");
    }
}

#[tokio::test]
async fn examples_name_the_reason_of_a_denial() {
    let keystead = Keystead::new();
    let (key, revoked) = (create(&keystead, &[]).await, create(&keystead, &[]).await);
    keystead.run(["keys", "revoke", &revoked.id]).await.ok();
    let server = keystead.serve(&[]).await;
    let cases = [
        (forged(&key.secret), 10, "CREDENTIAL_MALFORMED"),
        ("minted-elsewhere".to_owned(), 10, "KEY_UNKNOWN"),
        (revoked.secret, 10, "KEY_REVOKED"),
        (key.secret, 11, "SCOPE_MISSING"),
    ];
    for (presented, code, reason) in cases {
        for example in Example::BOTH {
            let needs = ["--scope", "write"];
            let ran = example.check(&server.url(), &presented, &needs).await;
            assert_eq!(ran.code, Some(code), "{example:?}, {reason}: {ran}");
            let first = format!("denied: {reason}\n");
            assert!(ran.stdout.starts_with(&first), "{example:?}, {reason}: {ran}");
        }
    }
}

#[tokio::test]
async fn examples_say_that_a_dead_store_rejected_no_key() {
    let mut postgres = Postgres::start_new().await;
    let keystead = Keystead::new();
    let secret = keystead.run(["keys", "new-secret"]).await.ok();
    keystead.write("secret", secret);
    let config = format!("store.url = '{}'\nkeys.secret_file = 'secret'\n", postgres.url());
    keystead.write("keystead.toml", config);
    let config = ["--config", "keystead.toml"];
    keystead.run(["migrate"].iter().chain(&config)).await.ok();
    let never_seen = create(&keystead, &config).await;
    let server = keystead.serve(&config).await;
    postgres.kill();

    for example in Example::BOTH {
        let ran = example.check(&server.url(), &never_seen.secret, &[]).await;
        assert_eq!(ran.code, Some(12), "{example:?}: {ran}");
        assert!(ran.stdout.starts_with("no answer: STORE_UNREACHABLE\n"), "{example:?}: {ran}");
        let hint = "\n  the key was NOT rejected; ask again after ";
        assert!(ran.stdout.contains(hint), "{example:?}: {ran}");
    }
}

#[tokio::test]
async fn examples_say_that_a_service_that_is_not_there_rejected_no_key() {
    for example in Example::BOTH {
        // Port 1 is below those that are given out.
        let ran = example.check("127.0.0.1:1", "ks_live_whatever", &[]).await;
        assert_eq!(ran.code, Some(12), "{example:?}: {ran}");
        let hint = "\n  the key was NOT rejected; ask again with growing pauses\n";
        assert!(ran.stdout.contains(hint), "{example:?}: {ran}");
    }
}

#[tokio::test]
async fn grpcurl_needs_nothing_but_the_address() {
    let keystead = Keystead::new();
    let key = create(&keystead, &[]).await;
    let server = keystead.serve(&[]).await;

    let services = grpcurl(&server, &["list"], "").await.ok();
    for service in ["keystead.v1.Authz", "grpc.health.v1.Health"] {
        assert!(services.lines().any(|line| line == service), "{service}: {services}");
    }
    let check = ["keystead.v1.Authz/Check"];
    let request = |key: &str| format!(r#"{{"apiKey": "{key}", "requiredScopes": ["read"]}}"#);
    let answer: Value = grpcurl(&server, &check, &request(&key.secret)).await.json();
    assert_eq!(answer["keyId"], key.id.as_str());
    assert_eq!(answer["principal"], "acme");
    assert_eq!(answer["evidence"]["freshness"], "FRESHNESS_FRESH");

    let refused = grpcurl(&server, &check, &request(&forged(&key.secret))).await;
    assert!(refused.failed(64 + 16).contains("Code: Unauthenticated"));
}

#[tokio::test]
async fn kubernetes_examples_fit_the_schemas_of_their_resources() {
    let said = validate(&["examples/envoy-gateway", "examples/istio"].map(path)).await.ok();
    for resource in
        ["envoy-gateway/keystead.yaml: SecurityPolicy", "istio/keystead.yaml: EnvoyFilter"]
    {
        assert!(said.contains(&format!("examples/{resource} keystead: ok\n")), "{said}");
    }
}

/// Without this the test above could pass by looking at nothing.
#[tokio::test]
async fn mistakes_in_a_kubernetes_example_are_found() {
    const GATEWAY: &str = "examples/envoy-gateway/keystead.yaml";
    const ISTIO: &str = "examples/istio/keystead.yaml";
    let cases = [
        (GATEWAY, "failOpen: false", "failOpn: false", "/spec/extAuth/failOpn is unknown"),
        (GATEWAY, "statusOnError: 503", "statusOnErr: 503", "/spec/extAuth/statusOnErr is unknown"),
        (GATEWAY, "RejectRequest", "Reject", "/spec/headers/withUnderscoresAction must be equal"),
        (GATEWAY, "  type: JSONPatch\n", "", "/spec must have required property type"),
        (GATEWAY, "kind: SecurityPolicy", "kind: SecurityPolicies", "there is no schema of"),
        (ISTIO, "selector:", "selectors:", "/spec/selectors is unknown"),
        (ISTIO, "simple: LEAST_REQUEST", "simple: LEAST", "/simple must be equal to one of"),
        (ISTIO, "  host: k", "  hosts: k", "/spec must have required property host"),
        (ISTIO, "notValues:", "notValue:", "/when/0/notValue is unknown"),
        (ISTIO, "allowMethods:", "allowedMethods:", "/corsPolicy/allowedMethods is unknown"),
        (ISTIO, "subFilter:", "subfilter:", "/filter/subfilter is unknown"),
        (ISTIO, "action: CUSTOM", "action: CUSTOM\n  action: DENY", "Map keys must be unique"),
    ];
    for (example, right, wrong, expected) in cases {
        let text = fs::read_to_string(path(example)).unwrap();
        assert!(text.contains(right), "{example} has no {right:?}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("wrong.yaml"), text.replacen(right, wrong, 1)).unwrap();
        let ran = validate(&[folder.path().to_owned()]).await;
        assert!(ran.code == Some(1) && ran.stdout.contains(expected), "{wrong:?}: {ran}");
    }

    let empty = tempfile::tempdir().unwrap();
    let ran = validate(&[empty.path().to_owned()]).await;
    assert!(ran.code == Some(1) && ran.stdout.contains("there is no resource"), "{ran}");
}
