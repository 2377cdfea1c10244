//! A second server that is kept as a logical copy of the first: another system,
//! which gets rows and no sequences.

use std::process::{Command, Stdio};

use super::{
    super::{
        eventually,
        process::{run, unprivileged},
    },
    Postgres, Setup, new_home, template,
};

/// What both servers of a copy are set up with.
pub(crate) fn logical() -> Setup {
    Setup { settings: vec![("wal_level", "logical".to_owned())], ..Setup::default() }
}

impl Postgres {
    /// A copy of everything in this server, which was set up as [`logical`], and of
    /// what is written there from now on, until [`Postgres::cut_over`].
    pub(crate) async fn logical_copy(&self) -> Self {
        let home = new_home();
        // A cluster that was made by itself has its own identity.
        template::make(&home.path().join("unfinished"), &home.path().join("data"));
        let copy = Self::on(home, self.settings.clone()).await;
        self.copy_schema_to(&copy);
        self.sql("CREATE PUBLICATION everything FOR ALL TABLES").await;
        let (host, port) = (self.home().display(), self.port());
        copy.sql(&format!(
            "CREATE SUBSCRIPTION everything
                 CONNECTION 'host={host} port={port} user=postgres dbname=keystead'
                 PUBLICATION everything"
        ))
        .await;
        eventually("every table has been copied", async || {
            let left = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
            (copy.value(left).await == "0").then_some(())
        })
        .await;
        copy
    }

    /// Waits until this copy has all changes of keys that its origin has, and ends
    /// the copying.
    pub(crate) async fn cut_over(&self, origin: &Self) {
        let head = "SELECT max(revision) FROM keystead.key_changes";
        eventually("the copy has everything", async || {
            (self.value(head).await == origin.value(head).await).then_some(())
        })
        .await;
        self.sql("DROP SUBSCRIPTION everything").await;
    }

    fn copy_schema_to(&self, copy: &Self) {
        let connection = |command: &mut Command, server: &Self| {
            command.arg("--host").arg(server.home()).arg("--port").arg(server.port().to_string());
            command.args(["--username=postgres", "--dbname=keystead"]);
        };
        let mut dump = unprivileged(&template::binary("pg_dump"));
        connection(dump.args(["--schema-only", "--schema=keystead"]), self);
        let mut dump = dump.stdout(Stdio::piped()).spawn().unwrap();
        let mut load = unprivileged(&template::binary("psql"));
        connection(load.args(["--quiet", "--set=ON_ERROR_STOP=1"]), copy);
        run(load.stdin(dump.stdout.take().unwrap()));
        assert!(dump.wait().unwrap().success());
    }
}
