//! What a service under a steady load needs: PostgreSQL with typical keys behind the
//! proxy, snapshots that it starts warm from, and the requests for its keys.
//!
//! The service has the first core for itself. The loader, PostgreSQL, the proxy and
//! the suite are on the others, so that what is measured of the service is its own.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use keystead::{
    key::{Digest, Environment, KeyRecord, KeyRing, NewKey},
    store::{Position, Row, StoreIdentity},
    time::Clock,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    Result, format,
    keystead::{CHECK, typical_request},
    load::Pressure,
    open_loop::{Flow, Plan},
    population::{self, Kind},
    process::Place,
    servers::{Network, Postgres, Program, Service, url},
    snapshot,
    start::{beside, newest},
    statistics::grouped,
    typical,
};

/// How many connections share a load, where nothing else is said.
pub(crate) const CONNECTIONS: usize = 8;

/// How many requests are under way at all times when there is no rate: as many as in
/// the part `hit`.
pub(crate) const UNDER_WAY: usize = 256;

/// By how much the network makes a round trip longer.
const LONGER: Duration = Duration::from_millis(1);

/// How long a service may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// No snapshot while it is measured, and patience with a store on a busy machine.
pub(crate) const PATIENT: [(&str, &str); 3] =
    [("SNAPSHOT__EVERY", "1h"), ("CHECK__TIMEOUT", "5s"), ("STORE__GUARD__QUERY_TIMEOUT", "2s")];

/// Everything but services and loaders.
pub(crate) struct Ground {
    runtime: Runtime,
    pub(crate) postgres: Postgres,
    url: String,
    secret: String,
    ring: KeyRing,
    /// The newest change in the store.
    newest: Row,
    folder: TempDir,
    stored: Vec<Key>,
}

/// A key, and the request for it.
#[derive(Clone)]
struct Key {
    digest: Digest,
    request: Bytes,
}

/// A snapshot of so many keys.
pub(crate) struct Filled {
    path: PathBuf,
    pub(crate) keys: u64,
    /// The requests for all of them, in no order.
    pub(crate) requests: PathBuf,
}

impl Ground {
    /// With so many keys in the store.
    pub(crate) fn set(keys: usize) -> Result<Self> {
        let runtime = Runtime::new()?;
        let (secret, ring) = population::secret()?;
        let (postgres, network, stored, newest) = runtime.block_on(async {
            let postgres = Postgres::start_at(Place::Beside).await?;
            let target = postgres.address();
            // What it starts stays where it is.
            let network = thread::spawn(move || {
                Place::Beside.keep_this_thread()?;
                Network::before(target, LONGER)
            });
            let network = network.join().map_err(|_| "the proxy did not start")??;
            Program::new(&secret, &url(target))?.migrate()?;
            let now = Clock::System.wall();
            let (mut stored, mut new) = (Vec::new(), Vec::new());
            for number in 0..keys as u64 {
                let minted = ring.mint(Environment::Live)?;
                new.push(NewKey::minted(&minted, population::rights(Kind::Typical, number, now)));
                let request = typical_request(minted.key.expose())?.into();
                stored.push(Key { digest: minted.digest, request });
            }
            postgres.store(new.into_iter()).await?;
            let newest = newest(&postgres).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((postgres, network, stored, newest))
        })?;
        let (url, folder) = (url(network.address()), tempfile::tempdir()?);
        Ok(Self { runtime, postgres, url, secret, ring, newest, folder, stored })
    }

    /// The requests for the keys in the store of these numbers, in a file.
    pub(crate) fn requests(&self, numbers: std::ops::Range<usize>) -> Result<PathBuf> {
        let name = format!("stored-{}-{}", numbers.start, numbers.end);
        let some = self.stored.get(numbers).ok_or("there are not so many keys")?;
        self.file(&name, some.iter().map(|key| &key.request))
    }

    /// The requests for a thousand keys of the right form with a wrong tag.
    pub(crate) fn forged(&self) -> Result<PathBuf> {
        let mut all = Vec::new();
        for _ in 0..1_000 {
            let minted = self.ring.mint(Environment::Live)?;
            all.push(Bytes::from(typical_request(&typical::forged(minted.key.expose()))?));
        }
        self.file("forged", all.iter())
    }

