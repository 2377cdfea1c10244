//! Keystead itself: the very program, in a folder of its own, with typical keys.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use keystead::{
    app::{self, Opened},
    config::Config,
    key::{Environment, NewKey},
    store::{KeyAdmin, Provenance, StoreUrl},
    time::Clock,
};
use prost::Message as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Builder;

use crate::{
    Result,
    load::framed,
    process::{Place, Process},
    typical,
};

/// The paths of the two methods.
pub(crate) const CHECK: &str = "/keystead.v1.Authz/Check";
pub(crate) const ENVOY_CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A program that runs instead of the one that was built with the suite.
static INSTEAD: OnceLock<PathBuf> = OnceLock::new();

/// How many keys are stored at once.
const STORED_AT_ONCE: usize = 10_000;

/// How long that may take on a busy machine.
const STORED_WITHIN: Duration = Duration::from_secs(25);

/// An embedded store in a folder of its own.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
    program: PathBuf,
}

/// A service that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
    admin: SocketAddr,
}

/// What a service has counted so far.
#[derive(Debug, Clone)]
pub(crate) struct Counted(BTreeMap<String, f64>);

/// Lets another program run from now on.
pub(crate) fn run_instead(program: PathBuf) -> Result<()> {
    INSTEAD.set(program).map_err(|_| "another program runs instead already".into())
}

/// The program that runs.
pub(crate) fn program() -> &'static Path {
    INSTEAD.get().map_or(Path::new(env!("CARGO_BIN_EXE_keystead")), PathBuf::as_path)
}

/// A typical request, as the body of a call.
pub(crate) fn typical_request(key: &str) -> Result<Vec<u8>> {
    framed(&typical::request(key).encode_to_vec())
}

impl Site {
    pub(crate) fn new() -> Result<Self> {
        Self::of(program())
    }

    /// Where this program serves.
    pub(crate) fn of(program: &Path) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, program: program.to_owned() })
    }

    /// Where a file of that name is or would be.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file for the site.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Stores so many typical keys, and returns them as clients present them.
    pub(crate) fn mint(&self, count: usize) -> Result<Vec<String>> {
        let mut config = Config::default();
        config.store.url = StoreUrl::Sqlite { path: self.path("keystead.db") };
        // Many are stored at once.
        config.store.guard.query_timeout = STORED_WITHIN;
        let by = Provenance {
            actor: "bench".to_owned(),
            origin: "bench".to_owned(),
            at: Clock::System.wall(),
        };
        Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let Opened { store, ring, .. } = app::open_store(&config).await?;
            let mut keys = Vec::with_capacity(count);
            while keys.len() < count {
                let some = STORED_AT_ONCE.min(count - keys.len());
                let mut new = Vec::with_capacity(some);
                for _ in 0..some {
                    let minted = ring.mint(Environment::Live)?;
                    keys.push(minted.key.expose().to_owned());
                    new.push(NewKey::minted(&minted, typical::rights()));
                }
                store.insert(&new, &by).await?;
            }
            Ok(keys)
        })
    }

    /// Serves there with these lines of TOML, and everything else as it is by
    /// default; also with a snapshot, which is off by default.
    pub(crate) fn serve(&self, place: Place, settings: &str) -> Result<Service> {
        let config = self
            .write("keystead.toml", format!("[snapshot]\npath = \"snapshot\"\n\n{settings}\n"))?;
        let mut command = place.command(&self.program)?;
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]);
        command.arg(config).env_clear().current_dir(self.folder.path());
        command.stdout(File::create(self.path("stdout"))?).stderr(Stdio::piped());
        let (process, addresses) = Process::serve(&mut command, addresses)?;
        Ok(Service { process, grpc: addresses[0], admin: addresses[1] })
    }
}

/// The addresses in the line of the log that tells them.
fn addresses(line: &str) -> Option<Vec<SocketAddr>> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| line[name].as_str()?.parse().ok();
    (line["message"] == "serving").then_some(vec![address("grpc")?, address("admin")?])
}

impl Service {
    pub(crate) fn counted(&self) -> Result<Counted> {
        Counted::at(self.admin)
    }
}

impl Counted {
    /// What the service has counted whose admin listener is there.
    pub(crate) fn at(admin: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(admin)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: keystead\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Ok(Self(series.collect()))
    }

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
