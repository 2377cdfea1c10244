//! Clients that look at the health of an instance themselves.

use std::{path::Path, process::Stdio, time::Duration};

use keystead::app::Stop;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, Command},
};

use crate::harness::{
    admin::checks_total,
    app::Service,
    backend::{Backend, Embedded},
    beside, eventually,
    fixture::Fixture,
    keys::of_acme,
};

/// Longer than the test.
const DELAY: Duration = Duration::from_mins(1);

/// How many checks in a row show that an instance is left.
const MANY: f64 = 100.0;

async fn answered(service: &Service) -> f64 {
    service.admin.metric(&checks_total("OK", "")).await
}

/// A client of grpcio with `healthCheckConfig`.
fn client(services: [&Service; 2]) -> Child {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "target/venv is missing; make it with `scripts/test install`");
    let addresses = services.map(|service| service.grpc.to_string()).join(",");
    let mut command = Command::new(python);
    command.arg(root.join("tests/it/transport/balancing.py")).arg(addresses);
    command.env("PYTHONPATH", root.join("target/python"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// An instance that is about to stop is left while it still answers, so that no
/// check has to be repeated.
#[tokio::test]
async fn grpc_client_that_looks_at_health_leaves_an_instance_that_drains_without_a_failure() {
    let fixture = Fixture::with(Embedded::start().await, |config| {
        config.drain.delay = DELAY;
        config.drain.timeout = 2 * DELAY;
    })
    .await;
    let stays = Service::ready(&fixture.config).await;
    let key = fixture.keys.create(of_acme()).await;
    let mut leaves = fixture.service;
    let mut client = client([&leaves, &stays]);
    let said = format!("{}\n", key.text);
    client.stdin.as_mut().unwrap().write_all(said.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let codes = beside(async move {
        let mut codes = Vec::new();
        while let Some(code) = lines.next_line().await.unwrap() {
            codes.push(code);
        }
        codes
    });
    for service in [&leaves, &stays] {
        eventually("the client calls both", async || {
            (answered(service).await >= MANY).then_some(())
        })
        .await;
    }

    leaves.stop(Stop::AfterDelay);
    eventually("the client calls the other alone", async || {
        let (before, since) = (answered(&leaves).await, answered(&stays).await);
        eventually("it goes on", async || (answered(&stays).await >= since + MANY).then_some(()))
            .await;
        (answered(&leaves).await < before + 0.5).then_some(())
    })
    .await;
    leaves.check_key(&key).await.expect("it still answers direct calls");
    client.kill().await.unwrap();
    let codes = codes.await.unwrap();
    let failed: Vec<_> = codes.iter().filter(|code| *code != "OK").collect();
    assert!(failed.is_empty() && !codes.is_empty(), "{failed:?} of {}", codes.len());
}
