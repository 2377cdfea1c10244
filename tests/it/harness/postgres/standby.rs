//! A second server that follows the first.

use super::{
    super::{
        eventually,
        process::{run, unprivileged},
    },
    PASSWORD, Postgres, new_home, template,
};

impl Postgres {
    /// A hot standby of this server, which streams from it over its Unix socket:
    /// it answers what reads, and takes over when it is promoted.
    pub(crate) async fn standby(&self) -> Self {
        let home = new_home();
        // Writes where to stream from beside the data.
        run(unprivileged(&template::binary("pg_basebackup"))
            .args(["--username=postgres", "--write-recovery-conf", "--wal-method=stream"])
            .args(["--checkpoint=fast", "--no-sync"])
            .arg("--host")
            .arg(self.home())
            .arg("--port")
            .arg(self.port().to_string())
            .arg("--pgdata")
            .arg(home.path().join("data")));
        let standby = Self::on(home, self.settings.clone()).await;
        assert_eq!(standby.value("SELECT pg_is_in_recovery()").await, "t");
        standby
    }

    /// Waits until this standby has all that its primary has by now.
    pub(crate) async fn until_caught_up_with(&self, primary: &Self) {
        let written = primary.value("SELECT pg_current_wal_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        eventually("the standby has caught up", async || {
            (self.value(&replayed).await == "t").then_some(())
        })
        .await;
    }

    /// Makes this standby a primary, and returns when it is one. The other
    /// server, if it still runs, is one as well.
    pub(crate) async fn promote(&self) {
        assert_eq!(self.value("SELECT pg_promote(true, 60)").await, "t");
        assert_eq!(self.value("SELECT pg_is_in_recovery()").await, "f");
    }

    /// The URL of these two, of which the one is used that takes changes.
    pub(crate) fn url_with(&self, standby: &Self) -> String {
        let (ours, theirs) = (self.port(), standby.port());
        format!(
            "postgres://keystead:{PASSWORD}@127.0.0.1:{ours},127.0.0.1:{theirs}/keystead\
             ?target_session_attrs=read-write"
        )
    }
}
