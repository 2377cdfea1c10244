mod conduct;

use jiff::{SignedDuration, Timestamp};
use tokio::time::advance;

use super::*;
use crate::{
    cache::{CacheConfig, Cached, EntryState},
    check::{Checker, Reason},
    fill::fixture::{Fixture as Tiers, Settings, TIMEOUT},
    guard::GuardConfig,
    instance::Warmth,
    key::{Environment, KeyRecord, Prefix, Secret, State},
    store::fake::{FakeStore, Mood, record},
};

const SECOND: Duration = Duration::from_secs(1);

type Change<'a> = &'a dyn Fn(&mut KeyRecord);

/// The tiers of checks, and an explainer that looks at them.
struct Fixture {
    tiers: Tiers,
    checker: Checker<Cached<crate::fill::Fill<FakeStore>>>,
    explainer: Explainer<FakeStore>,
    ring: KeyRing,
    key: String,
    digest: Digest,
}

impl Fixture {
    /// A store with one key.
    fn new(change: impl FnOnce(&mut KeyRecord)) -> Self {
        let ring = KeyRing::parse(&Secret::generate().unwrap(), Prefix::default(), true).unwrap();
        let minted = ring.mint(Environment::Live).unwrap();
        let (tiers, clock) = (Tiers::new(Mood::Answers, &Settings::default()), Clock::System);
        let mut record = record("acme", 1);
        change(&mut record);
        tiers.store.put(minted.digest, record);

        let config = CacheConfig::default();
        let (memory, metrics) = (Arc::clone(&tiers.memory), Arc::clone(&tiers.metrics));
        let warmth = Arc::new(Warmth::new(clock.monotonic()));
        let cached =
            Cached::new(memory, config, metrics, warmth, clock.clone(), tiers.fill.clone());
        let checker = Checker::new(ring.clone(), cached, clock.clone());
        let parts = Parts {
            ring: ring.clone(),
            memory: Arc::clone(&tiers.memory),
            suspicion: Arc::clone(&tiers.suspicion),
            coverage: Arc::clone(&tiers.coverage),
            checks: Arc::clone(&tiers.guarded),
            revalidate_wait: config.revalidate_wait,
            clock: clock.clone(),
        };
        let own = GuardConfig::default();
        let metrics = Arc::clone(&tiers.metrics);
        let store = Guarded::of_tier("control", tiers.store.clone(), own, metrics, clock);
        let explainer = Explainer::new(parts, store);
        let (key, digest) = (minted.key.expose().to_owned(), minted.digest);
        Self { tiers, checker, explainer, ring, key, digest }
    }

    async fn explain(&self, needs: Needs<'_>) -> Explanation {
        let presented = Some(self.key.as_bytes()).filter(|key| !key.is_empty());
        self.explainer.explain(presented, needs, Instant::now() + TIMEOUT).await
    }

    async fn check(&self) -> Result<Decision, Unavailable> {
        self.checker.check(self.key.as_bytes(), Needs::default(), Instant::now() + TIMEOUT).await
    }

    /// Explains, checks, and holds that both say the same.
    async fn agrees(&self, needs: Needs<'_>) -> Explanation {
        let explanation = self.explain(needs).await;
        let deadline = Instant::now() + TIMEOUT;
        let check = self.checker.check(self.key.as_bytes(), needs, deadline).await;
        assert_eq!(told(&explanation.decision), told(&check), "{explanation:#?}");
        explanation
    }

    fn now_is(&self, change: impl FnOnce(&mut KeyRecord)) {
        let mut record = record("acme", 2);
        change(&mut record);
        self.tiers.store.put(self.digest, record);
    }

    /// Past the time in which a record is served without asking.
    async fn grow_stale(&self) {
        advance(6 * 60 * SECOND).await;
    }
}

/// What a caller would see of a decision.
fn told(decision: &Result<Decision, Unavailable>) -> String {
    match decision {
        Ok(Decision::Allow(grant)) => {
            format!("{:?} at {:?}", grant.freshness, grant.record.revision())
        }
        Ok(Decision::Deny(denial)) => format!("{:?}", denial.reason()),
        Err(cause) => format!("{cause:?}"),
    }
}

