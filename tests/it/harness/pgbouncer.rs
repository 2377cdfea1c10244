//! PgBouncer, in front of a private PostgreSQL.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use tokio::net::TcpStream;

use super::{
    eventually, free_port,
    postgres::{PASSWORD, Postgres, find_binary},
    process::Server,
};

/// To whom a connection to the server belongs, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PoolMode {
    /// To one client until it leaves.
    Session,
    /// To one client for a transaction.
    Transaction,
}

/// A running PgBouncer. It has two connections to the server, however many it
/// takes, so that transactions of different clients meet on the same one.
#[derive(Debug)]
pub(crate) struct PgBouncer {
    _server: Server,
    port: u16,
}

impl PgBouncer {
    /// Starts one. It must be dropped before `postgres`, whose directory it uses.
    pub(crate) async fn before(postgres: &Postgres, mode: PoolMode) -> Self {
        loop {
            if let Some(started) = Self::try_start(postgres, mode, free_port()).await {
                return started;
            }
        }
    }

    /// `None` when the port is taken.
    async fn try_start(postgres: &Postgres, mode: PoolMode, port: u16) -> Option<Self> {
        let home = postgres.home();
        let users = format!("\"keystead\" \"{PASSWORD}\"\n");
        let users = write(&home.join("users.txt"), &users, home);
        let ini = format!(
            "[databases]\nkeystead = host=127.0.0.1 port={}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\n\
             pool_mode = {}\ndefault_pool_size = 2\n\
             server_login_retry = 1\n",
            postgres.port(),
            users.display(),
            match mode {
                PoolMode::Session => "session",
                PoolMode::Transaction => "transaction",
            },
        );
        let ini = write(&home.join("pgbouncer.ini"), &ini, home);
        let log = home.join("pgbouncer.log");
        let _ = File::create(&log).unwrap();
        let directories = [PathBuf::from("/usr/sbin")];
        let remedy = "install it with `apt-get install pgbouncer`";
        let program = find_binary("pgbouncer", &directories, remedy);
        let mut server = Server::spawn(&program, &[ini.to_str().unwrap().to_owned()], &log);

        let accepts = eventually("PgBouncer accepts connections", async || {
            if server.has_ended() {
                let log = fs::read_to_string(&log).unwrap();
                assert!(log.contains("Address already in use"), "PgBouncer ended: {log}");
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| true)
        });
        accepts.await.then_some(Self { _server: server, port })
    }

    /// Its port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the database through it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://keystead:{PASSWORD}@127.0.0.1:{}/keystead", self.port)
    }
}

/// Writes a file for the user who owns `home`.
fn write(path: &Path, content: &str, home: &Path) -> PathBuf {
    let owner = fs::metadata(home).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    path.to_owned()
}
