//! How long after its start an instance answers, with and without a snapshot, and
//! with its store up and down.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use keystead::{
    key::{Digest, Environment, KeyRecord, NewKey, Revision},
    snapshot::Setup,
    store::{ChangeKind, Position, Row, StoreIdentity},
    time::Clock,
};
use tokio::{
    runtime::Runtime,
    time::{sleep, timeout},
};
use tonic::Code;

use crate::{
    Result, Run, format,
    grpc::Channel,
    keystead::CHECK,
    population::{self, Kind},
    report::{Goal, Section, Table},
    servers::{Postgres, Program, Service, url},
    snapshot,
    statistics::grouped,
};

/// With a snapshot of the most keys.
const MUST: Duration = Duration::from_secs(2);

/// How long an instance may take for whatever it is to reach.
const LIMIT: Duration = Duration::from_mins(1);

/// For how long an instance without snapshot and store is watched that it does not
/// serve, once it is alive.
const WATCHED: Duration = Duration::from_secs(2);

/// How often it is asked whether it serves by now: what is measured is so much too
/// long at most, and a little more.
const EVERY: Duration = Duration::from_millis(1);

/// The part `start`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (counts, times): (&[u64], _) =
        if run.quick { (&[0, 10_000, 100_000], 1) } else { (&[0, 100_000, 1_000_000], 3) };
    Runtime::new()?.block_on(async {
        let mut place = Place::new(counts).await?;
        let mut all = Vec::new();
        for store_is_up in [true, false] {
            if !store_is_up {
                // Whose address refuses connections from now on.
                place.postgres = None;
            }
            for snapshot in &place.snapshots {
                let mut starts = Vec::new();
                for _ in 0..times {
                    starts.push(place.start(snapshot).await?);
                }
                all.push(Measured { keys: snapshot.keys, store_is_up, starts });
            }
        }
        section(&all, times)
    })
}

/// A store, and snapshots of its keys.
struct Place {
    /// `None` when it is down.
    postgres: Option<Postgres>,
    /// Where it is, or was.
    url: String,
    secret: String,
    /// The request to check the key that is in the store and in every snapshot.
    asking: Bytes,
    snapshots: Vec<Snapshot>,
    _folder: tempfile::TempDir,
}

/// A snapshot, or none, in which there are no keys.
struct Snapshot {
    path: PathBuf,
    keys: u64,
}

struct Measured {
    keys: u64,
    store_is_up: bool,
    starts: Vec<Start>,
}

/// How long after its start an instance was what.
struct Start {
    /// The service `liveness` is SERVING.
    live: Duration,
    /// A good key was answered with OK.
    answered: Option<Duration>,
    /// The service as a whole is SERVING.
    serving: Option<Duration>,
}

impl Place {
    async fn new(counts: &[u64]) -> Result<Self> {
        let postgres = Postgres::start().await?;
        let url = url(postgres.address());
        let (secret, ring) = population::secret()?;
        Program::new(&secret, &url)?.migrate()?;
        let minted = ring.mint(Environment::Live)?;
        let rights = population::rights(Kind::Typical, 0, Clock::System.wall());
        postgres.store([NewKey::minted(&minted, rights)].into_iter()).await?;
        let newest = newest(&postgres).await?;

        let folder = tempfile::tempdir()?;
        let store = StoreIdentity::of(&url.parse()?, None);
        let mut snapshots = Vec::new();
        for &keys in counts {
            let path = folder.path().join(keys.to_string());
            if keys > 0 {
                let setup = snapshot::setup(path.clone(), &ring, store);
                write(setup, keys, minted.digest, newest).await?;
            }
            snapshots.push(Snapshot { path, keys });
        }
        let asking = population::asking(minted.key.expose())?;
        Ok(Self { postgres: Some(postgres), url, secret, asking, snapshots, _folder: folder })
    }

    async fn start(&self, snapshot: &Snapshot) -> Result<Start> {
        let room = snapshot.keys + snapshot.keys / 4 + 1_000;
        let program = Program::new(&self.secret, &self.url)?.with("CACHE__MAX_ENTRIES", room);
        let path = program.path("snapshot");
        let program = program.with("SNAPSHOT__PATH", path.display());
        if snapshot.keys > 0 {
            for suffix in ["", ".changes"] {
                fs::copy(beside(&snapshot.path, suffix), beside(&path, suffix))?;
            }
        }
        let began = Instant::now();
        let mut service = program.serve()?;
        let live = until(began, || service.is_serving("liveness"));
        let answered = until(began, || is_answered(&service, &self.asking));
        let serving = until(began, || service.is_serving(""));
        let could_serve = snapshot.keys > 0 || self.postgres.is_some();
        let start = if could_serve {
            let all = async { tokio::join!(live, answered, serving) };
            let all = timeout(LIMIT, all).await;
            let (live, answered, serving) = all.map_err(|_| "it does not serve in time")?;
            Start { live, answered: Some(answered), serving: Some(serving) }
        } else {
            let live = timeout(LIMIT, live).await.map_err(|_| "it is not alive in time")?;
            let either = async {
                tokio::select! { it = answered => it, it = serving => it }
            };
            let served = timeout(WATCHED, either).await;
            assert!(served.is_err(), "it says that it serves, or lets a key in unseen");
            Start { live, answered: None, serving: None }
        };
        service.check_alive()?;
        if snapshot.keys > 0 {
            let held = format::count(snapshot.keys);
            let counted = service.counted()?.sum("keystead_cache_entries", &[]);
            assert_eq!(grouped(counted), held, "not all of the snapshot is in memory");
        }
        Ok(start)
    }
}

