//! Keystead itself: the very program, in a folder of its own.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use keystead::{
    app::{self, Opened},
    config::Config,
    key::{Environment, NewKey},
    store::{KeyAdmin, Provenance, StoreUrl},
    time::Clock,
    transport::health_pb::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    },
};
use prost::Message as _;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    Result,
    figures::{count, grouped},
    grpc::{Channel, block_on, framed},
    process::{Place, Process, free_address, run},
    typical,
};

/// The paths of the two methods.
pub(crate) const CHECK: &str = "/keystead.v1.Authz/Check";
pub(crate) const ENVOY_CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A program that runs instead of the one that was built with the suite.
static INSTEAD: OnceLock<PathBuf> = OnceLock::new();

/// How long it may take to store a key on a busy machine.
const STORED_WITHIN: Duration = Duration::from_secs(25);

/// How long a service may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A folder to run the program in, and its settings.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    folder: Arc<TempDir>,
    binary: PathBuf,
    place: Place,
    /// Names of the environment with their values.
    settings: Vec<(String, String)>,
}

/// A service that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) process: Process,
    /// Where it will serve gRPC.
    pub(crate) grpc: SocketAddr,
    admin: SocketAddr,
    _folder: Arc<TempDir>,
}

/// What a service has counted so far.
#[derive(Debug, Clone)]
pub(crate) struct Counted(BTreeMap<String, f64>);

/// Lets another program run from now on.
pub(crate) fn run_instead(program: PathBuf) -> Result<()> {
    INSTEAD.set(program).map_err(|_| "another program runs instead already".into())
}

/// A typical request, as the body of a call.
pub(crate) fn typical_request(key: &str) -> Vec<u8> {
    framed(&typical::request(key).encode_to_vec())
}

impl Program {
    /// With an embedded store and a secret that it makes by itself.
    pub(crate) fn new(place: Place) -> Result<Self> {
        let built = || Path::new(env!("CARGO_BIN_EXE_keystead")).to_owned();
        let binary = INSTEAD.get().cloned().unwrap_or_else(built);
        Ok(Self { folder: Arc::new(tempfile::tempdir()?), binary, place, settings: Vec::new() })
    }

    /// With a secret, and a store.
    pub(crate) fn with_store(place: Place, secret: &str, store: &str) -> Result<Self> {
        let program = Self::new(place)?;
        let file = program.write("secret", secret)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        Ok(program.with("KEYS__SECRET_FILE", file.display()).with("STORE__URL", store))
    }

    /// Another build of it.
    pub(crate) fn built_at(self, binary: PathBuf) -> Self {
        Self { binary, ..self }
    }

    /// With another setting, such as `FILL__BATCH_MAX`.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((format!("KEYSTEAD_{name}"), value.to_string()));
        self
    }

    /// With a copy of this snapshot of so many keys, if there are any, and room for more.
    pub(crate) fn with_snapshot(self, snapshot: &Path, keys: u64) -> Result<Self> {
        let path = self.path("snapshot");
        for end in ["", ".changes", ".end"].iter().filter(|_| keys > 0) {
            let file = |path: &Path| format!("{}{end}", path.display());
            fs::copy(file(snapshot), file(&path))?;
        }
        let room = keys + keys / 4 + 100_000;
        Ok(self.with("SNAPSHOT__PATH", path.display()).with("CACHE__MAX_ENTRIES", room))
    }

    /// Where a file of that name is or would be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into its folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Stores a typical key in the embedded store, and returns it as clients present it.
    pub(crate) fn mint(&self) -> Result<String> {
        let mut config = Config::default();
        config.store.url = StoreUrl::Sqlite { path: self.path("keystead.db") };
        config.store.guard.query_timeout = STORED_WITHIN;
        let by = Provenance {
            actor: "bench".to_owned(),
            origin: "bench".to_owned(),
            at: Clock::System.wall(),
        };
        block_on(async {
            let Opened { store, ring, .. } = app::open_store(&config).await?;
            let minted = ring.mint(Environment::Live)?;
            store.insert(&[NewKey::minted(&minted, typical::rights())], &by).await?;
            Ok(minted.key.expose().to_owned())
        })
    }

    /// Brings the schema of its store up to date.
    pub(crate) fn migrate(&self) -> Result<()> {
        run(self.command()?.arg("migrate")).map(drop)
    }

    /// Starts the service, and does not wait until it serves.
    pub(crate) fn start(&self) -> Result<Service> {
        let (grpc, admin) = (free_address()?, free_address()?);
        let mut command = self.command()?;
        command.args(["serve", "--listen", &grpc.to_string(), "--admin", &admin.to_string()]);
        let process = Process::start(&mut command, &self.path("log"))?;
        Ok(Service { process, grpc, admin, _folder: Arc::clone(&self.folder) })
    }

    /// A service that serves.
    pub(crate) async fn serve(&self) -> Result<Service> {
        let mut service = self.start()?;
        let deadline = Instant::now() + START_LIMIT;
        while !service.is_serving("").await.unwrap_or(false) {
            service.process.check_alive(deadline)?;
            sleep(Duration::from_millis(5)).await;
        }
        Ok(service)
    }

    fn command(&self) -> Result<std::process::Command> {
        let mut command = self.place.command(&self.binary, None)?;
        command.envs(self.settings.iter().cloned()).current_dir(self.folder.path());
        Ok(command)
    }
}

impl Service {
    /// Whether it says that the service of that name is SERVING, and can be reached.
    pub(crate) async fn is_serving(&self, name: &str) -> Result<bool> {
        let request = HealthCheckRequest { service: name.to_owned() };
        let request = framed(&request.encode_to_vec()).into();
        let answer = Channel::connect(self.grpc).await?.call(HEALTH, request).await?;
        Ok(HealthCheckResponse::decode(answer.message)?.status() == ServingStatus::Serving)
    }

    /// What it has counted so far.
    pub(crate) fn counted(&self) -> Result<Counted> {
        let mut stream = TcpStream::connect(self.admin)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: keystead\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Ok(Counted(series.collect()))
    }

    /// Fails unless so many keys are in memory.
    pub(crate) fn check_held(&self, keys: u64) -> Result<()> {
        let held = self.counted()?.sum("keystead_cache_entries", &[]);
        if grouped(held) != count(keys) {
            let said = self.process.said()?;
            return Err(format!("{held} of {keys} keys are in memory: {said}").into());
        }
        Ok(())
    }
}

impl Counted {
    /// The sum of all series of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let of_name = |series: &str| series.split('{').next() == Some(name);
        let all = self.0.iter().filter(|(series, _)| {
            of_name(series) && labels.iter().all(|label| series.contains(label))
        });
        all.map(|(_, value)| value).sum()
    }

    /// By how much that sum has grown since.
    pub(crate) fn grown(&self, since: &Self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels) - since.sum(name, labels)
    }
}
