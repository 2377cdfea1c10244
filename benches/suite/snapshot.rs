//! How long a snapshot takes: to write while the service runs, and to read at a
//! start. The files are in the folder for temporary files (`TMPDIR`), which for
//! honest times of writing is on a disk.

use std::{
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use keystead::{
    cache::{CacheConfig, Coverage, Memory},
    key::{Digest, KeyRecord, KeyRing},
    snapshot::{self, Loaded, Seals, Setup},
    store::{Position, Row, StoreIdentity, StoreUrl},
    suspect::{SuspectConfig, Suspicion},
    telemetry::Metrics,
    time::Clock,
};
use tokio::{runtime::Runtime, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Result, Run,
    figures::{count, seconds},
    population::{self, Kind, REVISION},
    report::{Section, Table},
};

/// The part `snapshot`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let counts: &[u64] = if run.quick { &[10_000, 100_000] } else { &[10_000, 100_000, 1_000_000] };
    let runtime = Runtime::new()?;
    let columns = ["keys", "file", "bytes each", "write", "load"];
    let mut table = Table::new("", &columns);
    for &keys in counts {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("snapshot");
        let Measured { bytes, write, load } = runtime.block_on(one(keys, path))?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let megabytes = bytes as f64 / 1e6;
        table.rows.push(vec![
            count(keys),
            format!("{megabytes:.1} MB"),
            count(bytes / keys),
            seconds(write),
            seconds(load),
        ]);
    }
    Ok(Section {
        title: "Snapshot".to_owned(),
        about:
            "*Write* is the last one of a service that stops, with the flush of the disk: what is \
                written while it serves takes a twentieth of a core. *Load* is from the page cache. One run each, with typical records."
                .to_owned(),
        tables: vec![table],
        ..Section::default()
    })
}

struct Measured {
    bytes: u64,
    write: Duration,
    load: Duration,
}

async fn one(count: u64, path: PathBuf) -> Result<Measured> {
    let (_, ring) = population::secret()?;
    let setup = setup(path.clone(), &ring, StoreIdentity::of(&StoreUrl::default(), None));
    let now = Clock::System.moment();

    let first = load(setup.clone(), count).await?;
    for number in 0..count {
        let record = population::record(Kind::Typical, number, now.wall)?;
        population::take(&first.memory, population::digest(number), &record, now.monotonic)?;
    }
    let began = Instant::now();
    write(first, Position { revision: REVISION, landmark: None }, now.monotonic).await;
    let write = began.elapsed();
    let bytes = fs::metadata(&path)?.len();

    let began = Instant::now();
    let warm = load(setup, count).await?;
    let load = began.elapsed();
    let restored = warm.restored.map_or(0, |restored| restored.entries);
    assert_eq!(restored as u64, count, "not all entries were read");
    Ok(Measured { bytes, write, load })
}

/// A snapshot at `path`, of a store's keys.
pub(crate) fn setup(path: PathBuf, ring: &KeyRing, store: StoreIdentity) -> Setup {
    Setup {
        path,
        every: Duration::from_hours(1),
        store,
        seals: Seals::of(ring),
        max_age: CacheConfig::default().stale_if_error_for,
        numbered: true,
    }
}

/// Writes a snapshot of typical keys with these digests, and with all changes up to
/// `newest`.
pub(crate) async fn store(
    setup: Setup,
    digests: impl ExactSizeIterator<Item = Digest>,
    newest: Row,
) -> Result<()> {
    let keys = digests.len() as u64;
    let warm = load(setup, keys + 1_000).await?;
    let now = Clock::System.moment();
    for (number, digest) in (0..).zip(digests) {
        let record = population::record(Kind::Typical, number, now.wall)?;
        let record = KeyRecord { revision: newest.revision, ..record };
        population::take(&warm.memory, digest, &record, now.monotonic)?;
    }
    assert_eq!(warm.memory.len() as u64, keys, "there was no room for all");
    let position = Position { revision: newest.revision, landmark: Some(newest) };
    write(warm, position, now.monotonic).await;
    Ok(())
}

/// What is at the path, in a memory with room for so many keys.
async fn load(setup: Setup, count: u64) -> Result<Loaded> {
    let (metrics, _) = Metrics::new()?;
    // With room to spare: the parts of the memory fill unevenly.
    let most = NonZeroUsize::new(usize::try_from(count + count / 4)?).unwrap_or(NonZeroUsize::MIN);
    let config = CacheConfig { max_entries: most, ..CacheConfig::default() };
    let empty = move || {
        let coverage = Arc::new(Coverage::new(Duration::from_secs(1)));
        let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
        Memory::new(config, coverage, suspicion, Clock::System)
    };
    Ok(snapshot::load(setup, empty, metrics, Clock::System).await)
}

/// Writes what is in memory, as the service does at its end, when all changes up
/// to `position` have been applied to it and none was missed since `covered_since`.
async fn write(warm: Loaded, position: Position, covered_since: tokio::time::Instant) {
    let coverage = Arc::new(Coverage::new(Duration::from_secs(1)));
    coverage.confirm(covered_since);
    let (_told, followed) = watch::channel(Some(position));
    let (_journal, writer) = warm.keep(coverage, followed);
    let stop = CancellationToken::new();
    stop.cancel();
    writer.run(stop).await;
}