    pub(crate) fn file<'a>(
        &self,
        name: &str,
        requests: impl Iterator<Item = &'a Bytes>,
    ) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        let all: Vec<_> = requests.map(AsRef::<[u8]>::as_ref).collect();
        fs::write(&path, all.concat())?;
        Ok(path)
    }

    /// A snapshot of so many keys: the first ones of the store, `stored` of them, and
    /// others that only the snapshot has.
    pub(crate) fn fill(&self, stored: usize, keys: u64) -> Result<Filled> {
        let path = self.folder.path().join(format!("snapshot-{keys}"));
        let setup =
            snapshot::setup(path.clone(), &self.ring, StoreIdentity::of(&self.url.parse()?, None));
        let now = Clock::System.moment();
        let mut all = self.stored.get(..stored).ok_or("there are not so many keys")?.to_vec();
        while (all.len() as u64) < keys {
            let minted = self.ring.mint(Environment::Live)?;
            let request = typical_request(minted.key.expose())?.into();
            all.push(Key { digest: minted.digest, request });
        }
        self.runtime.block_on(async {
            let warm = snapshot::load(setup, keys + 1_000).await?;
            for (number, key) in (0..).zip(&all) {
                let record = population::record(Kind::Typical, number, now.wall)?;
                let record = KeyRecord { revision: self.newest.revision, ..record };
                population::take(&warm.memory, key.digest, &record, now.monotonic)?;
            }
            assert_eq!(warm.memory.len() as u64, keys, "there was no room for all");
            let position = Position { revision: self.newest.revision, landmark: Some(self.newest) };
            snapshot::write(warm, position, now.monotonic).await;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })?;
        let requests = self.file(&format!("filled-{keys}"), all.iter().map(|key| &key.request))?;
        Ok(Filled { path, keys, requests })
    }

    /// A service that serves, with all of a snapshot in memory if it is given one, and
    /// with these settings.
    pub(crate) fn serve(
        &self,
        place: Place,
        filled: Option<&Filled>,
        settings: &[(&str, &str)],
    ) -> Result<Running> {
        let mut program = Program::new(&self.secret, &self.url)?.at(place);
        if let Some(filled) = filled {
            let path = program.path("snapshot");
            for suffix in ["", ".changes"] {
                fs::copy(beside(&filled.path, suffix), beside(&path, suffix))?;
            }
            let room = filled.keys + filled.keys / 4 + 100_000;
            program = program.with("SNAPSHOT__PATH", path.display());
            program = program.with("CACHE__MAX_ENTRIES", room);
        }
        for (name, value) in settings {
            program = program.with(name, value);
        }
        let mut service = program.serve()?;
        let began = Instant::now();
        while !self.runtime.block_on(service.is_serving("")).unwrap_or(false) {
            service.check_alive()?;
            if began.elapsed() > START_LIMIT {
                return Err(format!("it is not ready: {}", service.log()?).into());
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        if let Some(filled) = filled {
            let held = service.counted()?.sum("keystead_cache_entries", &[]);
            assert_eq!(grouped(held), format::count(filled.keys), "not all is in memory");
        }
        Ok(Running { service, _program: program })
    }
}

/// What a service can do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Capacity {
    pub(crate) per_second: f64,
    /// Which part of the time it was busy: below about 0.9 it is the loader, or the
    /// machine, that could do no more.
    pub(crate) busy: f64,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, busy } = self;
        write!(
            f,
            "{} checks/s here, for which it was busy {:.0} %",
            grouped(*per_second),
            busy * 100.0
        )?;
        f.write_str(" of the time")
    }
}

/// The requests of a file to a server, over this many connections.
pub(crate) fn flow(
    address: SocketAddr,
    messages: &Path,
    pressure: Pressure,
    connections: usize,
) -> Flow {
    let (path, messages) = (CHECK.to_owned(), messages.to_owned());
    Flow { address, path, messages, connections, pressure }
}

/// A service, which ends when this is dropped.
pub(crate) struct Running {
    pub(crate) service: Service,
    _program: Program,
}

impl Running {
    /// The requests of a file, over this many connections.
    pub(crate) fn flow(&self, messages: &Path, pressure: Pressure, connections: usize) -> Flow {
        flow(self.service.grpc, messages, pressure, connections)
    }

    /// What it answers without rest; all with OK.
    pub(crate) fn capacity(&self, messages: &Path, lasts: Duration) -> Result<Capacity> {
        let flows = vec![self.flow(messages, Pressure::UnderWay(UNDER_WAY), CONNECTIONS)];
        let done = Plan { flows, lasts }.run_on(|| self.service.busy())?;
        Ok(Capacity { per_second: done.tallies[0].all_granted()?.per_second(), busy: done.share() })
    }
}
