use std::{fs, time::Duration};

use tokio::time::timeout;

use super::super::{Journal, Loaded, MAX_QUEUED, Setup, fixture::*, load};
use super::*;
use crate::{
    store::{Change, ChangeKind, fake::record},
    telemetry::Exposition,
};

const PATIENCE: Duration = Duration::from_mins(1);

struct Service {
    warm: Option<Loaded>,
    position: watch::Sender<Option<Position>>,
    coverage: Arc<Coverage>,
    exposition: Exposition,
}

/// A process that has just restored the folder.
async fn started(folder: &Folder, numbered: bool) -> Service {
    let setup = Setup {
        path: folder.path.clone(),
        every: Duration::from_millis(20),
        store: store(1),
        seals: seals(&[SECRET]),
        max_age: HOUR,
        numbered,
    };
    let (metrics, exposition) = Metrics::new().unwrap();
    let warm = load(setup, empty, metrics, Clock::System).await;
    let coverage = Arc::new(Coverage::new(HOUR));
    Service { warm: Some(warm), position: watch::Sender::new(None), coverage, exposition }
}

impl Service {
    fn keep(&mut self) -> (Journal, Writer) {
        let warm = self.warm.take().unwrap();
        warm.keep(Arc::clone(&self.coverage), self.position.subscribe())
    }

    fn warm(&self) -> &Loaded {
        self.warm.as_ref().unwrap()
    }

    fn restored(&self) -> Vec<u64> {
        keys(&self.warm().memory)
    }

    fn shows(&self, line: &str) -> bool {
        let text = String::from_utf8(self.exposition.text().unwrap()).unwrap();
        text.lines().any(|l| l == line)
    }
}

fn change(key: u64, revision: i64) -> Change {
    Change { revision: Revision(revision), digest: digest(key), kind: ChangeKind::Updated }
}

/// Runs a writer alongside `work`, which may stop it.
async fn beside(writer: Writer, work: impl AsyncFnOnce(CancellationToken)) {
    let stop = CancellationToken::new();
    let both = async { tokio::join!(writer.run(stop.clone()), work(stop.clone())) };
    timeout(PATIENCE, both).await.expect("the writer should stop");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, polled).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn fill(memory: &Memory, keys: std::ops::Range<u64>) {
    for number in keys {
        let record = crate::store::fake::record("acme", 1);
        put(memory, number, &record, Instant::now());
    }
}

