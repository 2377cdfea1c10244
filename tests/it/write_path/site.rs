//! The program on each of the stores, seen from outside.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    admin::Admin,
    eventually,
    keystead::{Keystead, Server},
    postgres::Postgres,
};

/// How soon a write path that is blocked or failing must have been noticed.
pub(super) const NOTICED: Duration = Duration::from_secs(10);

/// A service with the settings that it has by default.
pub(super) struct Site {
    pub(super) keystead: Keystead,
    pub(super) server: Server,
    /// `None` with the embedded store.
    pub(super) postgres: Option<Postgres>,
}

impl Site {
    pub(super) async fn embedded() -> Self {
        let keystead = Keystead::new();
        let server = keystead.serve(&[]).await;
        let site = Self { keystead, server, postgres: None };
        site.until("ok").await;
        site
    }

    pub(super) async fn postgres() -> Self {
        let postgres = Postgres::start_new().await;
        let keystead = Keystead::new();
        let secret = keystead.run(["keys", "new-secret"]).await.ok();
        keystead.write("secret", secret);
        let config =
            format!("[store]\nurl = {:?}\n[keys]\nsecret_file = \"secret\"\n", postgres.url());
        let keystead = keystead.configured_by("keystead.toml", config);
        keystead.run(["migrate"]).await.ok();
        let server = keystead.serve(&[]).await;
        let site = Self { keystead, server, postgres: Some(postgres) };
        site.until("ok").await;
        site
    }

    /// Waits until the metric of the write path is in a state.
    pub(super) async fn until(&self, state: &str) -> Duration {
        let began = Instant::now();
        let series = format!(r#"keystead_write_path{{state="{state}"}}"#);
        Admin(self.server.admin).until_metric(&series, 1.0).await;
        began.elapsed()
    }

    /// Waits until the write path is noticed to be so, and returns what `/status`
    /// and the one line of the log say.
    pub(super) async fn noticed(&self, state: &str) -> (Value, Value) {
        let took = self.until(state).await;
        assert!(took < NOTICED, "{took:?}");
        let status = Admin(self.server.admin).status().await;
        assert_eq!(status["state"], "degraded", "{status}");
        assert_eq!(status["dominant_cause"]["tier"], "write_path", "{status}");
        assert_eq!(status["tiers"]["store"]["state"], "up", "{status}");
        eventually("the log has a line of it", async || {
            (!self.lines("WARN").is_empty()).then_some(())
        })
        .await;
        let lines = self.lines("WARN");
        assert_eq!(lines.len(), 1, "{lines:?}");
        (status["tiers"]["write_path"].clone(), lines[0].clone())
    }

    /// Waits until it is over, and all is well.
    pub(super) async fn over(&self) {
        self.until("ok").await;
        let status = Admin(self.server.admin).status().await;
        assert_eq!(status["tiers"]["write_path"]["state"], "up", "{status}");
        eventually("one line tells that it is over", async || {
            (self.lines("INFO").len() == 1).then_some(())
        })
        .await;
        assert_eq!(self.lines("WARN").len(), 1);
    }

    /// What the log says of the write path on this level.
    pub(super) fn lines(&self, level: &str) -> Vec<Value> {
        let log = self.server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["level"] == level && line["tier"] == "write_path").collect()
    }
}
