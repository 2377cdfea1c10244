use super::*;
use crate::{
    guard::GuardConfig,
    key::{Environment, Prefix, Secret, Unread},
    store::fake::{FakeStore, Mood},
    telemetry::Metrics,
};

const STRANGER: Fingerprint = Fingerprint::from_bytes([7; 8]);

struct Bench {
    store: FakeStore,
    guarded: Guarded<FakeStore>,
    ring: KeyRing,
    ladder: Ladder,
    secrets: Secrets,
}

fn bench(mood: Mood, retired: &[Fingerprint], proven: bool) -> Bench {
    let store = FakeStore::new(mood);
    let (metrics, _) = Metrics::new().unwrap();
    let guarded = Guarded::new(store.clone(), GuardConfig::default(), metrics, Clock::System);
    let ring = a_ring();
    let ladder = Ladder::new(Clock::System);
    let secrets = Secrets::new(&ring, retired, proven, ladder.clone(), Clock::System);
    Bench { store, guarded, ring, ladder, secrets }
}

fn a_ring() -> KeyRing {
    KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap()
}

impl Bench {
    /// How a key of another ring is read.
    fn reads(&self) -> Unread {
        let other = a_ring().mint(Environment::Live).unwrap();
        self.ring.read(other.key.expose().as_bytes()).unwrap_err()
    }

    async fn follow(&mut self) {
        let deadline = Instant::now() + AT_START;
        self.secrets.follow(&self.guarded, deadline).await;
    }

    fn is_doubted(&self) -> bool {
        self.ladder.standing().doubts(Doubt::SecretUnknown)
    }
}

#[tokio::test(start_paused = true)]
async fn until_the_store_has_told_a_tag_that_is_not_ours_is_no_evidence() {
    let mut bench = bench(Mood::Hangs, &[], false);
    let began = Instant::now();
    assert_eq!(bench.secrets.at_start(&bench.guarded).await, []);
    assert!(began.elapsed() <= AT_START);
    assert_eq!(bench.reads(), Unread::SecretUnknown);
    assert!(
        matches!(bench.ring.read(b""), Err(Unread::Malformed(_))),
        "whatever secrets there are"
    );
    assert!(matches!(bench.ring.read(b"ks_live_short"), Err(Unread::Malformed(_))));
    assert!(!bench.is_doubted());
    bench.store.set(Mood::Answers);
    bench.follow().await;
    assert!(matches!(bench.reads(), Unread::Malformed(_)));
}

#[tokio::test(start_paused = true)]
async fn keys_that_were_kept_under_these_secrets_prove_them_until_the_store_says_otherwise() {
    let mut bench = bench(Mood::Hangs, &[], true);
    bench.secrets.at_start(&bench.guarded).await;
    assert!(matches!(bench.reads(), Unread::Malformed(_)));
    bench.store.name_secrets(&[SecretUse { secret: STRANGER, keys: 1 }]);
    bench.store.set(Mood::Answers);
    bench.follow().await;
    assert_eq!(bench.reads(), Unread::SecretUnknown);
    assert!(bench.is_doubted());
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_appears_later_is_noticed_and_so_is_that_its_keys_are_gone() {
    let mut bench = bench(Mood::Answers, &[], false);
    assert_eq!(bench.secrets.at_start(&bench.guarded).await, []);
    bench.store.name_secrets(&[SecretUse { secret: STRANGER, keys: 1 }]);
    bench.follow().await;
    assert!(!bench.is_doubted(), "it was asked just now");
    tokio::time::advance(EVERY).await;
    bench.follow().await;
    assert!(bench.is_doubted());
    bench.store.name_secrets(&[]);
    bench.follow().await;
    assert!(!bench.is_doubted());
    assert!(matches!(bench.reads(), Unread::Malformed(_)));
}

#[tokio::test(start_paused = true)]
async fn secrets_of_the_ring_and_those_that_were_given_up_are_not_lacking() {
    let mut bench = bench(Mood::Answers, &[STRANGER], false);
    let own = bench.ring.fingerprints().next().unwrap();
    let used = |secret| SecretUse { secret, keys: 3 };
    bench.store.name_secrets(&[used(own), used(STRANGER)]);
    assert_eq!(bench.secrets.at_start(&bench.guarded).await, []);
    let other = Fingerprint::from_bytes([8; 8]);
    bench.store.name_secrets(&[used(own), used(other)]);
    assert_eq!(bench.secrets.at_start(&bench.guarded).await, [used(other)]);
}

#[test]
fn secrets_are_named_with_how_many_keys_they_have() {
    let used = |secret, keys| SecretUse { secret: Fingerprint::from_bytes([secret; 8]), keys };
    assert_eq!(
        in_words(&[used(1, 1), used(2, 3), used(3, SecretUse::MANY)]),
        "0101010101010101 (1 active key), 0202020202020202 (3 active keys), \
         0303030303030303 (1000 or more active keys)"
    );
}
