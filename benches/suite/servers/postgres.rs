//! A private PostgreSQL server.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::SinkExt;
use keystead::key::NewKey;
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::{
    free_address,
    process::{Process, User, cpu_time, run},
};
use crate::{Result, process::Place};

/// How long it may take to accept connections.
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
    address: SocketAddr,
}

impl Postgres {
    /// A running server with an empty database.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_at(Place::Anywhere).await
    }

    /// The same, on these cores.
    pub(crate) async fn start_at(place: Place) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("keystead-bench-").tempdir_in("/tmp")?;
        // The user who runs it makes the data in here.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777))?;
        let data = home.path().join("data");
        let mut initdb = Command::new(binary("initdb"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--no-sync", "--pgdata"]).arg(&data);
        run(&initdb, User::Postgres)?;

        let address = free_address()?;
        let mut words: Vec<_> = place.words()?.into_iter().map(PathBuf::from).collect();
        words.push(binary("postgres"));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-D").arg(&data);
        let (ip, port) = (address.ip(), address.port());
        let own = [format!("listen_addresses={ip}"), format!("port={port}")];
        let sockets = format!("unix_socket_directories={}", home.path().display());
        let own = own.into_iter().chain([sockets]).chain(SETTINGS.map(str::to_owned));
        own.for_each(|setting| {
            command.arg("-c").arg(setting);
        });
        let log = home.path().join("log");
        let process = Process::start(&command, User::Postgres, &log)?;
        let mut server = Self { process, _home: home, address };
        server.until_it_answers(&log).await?;
        Ok(server)
    }

    async fn until_it_answers(&mut self, log: &Path) -> Result<()> {
        let began = Instant::now();
        while self.client().await.is_err() {
            if self.process.has_ended()? || began.elapsed() > START_LIMIT {
                return Err(format!("PostgreSQL: {}", fs::read_to_string(log)?).into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The CPU time that it has used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.process.id())
    }

    /// Stops all that it does, without closing a connection.
    pub(crate) fn hang(&self) -> Result<()> {
        self.process.signal_all("STOP")
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        self.process.signal_all("CONT")
    }

    /// A connection without anything between.
    pub(crate) async fn client(&self) -> Result<Client> {
        connect(self.address).await
    }

    /// Stores keys as if by `keystead keys create`, all at once.
    pub(crate) async fn store(&self, keys: impl Iterator<Item = NewKey>) -> Result<()> {
        let client = self.client().await?;
        let copy = "COPY keystead.api_keys (id, digest, secret, hint, principal, name, scopes, \
                    metadata, expires_at) FROM STDIN";
        let mut sink = Box::pin(client.copy_in::<_, Bytes>(copy).await?);
        let mut count = 0;
        for key in keys {
            sink.send(row(&key)?.into()).await?;
            count += 1;
        }
        let stored = sink.as_mut().finish().await?;
        assert_eq!(stored, count, "PostgreSQL did not take all keys");
        client.batch_execute("VACUUM ANALYZE keystead.api_keys").await?;
        Ok(())
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
    let scopes = format!("{{{}}}", rights.scopes.join(","));
    let secret = key.secret.map_or_else(|| "\\N".to_owned(), |secret| secret.to_string());
    let ends = rights.expires_at.map_or_else(|| "\\N".to_owned(), |end| end.to_string());
    let fields = [
        key.id.as_str(),
        &format!("\\\\x{}", key.digest.to_hex()),
        &secret,
        &key.hint,
        &rights.principal,
        &rights.name,
        &scopes,
        &serde_json::to_string(&rights.metadata)?,
        &ends,
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
