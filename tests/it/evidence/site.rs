//! The program on a store that a test has set up, seen from outside.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use tonic::transport::Channel;

use crate::harness::{
    admin::Admin,
    app::{channel_to, check_over, presenting},
    eventually,
    keystead::{Keystead, Server},
    refusal::Refusal,
};

/// How soon what is wrong must have been noticed.
const NOTICED: Duration = Duration::from_secs(10);

/// A folder in which the program finds its settings: a store, a secret file, and
/// time-outs that a busy machine keeps.
pub(super) fn on(url: &str, secret: &Path) -> Keystead {
    let secret = secret.to_str().unwrap();
    let config = format!(
        "[store]\nurl = {url:?}\n[store.guard]\nquery_timeout = \"5s\"\n\
         [check]\ntimeout = \"10s\"\n[keys]\nsecret_file = {secret:?}\n"
    );
    Keystead::new().configured_by("keystead.toml", config)
}

/// The program while it serves.
pub(super) struct Running {
    pub(super) server: Server,
    channel: Channel,
    pub(super) since: Instant,
}

impl Running {
    pub(super) async fn start(keystead: &Keystead) -> Self {
        let since = Instant::now();
        let server = keystead.serve(&[]).await;
        let (channel, _) = channel_to(server.grpc).await;
        Self { server, channel, since }
    }

    pub(super) fn admin(&self) -> Admin {
        Admin(self.server.admin)
    }

    /// What is said of a key: `OK`, or why not.
    pub(super) async fn says(&self, key: &str) -> String {
        match check_over(self.channel.clone(), presenting(key)).await {
            Ok(_) => "OK".to_owned(),
            Err(status) => Refusal::of(&status).reason,
        }
    }

    pub(super) async fn until_says(&self, key: &str, expected: &str) {
        eventually(&format!("a key is {expected}"), async || {
            (self.says(key).await == expected).then_some(())
        })
        .await;
    }

    /// The lines of the log of a level that hold a text.
    pub(super) fn lines(&self, level: &str, text: &str) -> Vec<String> {
        let log = self.server.log();
        let lines = log.lines().filter(|line| {
            let parsed: Value = serde_json::from_str(line).unwrap_or_default();
            parsed["level"] == level && line.contains(text)
        });
        lines.map(str::to_owned).collect()
    }

    /// Waits until the instance is degraded for `cause`, its gauge is 1 and one line
    /// of the log has `text`.
    pub(super) async fn until_noticed(&self, cause: &str, gauge: &str, text: &str) {
        self.admin().until_metric(gauge, 1.0).await;
        eventually("it is degraded", async || {
            let status = self.admin().status().await;
            (status["state"] == "degraded" && status.to_string().contains(cause)).then_some(())
        })
        .await;
        eventually("the log tells", async || (!self.lines("WARN", text).is_empty()).then_some(()))
            .await;
        let took = self.since.elapsed();
        assert!(took < NOTICED, "{took:?}");
        assert_eq!(self.lines("WARN", text).len(), 1, "{}", self.server.log());
    }

    /// Waits until all is well.
    pub(super) async fn until_well(&self, gauge: &str) {
        self.admin().until_metric(gauge, 0.0).await;
        eventually("it is normal", async || {
            (self.admin().status().await["state"] == "normal").then_some(())
        })
        .await;
    }
}
