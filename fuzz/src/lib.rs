//! What the fuzzers of the surfaces have in common: an instance whose store never
//! answers, a key that it would have to ask about, and an instance that knows it.

use std::{
    env, fs,
    num::NonZeroUsize,
    process,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use keystead::{
    check::{CheckConfig, Checker},
    guard::{GuardConfig, Guarded},
    key::{CompactKey, Credential, Digest, KeyId, KeyRing, NewKey, Prefix, Rights, State},
    outage::Unavailable,
    store::{
        Answer, KeyAdmin, Lookups, Provenance, StoreErrorKind,
        sqlite::{SqliteConfig, SqliteStore},
    },
    telemetry::Metrics,
    tier::{Freshness, Observation, Tier},
    time::Clock,
    transport::Admission,
    usage::use_log,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime, time::Instant};
use tokio_util::sync::CancellationToken;

const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Minted with that secret.
pub const KEY: &str = "ks_live_0123456789ABCDEFGHIJKLMNOPQRSTUVDyq36RzI";

/// Below the longest input that libFuzzer makes, with a key before it, so that it
/// is passed at times.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Length to which inputs are repeated: as many bytes of headers as proxies take, less than
/// the longest URI that the `http` crate parses.
const LONG_BYTES: usize = 60 * 1024;

/// How often an input of `bytes` is sent in one piece: once, and repeated to a length that
/// shows time that is not linear.
pub fn repetitions(bytes: usize) -> [usize; 2] {
    [1, (LONG_BYTES / bytes.max(1)).max(1)]
}

/// CPU time that reading one byte may take: some twenty times what the sanitizer's build
/// takes where time is linear. Quadratic time is above it from 16 KiB on.
const MAX_NANOS_PER_BYTE: u128 = 2_000;

/// CPU time that a call may take besides.
const MAX_NANOS_PER_CALL: u128 = 10_000_000;

/// Panics when `call`, which reads `bytes`, takes too much CPU time of this thread three
/// times in a row. CPU time, as a busy machine takes none of it.
pub fn within_time(bytes: usize, mut call: impl FnMut()) {
    let limit = MAX_NANOS_PER_CALL + bytes as u128 * MAX_NANOS_PER_BYTE;
    let mut took = || {
        let began = cpu_nanos();
        call();
        cpu_nanos() - began
    };
    let in_time = (0..3).any(|_| took() <= limit);
    assert!(in_time, "{bytes} bytes take more than {limit} ns of CPU time");
}

fn cpu_nanos() -> u128 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u128 * 1_000_000_000 + now.tv_nsec as u128
}

/// A store that never answers, but maybe about [`KEY`].
pub enum Behind {
    Down,
    Knowing(Digest, CompactKey),
}

impl Tier for Behind {
    async fn find(&self, credential: Credential, _: Instant) -> Result<Observation, Unavailable> {
        match self {
            Self::Knowing(digest, known) if *digest == credential.digest() => Ok(Observation {
                answer: Answer::Found(known.clone()),
                validated_at: Instant::now(),
                freshness: Freshness::Fresh,
            }),
            Self::Down | Self::Knowing(..) => Err(Unavailable::Store(StoreErrorKind::Unreachable)),
        }
    }
}

/// The way in to an instance whose store never answers, and its metrics.
pub fn admission() -> (Arc<Admission<Behind>>, Arc<Metrics>) {
    let (store, _) = store();
    admission_to(Behind::Down, store)
}

/// The way in to an instance that knows [`KEY`], and its metrics.
pub fn knowing() -> (Arc<Admission<Behind>>, Arc<Metrics>) {
    let (store, known) = store();
    let digest = ring().read(KEY.as_bytes()).expect("a good key").digest();
    admission_to(Behind::Knowing(digest, known), store)
}

fn ring() -> KeyRing {
    KeyRing::parse(SECRET, Prefix::default(), true).expect("a good secret")
}

fn admission_to(behind: Behind, store: SqliteStore) -> (Arc<Admission<Behind>>, Arc<Metrics>) {
    let (metrics, _) = Metrics::new().expect("metrics in memory");
    let (for_guard, clock) = (Arc::clone(&metrics), Clock::System);
    let unused = Guarded::new(store, GuardConfig::default(), for_guard, clock);
    // Who would store the uses is not there.
    let (uses, _) = use_log(Arc::new(unused), Clock::System);
    let checker = Checker::new(ring(), behind, Clock::System);
    let never = CancellationToken::new();
    let config = CheckConfig::default();
    (Admission::new(checker, uses, config, never), metrics)
}

/// A store with [`KEY`] in it, and what it knows of it. A log of uses wants one.
fn store() -> (SqliteStore, CompactKey) {
    static NUMBER: AtomicU8 = AtomicU8::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("keystead-fuzz-{}-{number}", process::id()));
    fs::create_dir_all(&folder).expect("a folder for what is temporary");
    let config = SqliteConfig {
        path: folder.join("keystead.db"),
        max_readers: NonZeroUsize::MIN,
        query_timeout: Duration::from_secs(1),
    };
    let store = SqliteStore::open(&config).expect("a store in a new file");
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    let known = runtime.expect("a runtime of one thread").block_on(insert(&store));
    fs::remove_dir_all(folder).expect("it was just made");
    (store, known)
}

async fn insert(store: &SqliteStore) -> CompactKey {
    let digest = ring().read(KEY.as_bytes()).expect("a good key").digest();
    let key = NewKey {
        id: KeyId::generate().expect("random bytes"),
        digest,
        secret: None,
        hint: String::new(),
        rights: Rights { principal: "acme".to_owned(), ..Rights::default() },
        state: State::Active,
    };
    let (actor, origin) = ("fuzzer".to_owned(), "fuzzer".to_owned());
    let provenance = Provenance { actor, origin, at: Clock::System.wall() };
    store.insert(&[key], &provenance).await.expect("a store that takes a key");
    let lookup = store.find(&[digest]).await.expect("a store that answers");
    match lookup.get(&digest) {
        Some(Answer::Found(known)) => known.clone(),
        other => panic!("{other:?}"),
    }
}

/// A message in its frame.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("inputs are short");
    [&[0], &length.to_be_bytes()[..], message].concat()
}
