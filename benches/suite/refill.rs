//! How fast a cold instance gets its keys from PostgreSQL when all are asked for at
//! once, and how much it asks of PostgreSQL meanwhile.

mod callers;
mod naive;
mod section;

use std::time::{Duration, Instant};

use bytes::Bytes;
use keystead::{
    key::{Digest, Environment, KeyId, KeyRing, NewKey},
    time::Clock,
};
use tokio::{runtime::Builder, time::sleep};

use crate::{
    Result, Run, format,
    population::{self, Kind},
    report::Section,
    servers::{Counted, Network, Postgres, Program, Service, own_cpu_time, url},
    statistics::grouped,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// `store.guard.max_in_flight`, and the connections of the baseline.
const CONNECTIONS: usize = 4;

/// By how much the network makes a round trip longer.
const LONGER: Duration = Duration::from_millis(1);

/// How many callers ask at the same time. 1,000 are as many as four queries of
/// `fill.batch_max` ask for; of 4,000, those that come last find no place in
/// `check.timeout` unless 27,000 are answered each second.
const LOADS: [usize; 4] = [500, 1_000, 2_000, 4_000];

/// Why a good key may be refused.
const REFUSALS: [&str; 7] = [
    "STORE_UNREACHABLE",
    "STORE_TIMEOUT",
    "STORE_SATURATED",
    "BREAKER_OPEN",
    "STORE_SUSPECT",
    "OVERLOADED",
    "DRAINING",
];

/// How long a service may take to be ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The part `refill`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (keys, slice, loads) =
        if run.quick { (20_000, 2_000, &LOADS[1..3]) } else { (100_000, 10_000, &LOADS[..]) };
    let times = if run.quick { 1 } else { 2 };
    // On one thread, so that callers leave the other cores to what they call.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let rounds = runtime.block_on(async {
        let place = Place::new(keys).await?;
        let mut measured = Vec::new();
        for &callers in (0..times).flat_map(|_| loads) {
            // Others than in the round before.
            let from = measured.len() * slice;
            let some = &place.keys[from..from + slice];
            measured.push(place.round(callers, some).await?);
        }
        Ok::<_, Error>(measured)
    })?;
    Ok(section::section(&rounds, keys))
}

/// A key, as its owner and as PostgreSQL know it.
#[derive(Debug)]
struct Key {
    id: KeyId,
    digest: Digest,
    /// The request to check it, as gRPC has it.
    request: Bytes,
}

/// PostgreSQL with all keys, and the network before it.
struct Place {
    postgres: Postgres,
    network: Network,
    program: Program,
    keys: Vec<Key>,
}

/// What was measured in turns, so that what else goes on here hits both alike.
struct Round {
    callers: usize,
    naive: Answered,
    keystead: Answered,
    /// What was told instead of an answer, and asked again, by reason.
    refused: Vec<(&'static str, f64)>,
    /// CPU time of Keystead, of PostgreSQL, and of callers and network.
    cpu: [Duration; 3],
}

/// Keys that were all answered.
struct Answered {
    keys: usize,
    took: Duration,
    counted: Counted,
}

impl Answered {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn per_second(&self) -> f64 {
        self.keys as f64 / self.took.as_secs_f64()
    }
}

impl Place {
    async fn new(keys: u64) -> Result<Self> {
        let postgres = Postgres::start().await?;
        let network = Network::before(postgres.address(), LONGER)?;
        let (secret, ring) = population::secret()?;
        Program::new(&secret, &url(postgres.address()))?.migrate()?;
        let (keys, new) = draw(&ring, keys)?;
        postgres.store(new.into_iter()).await?;
        let program = Program::new(&secret, &url(network.address()))?
            .with("STORE__GUARD__MAX_IN_FLIGHT", CONNECTIONS);
        Ok(Self { postgres, network, program, keys })
    }

    async fn round(&self, callers: usize, some: &[Key]) -> Result<Round> {
        let naive = self.naively(some).await?;
        let mut service = self.program.serve()?;
        until_ready(&mut service).await?;
        let traffic = self.network.traffic();
        traffic.take();
        let used =
            || Ok::<_, Error>([service.cpu_time()?, self.postgres.cpu_time()?, own_cpu_time()]);
        let before = used()?;
        let (took, retries) = callers::ask_all(service.grpc, callers, &self.keys).await?;
        let counted = traffic.take();
        let after = used()?;
        let cpu = std::array::from_fn(|of| after[of].saturating_sub(before[of]));

        let told = service.counted()?;
        let checks = |labels: &[(&str, &str)]| told.sum("keystead_checks_total", labels);
        let refused: Vec<_> = REFUSALS.map(|reason| (reason, checks(&[("reason", reason)]))).into();
        let all = format::count(self.keys.len() as u64);
        assert_eq!(grouped(checks(&[("code", "OK")])), all, "each key was to be answered once");
        assert_eq!(grouped(told.sum("keystead_cache_entries", &[])), all, "all were to be kept");
        let by_reason: f64 = refused.iter().map(|(_, count)| count).sum();
        assert_eq!(grouped(by_reason), format::count(retries), "each refusal has its reason");
        let keystead = Answered { keys: self.keys.len(), took, counted };
        assert!(counted.most_at_once <= CONNECTIONS, "too many queries at once: {counted:?}");
        Ok(Round { callers, naive, keystead, refused, cpu })
    }

    async fn naively(&self, keys: &[Key]) -> Result<Answered> {
        let clients = naive::connect(self.network.address(), CONNECTIONS).await?;
        let traffic = self.network.traffic();
        traffic.take();
        let began = Instant::now();
        naive::ask_all(&clients, keys).await?;
        let took = began.elapsed();
        let counted = traffic.take();
        assert_eq!(counted.lookups, keys.len() as u64, "one query for each key");
        assert_eq!(counted.most_at_once, CONNECTIONS, "as many as there are connections");
        Ok(Answered { keys: keys.len(), took, counted })
    }
}

/// New keys, minted as by the program.
fn draw(ring: &KeyRing, count: u64) -> Result<(Vec<Key>, Vec<NewKey>)> {
    let now = Clock::System.wall();
    let mut keys = Vec::new();
    let mut new = Vec::new();
    for number in 0..count {
        let minted = ring.mint(Environment::Live)?;
        new.push(NewKey::minted(&minted, population::rights(Kind::Typical, number, now)));
        let request = population::asking(minted.key.expose())?;
        keys.push(Key { id: minted.id, digest: minted.digest, request });
    }
    Ok((keys, new))
}

/// Waits until the service would answer for a key that is in the store.
async fn until_ready(service: &mut Service) -> Result<()> {
    let began = Instant::now();
    while !service.is_serving("").await.unwrap_or(false) {
        service.check_alive()?;
        if began.elapsed() > START_LIMIT {
            return Err(format!("it is not ready: {}", service.log()?).into());
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