#[tokio::test]
async fn last_snapshot_is_written_at_shutdown() {
    let folder = Folder::new();
    let mut service = started(&folder, true).await;
    assert!(service.shows(r#"keystead_snapshot_loads_total{result="none"} 1"#));
    let memory = Arc::clone(&service.warm().memory);
    let (_journal, writer) = service.keep();
    service.position.send_replace(Some(at(5)));
    beside(writer, async |stop| {
        fill(&memory, 0..3);
        stop.cancel();
    })
    .await;
    let next = started(&folder, true).await;
    assert_eq!(next.restored(), [0, 1, 2]);
    assert_eq!(next.warm().restored.unwrap().position, at(5));
    assert!(next.shows(r#"keystead_snapshot_loads_total{result="restored"} 1"#));
}

#[tokio::test]
async fn nothing_is_written_before_the_feed_has_a_position() {
    let folder = Folder::new();
    let mut service = started(&folder, true).await;
    let (_journal, Writer { mut snapshots, path, .. }) = service.keep();
    snapshots.write(&path, None).await;
    assert_eq!(folder.names(), ["snapshot.lock"]);
    service.position.send_replace(Some(at(5)));
    snapshots.write(&path, None).await;
    assert_eq!(folder.names(), ["snapshot", "snapshot.changes", "snapshot.end", "snapshot.lock"]);
}

#[tokio::test]
async fn store_without_numbered_changes_needs_an_answer_and_no_position() {
    let folder = Folder::new();
    let mut service = started(&folder, false).await;
    let (_journal, writer) = service.keep();
    beside(writer, async |stop| stop.cancel()).await;
    assert!(!folder.path.exists(), "the previous snapshot must not be overwritten");
    drop(service);
    let mut service = started(&folder, false).await;
    let memory = Arc::clone(&service.warm().memory);
    let (_journal, writer) = service.keep();
    put(&memory, 0, &record("acme", 1), Instant::now());
    beside(writer, async |stop| {
        until("the snapshot is written", || folder.path.exists()).await;
        stop.cancel();
    })
    .await;
    let next = started(&folder, false).await;
    assert_eq!(next.warm().restored.unwrap().position.revision, Revision(0));
}

#[tokio::test]
async fn restored_process_keeps_position_and_coverage_without_its_store() {
    let folder = Folder::new();
    let mut keeper = folder.keeper();
    write_at(&mut keeper, &memory(2), 10);
    drop(keeper);
    for _ in 0..3 {
        let mut service = started(&folder, true).await;
        let restored = service.warm().restored.unwrap();
        assert_eq!((restored.position, service.restored()), (at(10), vec![0, 1]));
        service.coverage.resume(restored.covered_since, Instant::now());
        let (_journal, writer) = service.keep();
        beside(writer, async |stop| stop.cancel()).await;
    }
    let restored = started(&folder, true).await.warm().restored.unwrap();
    assert!(restored.covered_since < Instant::now() - restored.since_written);
}

#[tokio::test]
async fn noted_change_survives_a_crash() {
    let folder = Folder::new();
    let mut service = started(&folder, true).await;
    fill(&service.warm().memory, 0..3);
    let (journal, writer) = service.keep();
    service.position.send_replace(Some(at(10)));
    let crash = async {
        until("the snapshot is written", || folder.path.exists()).await;
        let length = || fs::metadata(folder.beside(".changes")).map_or(0, |found| found.len());
        let before = length();
        journal.note(&[change(1, 11)]);
        until("the change is journaled", || length() != before).await;
    };
    tokio::select! {
        () = writer.run(CancellationToken::new()) => panic!("nobody stopped it"),
        () = crash => {}
    }
    drop(service);
    until("the files are free", || !matches!(folder.restored(), Err(super::super::Refusal::Io(_))))
        .await;
    assert_eq!(started(&folder, true).await.restored(), [0, 2]);
}

#[tokio::test]
async fn changes_beyond_the_queue_are_counted_and_remove_the_snapshot() {
    let folder = Folder::new();
    let mut keeper = folder.keeper();
    write_at(&mut keeper, &memory(3), 10);
    drop(keeper);
    let mut service = started(&folder, true).await;
    let (journal, writer) = service.keep();
    // The queue is not drained yet.
    for revision in 0..=i64::try_from(MAX_QUEUED).unwrap() {
        journal.note(&[change(1, 11 + revision)]);
    }
    assert!(service.shows("keystead_snapshot_changes_lost_total 1"));
    let Writer { recorder, .. } = writer;
    let stop = CancellationToken::new();
    let removed = async {
        until("the snapshot is removed", || !folder.path.exists()).await;
        stop.cancel();
    };
    tokio::join!(recorder.run(stop.clone()), removed);
    drop(service);
    assert!(started(&folder, true).await.warm().restored.is_none());
}

#[tokio::test]
async fn failed_write_is_counted_and_retried() {
    let folder = Folder::new();
    let below = Folder { path: folder.folder.path().join("missing/snapshot"), ..folder };
    let mut service = started(&below, true).await;
    assert!(service.shows(r#"keystead_snapshot_loads_total{result="refused"} 1"#));
    let (_journal, writer) = service.keep();
    service.position.send_replace(Some(at(5)));
    beside(writer, async |stop| {
        until("it failed", || {
            !service.shows(r#"keystead_snapshot_writes_total{result="failed"} 0"#)
        })
        .await;
        assert!(service.shows(r#"keystead_snapshot_writes_total{result="written"} 0"#));
        fs::create_dir(below.path.parent().unwrap()).unwrap();
        until("the snapshot is written", || below.path.exists()).await;
        stop.cancel();
    })
    .await;
    assert!(started(&below, true).await.warm().restored.is_some());
}

#[tokio::test]
async fn journal_without_a_snapshot_records_nothing() {
    Journal::default().note(&[change(1, 1)]);
}

#[test]
fn throttle_pauses_longer_than_it_works_and_stops_on_cancellation() {
    let until = CancellationToken::new();
    let throttle = Throttle::until(&until);
    let began = Instant::now();
    while began.elapsed() < MAX_PAUSE / (2 * PAUSE_FACTOR) {
        std::hint::spin_loop();
    }
    let pause = Instant::now();
    assert!(throttle.pause());
    assert!(pause.elapsed() >= MAX_PAUSE / 2, "paused for {:?}", pause.elapsed());
    until.cancel();
    assert!(!throttle.pause());
}
