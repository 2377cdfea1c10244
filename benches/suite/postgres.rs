//! A private PostgreSQL server.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::SinkExt as _;
use keystead::{
    key::{Digest, NewKey, Revision},
    store::{ChangeKind, Row},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::{
    Result,
    grpc::block_on,
    process::{Place, Process, free_address, run},
};

/// How long it may take to let somebody in.
const START_LIMIT: Duration = Duration::from_secs(30);

/// As it is set up otherwise: nothing of it has to survive the machine, and all of
/// it fits into memory.
const SETTINGS: [&str; 3] = ["fsync=off", "shared_buffers=512MB", "max_wal_size=4GB"];

/// A server with data of its own, whose database `postgres` anybody on this machine
/// may use as its superuser.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// Dropped first: the server must not outlive its data.
    process: Process,
    _home: TempDir,
    pub(crate) address: SocketAddr,
}

impl Postgres {
    /// A running server with an empty database.
    pub(crate) fn start(place: Place) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("keystead-bench-").tempdir_in("/tmp")?;
        // The user who runs it makes the data in here.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777))?;
        let data = home.path().join("data");
        // It refuses to run as root.
        let is_root = fs::metadata("/proc/self")?.uid() == 0;
        let user = is_root.then_some("postgres");
        let mut initdb = Place::Anywhere.command(binary("initdb"), user)?;
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--no-sync", "--pgdata"]).arg(&data);
        run(&mut initdb)?;

        let address = free_address()?;
        let mut command = place.command(binary("postgres"), user)?;
        command.arg("-D").arg(&data).args(["-h", &address.ip().to_string()]);
        command.args(["-p", &address.port().to_string(), "-k"]).arg(home.path());
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let process = Process::start(&mut command, &home.path().join("log"))?;
        let mut server = Self { process, _home: home, address };
        // It listens before it lets anybody in.
        let deadline = Instant::now() + START_LIMIT;
        while block_on(connect(address)).is_err() {
            server.process.check_alive(deadline)?;
            thread::park_timeout(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Stops all that it does, without closing a connection.
    pub(crate) fn hang(&self) -> Result<()> {
        self.process.signal_all(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        self.process.signal_all(Signal::SIGCONT)
    }

    /// Ends it at once, with all its processes.
    pub(crate) fn end(&self) -> Result<()> {
        self.process.signal_all(Signal::SIGQUIT)
    }

    /// Stores keys as if by `keystead keys create`, all at once; the newest change.
    pub(crate) async fn store(&self, keys: impl Iterator<Item = NewKey>) -> Result<Row> {
        let client = connect(self.address).await?;
        let copy = "COPY keystead.api_keys (id, digest, secret, hint, principal, name, scopes, \
                    metadata, expires_at) FROM STDIN";
        let mut sink = Box::pin(client.copy_in::<_, Bytes>(copy).await?);
        for key in keys {
            sink.send(row(&key)?.into()).await?;
        }
        sink.as_mut().finish().await?;
        client.batch_execute("VACUUM ANALYZE keystead.api_keys").await?;
        let query = "SELECT revision, digest FROM keystead.key_changes WHERE kind = 'created' \
                     ORDER BY 1 DESC LIMIT 1";
        let row = client.query_one(query, &[]).await?;
        let digest = Digest::try_from(row.try_get::<_, &[u8]>(1)?).map_err(|it| it.to_string())?;
        Ok(Row { revision: Revision(row.try_get(0)?), digest, kind: Some(ChangeKind::Created) })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.end();
    }
}

/// The URL of the database behind an address.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("postgres://postgres@{address}/postgres?sslmode=disable")
}

/// A connection over an address.
pub(crate) async fn connect(address: SocketAddr) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(&url(address), NoTls).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(connection);
    Ok(client)
}

/// A line of COPY's text format. No value here holds what it escapes.
fn row(key: &NewKey) -> Result<String> {
    let rights = &key.rights;
    let or_null = |value: Option<String>| value.unwrap_or_else(|| "\\N".to_owned());
    let fields = [
        key.id.as_str(),
        &format!("\\\\x{}", key.digest.to_hex()),
        &or_null(key.secret.map(|secret| secret.to_string())),
        &key.hint,
        &rights.principal,
        &rights.name,
        &format!("{{{}}}", rights.scopes.join(",")),
        &serde_json::to_string(&rights.metadata)?,
        &or_null(rights.expires_at.map(|end| end.to_string())),
    ];
    Ok(fields.join("\t") + "\n")
}

/// A program of PostgreSQL.
fn binary(name: &str) -> PathBuf {
    // Where Debian keeps them, one directory a version.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let there = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)));
    there.filter(|path| path.exists()).max().unwrap_or_else(|| PathBuf::from(name))
}
