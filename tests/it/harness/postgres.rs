//! A private PostgreSQL server.

pub(crate) mod logical;
mod standby;
mod template;

use std::{
    fmt::Write,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{
    DEADLINE, beside, eventually, free_port,
    process::{Server, run, signal},
};

/// The password of every role that a test logs in with. No error may show it.
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// Extra settings of a server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    /// Lines of `postgresql.conf`.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Files in the data directory, readable for the server alone.
    pub(crate) files: Vec<(&'static str, String)>,
}

/// Its own server for one test: its own data, its own port on 127.0.0.1,
/// its own processes. The database is `keystead`, owned by the role `keystead`.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Option<Server>,
    home: TempDir,
    port: u16,
    settings: Vec<(&'static str, String)>,
}

impl Postgres {
    /// A running server.
    pub(crate) async fn start_new() -> Self {
        Self::with(Setup::default()).await
    }

    /// A running server with its own settings.
    pub(crate) async fn with(setup: Setup) -> Self {
        let home = new_home();
        let data = home.path().join("data");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(template::path()).arg(&data));
        let owner = owner();
        for (name, content) in &setup.files {
            let file = data.join(name);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        Self::on(home, setup.settings).await
    }

    /// A running server on data that is there.
    async fn on(home: TempDir, settings: Vec<(&'static str, String)>) -> Self {
        let mut postgres = Self { server: None, home, port: free_port(), settings };
        while !postgres.try_start().await {
            // Somebody else was given the port meanwhile.
            postgres.port = free_port();
        }
        postgres
    }

    /// Starts it again, on the same port and with the same data.
    pub(crate) async fn start(&mut self) {
        assert!(self.server.is_none(), "it is running");
        assert!(self.try_start().await, "the port was taken meanwhile: {}", self.log());
    }

    /// False when the port is taken.
    async fn try_start(&mut self) -> bool {
        let home = self.home.path().to_str().unwrap();
        let mut arguments = vec!["-D".to_owned(), format!("{home}/data")];
        let own = [
            ("port", self.port.to_string()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", home.to_owned()),
            // Nothing of this has to survive the machine, and it must be quick.
            ("fsync", "off".to_owned()),
            ("shared_buffers", "16MB".to_owned()),
            ("dynamic_shared_memory_type", "mmap".to_owned()),
            ("max_connections", "30".to_owned()),
        ];
        for (name, value) in own.iter().chain(&self.settings) {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let log = self.home.path().join("log");
        let _ = fs::remove_file(&log);
        let mut server = Server::spawn(&template::binary("postgres"), &arguments, &log);
        let this = &*self;
        let answers = eventually("PostgreSQL accepts connections", async || {
            if server.has_ended() {
                let log = this.log();
                assert!(log.contains("Address already in use"), "PostgreSQL ended: {log}");
                return Some(false);
            }
            this.connecting().connect().await.ok().map(|_| true)
        });
        let answers = answers.await;
        self.server = answers.then_some(server);
        answers
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where its socket is, and where other servers of the test may put theirs.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The URL for the owner of the database.
    pub(crate) fn url(&self) -> String {
        self.url_for("keystead")
    }

    /// The URL for another role, which is made with [`PASSWORD`].
    pub(crate) fn url_for(&self, role: &str) -> String {
        format!("postgres://{role}:{PASSWORD}@127.0.0.1:{}/keystead", self.port)
    }

    /// Makes a role that may log in.
    pub(crate) async fn add_role(&self, role: &str) {
        self.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")).await;
    }

    /// Kills the server with all its backends.
    pub(crate) fn kill(&mut self) {
        self.server.take().expect("it is running").kill();
    }

    /// Stops the server with all its backends: connections stay open, new ones
    /// are taken by the kernel, nothing is answered.
    pub(crate) fn stop_all(&self) {
        self.server.as_ref().expect("it is running").stop_all();
    }

    /// Lets it go on.
    pub(crate) fn cont_all(&self) {
        self.server.as_ref().expect("it is running").cont_all();
    }

    /// Stops some of its [backends](Postgres::backends), or lets them go on: the
    /// server itself keeps accepting connections.
    pub(crate) fn signal(&self, name: &str, backends: &[String]) {
        assert!(self.server.is_some(), "it is not running");
        signal(name, backends);
    }

    /// A connection of the superuser, over the Unix socket. The last three
    /// connections of the server are kept for it.
    pub(crate) async fn client(&self) -> Client {
        self.connecting().connect().await.unwrap()
    }

    /// How [`Postgres::client`] connects, for whom the server may be down.
    pub(crate) fn connecting(&self) -> Connecting {
        Connecting { home: self.home.path().to_owned(), port: self.port }
    }

    /// Runs statements as the superuser; returns the rows, a text each, with
    /// columns between `|`.
    pub(crate) async fn sql(&self, statements: &str) -> Vec<String> {
        rows(&self.client().await, statements).await
    }

    /// The first column of the first row.
    pub(crate) async fn value(&self, statement: &str) -> String {
        self.sql(statement).await.into_iter().next().expect("a row")
    }

    /// Opens connections until no role but the superuser gets one. They are
    /// closed when the answer is dropped.
    pub(crate) async fn use_up_connections(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        loop {
            let connecting = tokio_postgres::connect(&self.url(), NoTls).await;
            let Ok((client, connection)) = connecting else {
                return clients;
            };
            beside(connection);
            clients.push(client);
        }
    }

    /// The process ids of the server's side of Keystead's connections.
    pub(crate) async fn backends(&self) -> Vec<String> {
        self.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'keystead' ORDER BY pid",
        )
        .await
    }
}

impl Drop for Postgres {
    /// A server that is killed leaves a segment of shared memory behind, by which
    /// another would tell that its data are in use. A machine has a few thousand.
    fn drop(&mut self) {
        drop(self.server.take());
        let told = fs::read_to_string(self.home.path().join("data/postmaster.pid"));
        // In the seventh line, behind its key.
        let told = told.unwrap_or_default();
        let segment = told.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            // Not a panic, which would hide that of the test.
            let _ = Command::new("ipcrm").args(["-m", segment]).output();
        }
    }
}

/// The way to a server for its superuser.
#[derive(Debug, Clone)]
pub(crate) struct Connecting {
    home: PathBuf,
    port: u16,
}

impl Connecting {
    pub(crate) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let connecting = tokio_postgres::Config::new()
            .host_path(&self.home)
            .port(self.port)
            .user("postgres")
            .dbname("keystead")
            .application_name("test")
            .connect_timeout(DEADLINE)
            .connect(NoTls)
            .await;
        let (client, connection) = connecting?;
        beside(connection);
        Ok(client)
    }
}

/// Runs statements; returns the rows, a text each, with columns between `|`.
pub(crate) async fn rows(client: &Client, statements: &str) -> Vec<String> {
    let answer = client.simple_query(statements).await;
    let messages = answer.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    let mut rows = Vec::new();
    for message in &messages {
        if let SimpleQueryMessage::Row(row) = message {
            let mut text = String::new();
            for column in 0..row.len() {
                let separator = if column == 0 { "" } else { "|" };
                write!(text, "{separator}{}", row.get(column).unwrap_or("NULL")).unwrap();
            }
            rows.push(text);
        }
    }
    rows
}

/// A folder of the user who runs servers.
fn new_home() -> TempDir {
    let home = tempfile::Builder::new()
        .prefix("ks-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in("/tmp") // A socket's path has at most 107 bytes.
        .unwrap();
    let owner = owner();
    chown(home.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    home
}

/// Of the data of servers.
fn owner() -> fs::Metadata {
    fs::metadata(template::path()).unwrap()
}

/// The first path that exists, or the bare name if the shell would find it.
pub(crate) fn find_binary(name: &str, directories: &[PathBuf], remedy: &str) -> PathBuf {
    let there = directories.iter().map(|directory| directory.join(name)).find(|p| p.exists());
    let runs = || Command::new(name).arg("--version").output().is_ok();
    there
        .or_else(|| runs().then(|| PathBuf::from(name)))
        .unwrap_or_else(|| panic!("`{name}` is missing; {remedy}"))
}
