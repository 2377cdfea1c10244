use super::*;
use crate::{
    guard::GuardConfig,
    key::{Environment, Prefix, Secret, Unread},
    store::fake::{FakeStore, Mood},
    telemetry::Metrics,
};

const STRANGER: Fingerprint = Fingerprint::from_bytes([7; 8]);

struct Fixture {
    store: FakeStore,
    guarded: Guarded<FakeStore>,
    ring: KeyRing,
    instance: Instance,
    secrets: Secrets,
}

fn fixture(mood: Mood, retired: &[Fingerprint], proven: bool) -> Fixture {
    let store = FakeStore::new(mood);
    let (metrics, _) = Metrics::new().unwrap();
    let guarded = Guarded::new(store.clone(), GuardConfig::default(), metrics, Clock::System);
    let ring = new_ring();
    let instance = Instance::new(Clock::System);
    let secrets = Secrets::new(&ring, retired, proven, instance.clone(), Clock::System);
    Fixture { store, guarded, ring, instance, secrets }
}

fn new_ring() -> KeyRing {
    KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap()
}

impl Fixture {
    /// The result of reading a key of another ring.
    fn reading_of_foreign_key(&self) -> Unread {
        let other = new_ring().mint(Environment::Live).unwrap();
        self.ring.read(other.key.expose().as_bytes()).unwrap_err()
    }

    async fn follow(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        self.secrets.follow(&self.guarded, deadline).await;
    }

    fn is_secret_unknown(&self) -> bool {
        self.instance.standing().doubts(Doubt::SecretUnknown)
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_tag_is_no_evidence_before_the_store_answers() {
    let mut fixture = fixture(Mood::Hangs, &[], false);
    let began = Instant::now();
    assert_eq!(fixture.secrets.at_start(&fixture.guarded).await, []);
    assert!(began.elapsed() <= START_LIMIT);
    assert_eq!(fixture.reading_of_foreign_key(), Unread::SecretUnknown);
    assert!(
        matches!(fixture.ring.read(b""), Err(Unread::Malformed(_))),
        "malformed with any secrets"
    );
    assert!(matches!(fixture.ring.read(b"ks_live_short"), Err(Unread::Malformed(_))));
    assert!(!fixture.is_secret_unknown());
    fixture.store.set(Mood::Answers);
    fixture.follow().await;
    assert!(matches!(fixture.reading_of_foreign_key(), Unread::Malformed(_)));
}

#[tokio::test(start_paused = true)]
async fn persisted_keys_prove_the_ring_until_the_store_contradicts() {
    let mut fixture = fixture(Mood::Hangs, &[], true);
    fixture.secrets.at_start(&fixture.guarded).await;
    assert!(matches!(fixture.reading_of_foreign_key(), Unread::Malformed(_)));
    fixture.store.name_secrets(&[SecretUse { secret: STRANGER, keys: 1 }]);
    fixture.store.set(Mood::Answers);
    fixture.follow().await;
    assert_eq!(fixture.reading_of_foreign_key(), Unread::SecretUnknown);
    assert!(fixture.is_secret_unknown());
}

#[tokio::test(start_paused = true)]
async fn missing_secret_is_detected_later_and_so_is_its_end() {
    let mut fixture = fixture(Mood::Answers, &[], false);
    assert_eq!(fixture.secrets.at_start(&fixture.guarded).await, []);
    fixture.store.name_secrets(&[SecretUse { secret: STRANGER, keys: 1 }]);
    fixture.follow().await;
    assert!(!fixture.is_secret_unknown(), "the interval has not passed");
    tokio::time::advance(INTERVAL).await;
    fixture.follow().await;
    assert!(fixture.is_secret_unknown());
    fixture.store.name_secrets(&[]);
    fixture.follow().await;
    assert!(!fixture.is_secret_unknown());
    assert!(matches!(fixture.reading_of_foreign_key(), Unread::Malformed(_)));
}

#[tokio::test(start_paused = true)]
async fn secrets_of_the_ring_and_retired_secrets_are_not_missing() {
    let mut fixture = fixture(Mood::Answers, &[STRANGER], false);
    let own = fixture.ring.fingerprints().next().unwrap();
    let used = |secret| SecretUse { secret, keys: 3 };
    fixture.store.name_secrets(&[used(own), used(STRANGER)]);
    assert_eq!(fixture.secrets.at_start(&fixture.guarded).await, []);
    let other = Fingerprint::from_bytes([8; 8]);
    fixture.store.name_secrets(&[used(own), used(other)]);
    assert_eq!(fixture.secrets.at_start(&fixture.guarded).await, [used(other)]);
}

#[test]
fn secrets_are_named_with_their_number_of_keys() {
    let used = |secret, keys| SecretUse { secret: Fingerprint::from_bytes([secret; 8]), keys };
    assert_eq!(
        described(&[used(1, 1), used(2, 3), used(3, SecretUse::MANY)]),
        "0101010101010101 (1 active key), 0202020202020202 (3 active keys), \
         0303030303030303 (1000 or more active keys)"
    );
}