fn life(explanation: &Explanation) -> Option<EntryState> {
    match explanation.seen.as_ref()?.memory.held.as_ref()? {
        Remembered::Record { life, .. } => Some(*life),
        Remembered::Absence { .. } => None,
    }
}

fn notes(explanation: &Explanation) -> String {
    explanation.notes.join("\n")
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_by_its_form_is_explained_without_a_lookup() {
    let mut fixture = Fixture::new(|_| {});
    for (presented, fault, word) in [
        ("", None, "empty"),
        ("ks_live_1", Some(Fault::Form), "cut off"),
        ("two words", Some(Fault::NotVisible), "space"),
        (&"x".repeat(513), Some(Fault::TooLong), "512"),
        (&fixture.key.clone().replacen("live", "test", 1), Some(Fault::Tag), "keys.secret_file"),
    ] {
        presented.clone_into(&mut fixture.key);
        let explanation = fixture.explain(Needs::default()).await;
        assert_eq!(explanation.reading, fault.map(Err), "{presented}");
        assert!(explanation.rule.contains(word), "{}", explanation.rule);
        assert!(explanation.seen.is_none());
        assert_eq!(explanation.basis, Basis::Credential);
    }
    assert_eq!(fixture.tiers.store.queries(), 0);
}

#[tokio::test(start_paused = true)]
async fn how_a_credential_was_read_is_told_with_its_secret() {
    let mut fixture = Fixture::new(|_| {});
    let minting = fixture.ring.fingerprints().next().unwrap();
    let Some(Ok(Reading::Ours { secret, .. })) = fixture.agrees(Needs::default()).await.reading
    else {
        panic!("it is ours");
    };
    assert_eq!(secret, minting);
    fixture.key = "sk_legacy_1234".to_owned();
    let explanation = fixture.agrees(Needs::default()).await;
    assert!(matches!(explanation.reading, Some(Ok(Reading::Foreign { .. }))));
    assert_eq!(told(&explanation.decision), "KeyUnknown");
}

#[tokio::test(start_paused = true)]
async fn each_rule_is_told_with_what_it_compared() {
    // To the microsecond, as stores have times.
    let now = Timestamp::from_microsecond(Clock::System.wall().as_microsecond()).unwrap();
    let hour = SignedDuration::from_hours(1);
    let (past, future): (Timestamp, Timestamp) = (now - hour, now + hour);
    let scopes = ["read", "write"];
    let needs = Needs { scopes: &scopes, audience: Some("billing"), ..Needs::default() };
    let all = |record: &mut KeyRecord| record.rights.scopes = scopes.map(str::to_owned).into();
    let cases: [(Change<'_>, Reason, &[&str]); 7] = [
        (&|it| it.state = State::Revoked, Reason::KeyRevoked, &["state=revoked"]),
        (&|it| it.state = State::Disabled, Reason::KeyDisabled, &["state=disabled"]),
        (&|it| it.rights.expires_at = Some(past), Reason::KeyExpired, &[&past.to_string()]),
        (
            &|it| it.rights.not_before = Some(future),
            Reason::KeyNotYetValid,
            &["not_before", &future.to_string()],
        ),
        (
            &|it| it.rights.scopes = vec!["read".to_owned()],
            Reason::ScopeMissing,
            &["not granted is `write`", "granted is `read`"],
        ),
        (
            &|it| {
                all(it);
                it.rights.allowed_networks = vec!["10.0.0.0/8".parse().unwrap()];
            },
            Reason::ClientNetworkForbidden,
            &["client_ip is not told", "`10.0.0.0/8`"],
        ),
        (
            &|it| {
                all(it);
                it.rights.audiences = vec!["search".to_owned()];
            },
            Reason::AudienceForbidden,
            &["audience is `billing`", "`search`"],
        ),
    ];
    for (change, reason, words) in cases {
        let fixture = Fixture::new(change);
        // By the store, and then by the memory that the check has filled.
        for basis in [Basis::Store, Basis::Memory] {
            let explanation = fixture.agrees(needs).await;
            assert_eq!(told(&explanation.decision), format!("{reason:?}"));
            assert_eq!(explanation.basis, basis);
            for word in words {
                assert!(explanation.rule.contains(word), "{}", explanation.rule);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_is_explained_in_every_part_of_its_life() {
    let fixture = Fixture::new(|_| {});
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!((life(&explanation), explanation.basis), (None, Basis::Store));
    assert_eq!(explanation.seen.unwrap().agreement(), None);
    let fresh = fixture.agrees(Needs::default()).await;
    assert_eq!((life(&fresh), fresh.basis), (Some(EntryState::Fresh), Basis::Memory));
    assert_eq!(fresh.seen.unwrap().agreement(), Some(Agreement::Same));

    advance(34 * SECOND).await;
    // The check asks for it again, so that it is explained alone.
    let revalidating = fixture.explain(Needs::default()).await;
    assert_eq!(life(&revalidating), Some(EntryState::Revalidating));
    assert!(told(&revalidating.decision).starts_with("Revalidating"));

    fixture.grow_stale().await;
    let stale = fixture.agrees(Needs::default()).await;
    assert_eq!((life(&stale), stale.basis), (Some(EntryState::Stale), Basis::Store));

    advance(4000 * SECOND).await;
    fixture.tiers.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    let expired = fixture.agrees(Needs::default()).await;
    assert_eq!((life(&expired), expired.basis), (Some(EntryState::Expired), Basis::Nothing));
    assert!(notes(&expired).contains("too old to be served"), "{expired:#?}");
    assert!(expired.rule.contains("unreachable"), "{}", expired.rule);
}

#[tokio::test(start_paused = true)]
async fn a_stale_record_that_is_served_in_an_outage_says_so() {
    let fixture = Fixture::new(|_| {});
    fixture.check().await.unwrap();
    fixture.grow_stale().await;
    fixture.tiers.store.set(Mood::Fails(StoreErrorKind::Unreachable));
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!((life(&explanation), explanation.basis), (Some(EntryState::Stale), Basis::Memory));
    assert!(
        notes(&explanation).contains("without the word of the store until"),
        "{explanation:#?}"
    );
    assert_eq!(explanation.doubts.doubt, None);
    // The check has failed meanwhile.
    let explanation = fixture.agrees(Needs::default()).await;
    assert!(notes(&explanation).contains("checks do not wait"), "{explanation:#?}");
    assert_eq!(explanation.doubts.last_failure.unwrap().kind(), StoreErrorKind::Unreachable);
    let silence = explanation.seen.unwrap().store.answer.unwrap_err();
    assert_eq!(silence.cause, Unavailable::Store(StoreErrorKind::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_has_not_arrived_is_told_with_what_would_follow_from_it() {
    let fixture = Fixture::new(|_| {});
    fixture.check().await.unwrap();
    fixture.now_is(|it| it.state = State::Revoked);
    let explanation = fixture.agrees(Needs::default()).await;
    assert!(told(&explanation.decision).starts_with("Fresh"));
    assert!(notes(&explanation).contains("revision 2 and this instance revision 1"));
    let seen = explanation.seen.unwrap();
    assert_eq!(seen.agreement(), Some(Agreement::StoreIsNewer));
    let alone = explanation.by_the_store.map(Ok);
    assert_eq!(alone.as_ref().map(told).as_deref(), Some("KeyRevoked"));

    fixture.now_is(|it| it.revision = crate::key::Revision(0));
    let seen = fixture.explain(Needs::default()).await.seen.unwrap();
    assert_eq!(seen.agreement(), Some(Agreement::StoreIsOlder));
    fixture.now_is(|it| {
        it.revision = crate::key::Revision(1);
        it.rights.principal = "changed".to_owned();
    });
    let seen = fixture.explain(Needs::default()).await.seen.unwrap();
    assert_eq!(seen.agreement(), Some(Agreement::Different));
}

#[tokio::test(start_paused = true)]
async fn an_absence_is_explained_until_it_ends() {
    let fixture = Fixture::new(|_| {});
    fixture.tiers.store.remove(&fixture.digest);
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!(
        (told(&explanation.decision).as_str(), explanation.basis),
        ("KeyUnknown", Basis::Store)
    );
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!(explanation.basis, Basis::Memory);
    assert_eq!(explanation.seen.unwrap().agreement(), Some(Agreement::Same));
    fixture.now_is(|_| {});
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!(explanation.seen.as_ref().unwrap().agreement(), Some(Agreement::StoreHasIt));
    assert!(notes(&explanation).contains("its creation has not been applied"), "{explanation:#?}");
    advance(6 * SECOND).await;
    let explanation = fixture.agrees(Needs::default()).await;
    assert!(told(&explanation.decision).starts_with("Fresh"));
}

#[tokio::test(start_paused = true)]
async fn an_absence_that_is_no_evidence_is_never_explained_as_one() {
    let fixture = Fixture::new(|_| {});
    fixture.check().await.unwrap();
    // The one known key is gone: it is the witness for all that are unknown.
    fixture.tiers.store.remove(&fixture.digest);
    let known = fixture.explain(Needs::default()).await;
    assert!(told(&known.decision).starts_with("Fresh"));
    assert_eq!(known.seen.as_ref().unwrap().agreement(), Some(Agreement::StoreLacksIt));
    assert!(notes(&known).contains("not believed"), "{known:#?}");
    let unknown = Fixture { key: "sk_unknown".to_owned(), ..fixture };
    let explanation = unknown.agrees(Needs::default()).await;
    assert_eq!(explanation.decision, Err(Unavailable::Suspect));
    assert!(notes(&explanation).contains("a key that it should have"), "{explanation:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_suspect_is_told_so() {
    let mut fixture = Fixture::new(|_| {});
    let mine = fixture.key.clone();
    for _ in 0..5 {
        let other = fixture.ring.mint(Environment::Live).unwrap();
        fixture.tiers.store.put(other.digest, record("other", 1));
        fixture.key = other.key.expose().to_owned();
        fixture.check().await.unwrap();
        fixture.tiers.store.remove(&other.digest);
        let gone = fixture.tiers.memory.look(&other.digest, Instant::now()).unwrap().observation;
        let absent = fixture.explain(Needs::default()).await.seen.unwrap().store.answer.unwrap();
        fixture.tiers.memory.take(other.digest, &absent, gone.validated_at).unwrap_err();
    }
    let missing = fixture.agrees(Needs::default()).await;
    assert!(missing.doubts.suspect);
    assert!(told(&missing.decision).starts_with("StaleIfError"));
    assert!(notes(&missing).contains("missing in the store, for the first time"), "{missing:#?}");
    fixture.key = mine;
    fixture.tiers.store.remove(&fixture.digest);
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!(explanation.decision, Err(Unavailable::Suspect));
    assert!(notes(&explanation).contains("the store is suspect"), "{explanation:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_told_although_the_store_answers_the_explainer() {
    let fixture = Fixture::new(|_| {});
    fixture.tiers.store.set(Mood::Fails(StoreErrorKind::Timeout));
    while fixture.tiers.guarded.admits() {
        let place = fixture.tiers.guarded.acquire(Instant::now() + TIMEOUT).await.unwrap();
        place.find(&[fixture.digest]).await.unwrap_err();
    }
    fixture.tiers.store.set(Mood::Answers);
    let explanation = fixture.agrees(Needs::default()).await;
    assert_eq!(explanation.decision, Err(Unavailable::BreakerOpen));
    assert_eq!(explanation.doubts.breaker, BreakerState::Open);
    assert!(explanation.doubts.tried_in.is_some());
    assert!(
        notes(&explanation).contains("is open, although the store answers"),
        "{explanation:#?}"
    );
    assert!(explanation.seen.unwrap().store.answer.is_ok());
}
