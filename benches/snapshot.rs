//! How long a snapshot takes: to write while the service runs, and to read at a
//! start, until the first key could be answered.
//!
//!   cargo bench --bench snapshot -- [ENTRIES…]
//!
//! Prints a table; 1,000,000 entries by default. The files are in the folder for
//! temporary files (`TMPDIR`), which for honest times of writing is on a disk.

use std::{
    fs, io,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keystead::{
    cache::{CacheConfig, Coverage, Memory},
    key::{Digest, KeyId, KeyRecord, KeyRing, Prefix, Revision, Rights, Secret, State},
    store::{Position, StoreConfig, StoreIdentity},
    suspect::{SuspectConfig, Suspicion},
    telemetry::Metrics,
    time::Clock,
    warm::{self, Seals, Setup, Warm, snapshot},
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REVISION: Revision = Revision(1_000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo bench` adds a flag of its own.
    let mut counts: Vec<u64> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    if counts.is_empty() {
        counts.push(1_000_000);
    }
    let runtime = Runtime::new()?;
    println!("|   entries |  file MB | bytes each | encode s | write s |  load s |");
    println!("|----------:|---------:|-----------:|---------:|--------:|--------:|");
    for count in counts {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("snapshot");
        let Measured { bytes, encode, write, load } = runtime.block_on(measure(count, path))?;
        let [encode, write, load] = [encode, write, load].map(|took| took.as_secs_f64());
        let (megabytes, each) = (bytes / 1_000_000, bytes / count.max(1));
        println!(
            "| {count:>9} | {megabytes:>8} | {each:>10} | {encode:>8.2} | {write:>7.2} | {load:>7.2} |"
        );
    }
    Ok(())
}

struct Measured {
    bytes: u64,
    /// Without a disk.
    encode: Duration,
    /// As the service does, with its flush.
    write: Duration,
    load: Duration,
}

async fn measure(count: u64, path: PathBuf) -> Result<Measured, Box<dyn std::error::Error>> {
    let secret = Secret::generate()?;
    let seals = Seals::of(&KeyRing::parse(&secret, Prefix::default(), true)?);
    let store = StoreIdentity::of(&StoreConfig::default());
    let setup = Setup {
        path: path.clone(),
        every: Duration::from_hours(1),
        store,
        seals: seals.clone(),
        max_age: Duration::from_hours(1),
        numbered: true,
    };

    let first = load(setup.clone(), count).await?;
    fill(&first.memory, count)?;
    let encode = encode(&first.memory, &seals, store)?;

    let (coverage, stop) = (coverage(), CancellationToken::new());
    let (_told, position) = watch::channel(Some(Position { revision: REVISION, landmark: None }));
    let (_journal, writer) = first.keep(coverage, position);
    stop.cancel();
    let began = Instant::now();
    writer.run(stop).await;
    let write = began.elapsed();
    let bytes = fs::metadata(&path)?.len();

    let began = Instant::now();
    let warm = load(setup, count).await?;
    let load = began.elapsed();
    let restored = warm.restored.map_or(0, |restored| restored.entries);
    assert_eq!(restored as u64, count, "not all entries were read");
    Ok(Measured { bytes, encode, write, load })
}

async fn load(setup: Setup, count: u64) -> Result<Warm, Box<dyn std::error::Error>> {
    let (metrics, _) = Metrics::new()?;
    // With room to spare: the parts of the memory fill unevenly.
    let most = NonZeroUsize::new(usize::try_from(count + count / 4)?).unwrap_or(NonZeroUsize::MIN);
    let config = CacheConfig { max_entries: most, ..CacheConfig::default() };
    let empty = move || {
        let coverage = Arc::new(Coverage::new(Duration::from_secs(1)));
        let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
        Memory::new(config, coverage, suspicion, Clock::System)
    };
    Ok(warm::load(setup, empty, metrics, Clock::System).await)
}

fn encode(memory: &Memory, seals: &Seals, store: StoreIdentity) -> io::Result<Duration> {
    let now = Clock::System.moment();
    let header = snapshot::Header {
        store,
        lineage: [0; 16],
        created_at: now.wall,
        position: Position { revision: REVISION, landmark: None },
        covered_since: None,
        noted: 0,
    };
    let began = Instant::now();
    snapshot::write(io::sink(), seals, &header, now, memory.export(), || true)?;
    Ok(began.elapsed())
}

fn coverage() -> Arc<Coverage> {
    Arc::new(Coverage::new(Duration::from_secs(1)))
}

/// Typical records: a name, three scopes, two pieces of metadata, an end.
fn fill(memory: &Memory, count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let now = Clock::System.moment();
    for number in 0..count {
        let record = KeyRecord {
            id: KeyId::generate()?,
            hint: "ks_live_…q7Rz".to_owned(),
            secret: None,
            rights: Rights {
                principal: format!("customer-{}", number / 3),
                name: "backend of the web shop".to_owned(),
                scopes: ["orders.read", "orders.write", "invoices.read"].map(str::to_owned).into(),
                metadata: [("plan", "business"), ("region", "eu-west-1")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                expires_at: Some(now.wall + Duration::from_hours(24 * 90)),
                ..Rights::default()
            },
            state: State::Active,
            created_at: now.wall,
            last_used_at: Some(now.wall),
            revision: REVISION,
        };
        memory.restore(Digest::sha256_of(&number.to_le_bytes()), record, now.monotonic);
    }
    Ok(())
}