/// The newest change in the store.
pub(crate) async fn newest(postgres: &Postgres) -> Result<Row> {
    let query = "SELECT revision, digest FROM keystead.key_changes WHERE kind = 'created' ORDER BY 1 DESC LIMIT 1";
    let row = postgres.client().await?.query_one(query, &[]).await?;
    let digest = Digest::try_from(row.try_get::<_, &[u8]>(1)?).map_err(|it| it.to_string())?;
    Ok(Row { revision: Revision(row.try_get(0)?), digest, kind: Some(ChangeKind::Created) })
}

/// Writes a snapshot of so many keys, one of which has this digest, with all
/// changes up to `newest`.
async fn write(setup: Setup, keys: u64, one: Digest, newest: Row) -> Result<()> {
    let warm = snapshot::load(setup, keys).await?;
    let now = Clock::System.moment();
    for number in 0..keys {
        let record = population::record(Kind::Typical, number, now.wall)?;
        let digest = if number == keys / 2 { one } else { population::digest(number) };
        let record = KeyRecord { revision: newest.revision, ..record };
        population::take(&warm.memory, digest, &record, now.monotonic)?;
    }
    assert_eq!(warm.memory.len() as u64, keys, "there was no room for all");
    let position = Position { revision: newest.revision, landmark: Some(newest) };
    snapshot::write(warm, position, now.monotonic).await;
    Ok(())
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How long after `began` it is so.
async fn until<F: Future<Output = Result<bool>>>(
    began: Instant,
    is_so: impl Fn() -> F,
) -> Duration {
    // Nobody listens at first.
    while !is_so().await.unwrap_or(false) {
        sleep(EVERY).await;
    }
    began.elapsed()
}

async fn is_answered(service: &Service, asking: &Bytes) -> Result<bool> {
    let answer = Channel::connect(service.grpc).await?.call(CHECK, asking.clone()).await?;
    let code = Code::from(answer.status);
    let denied = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
    assert!(!denied, "a good key is denied");
    Ok(code == Code::Ok)
}

fn section(all: &[Measured], times: usize) -> Result<Section> {
    let columns = ["keys in the snapshot", "store", "alive", "first key answered", "SERVING"];
    let mut table = Table::new("", &columns);
    let mut slowest: Option<(u64, Duration)> = None;
    for Measured { keys, store_is_up, starts } in all {
        let middle =
            |of: fn(&Start) -> Option<Duration>| format::median_time(starts.iter().filter_map(of));
        let (answered, serving) = (middle(|it| it.answered), middle(|it| it.serving));
        let time =
            |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), format::seconds);
        table.rows.push(vec![
            if *keys == 0 { "no snapshot".to_owned() } else { format::count(*keys) },
            if *store_is_up { "up" } else { "down" }.to_owned(),
            time(middle(|it| Some(it.live))),
            time(answered),
            time(serving),
        ]);
        slowest = slowest.max(answered.max(serving).map(|time| (*keys, time)));
    }
    let (keys, slowest) = slowest.ok_or("nothing was measured")?;
    Ok(Section {
        title: "Start".to_owned(),
        intro: intro(times),
        tables: vec![table],
        goals: vec![Goal {
            what: format!("start to serving with a snapshot of {} keys", format::count(keys)),
            must: format::seconds(MUST),
            aim: None,
            measured: format::seconds(slowest),
            reached: slowest <= MUST,
        }],
        ..Section::default()
    })
}

fn intro(times: usize) -> String {
    format!(
        "From the moment at which the program is executed until the health service says SERVING for `liveness` (*alive*), until a key \
         that is in the snapshot and in the store is answered with OK, and until the health service says SERVING for the \
         whole; the median of {times}, each asked for by itself. The snapshot holds typical records and is in the page cache, as after a restart on the same \
         machine; that all of it is in memory is asserted. PostgreSQL is up on the same machine, or its address refuses connections. \
         With neither, the program is alive and says honestly that it serves nobody."
    )
}
