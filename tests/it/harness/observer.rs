//! Observes a service from the server side, and terminates its connections there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Builder,
    task::JoinHandle,
    time::{interval, sleep},
};
use tokio_postgres::Client;

use super::{
    beside,
    postgres::{Connecting, Postgres, Setup},
};

/// Polling interval for the server's activity.
const EVERY: Duration = Duration::from_millis(1);

/// Delay before retrying an unreachable server.
const AGAIN: Duration = Duration::from_millis(20);

/// The backends of all services.
const OURS: &str = "application_name = 'keystead'";

/// The lookups among statements: the column with their text goes before it.
const IS_LOOKUP: &str = "LIKE '%WHERE digest = ANY(%'";

/// A setup in which the server counts statements.
pub(crate) fn counting() -> Setup {
    let settings = vec![("shared_preload_libraries", "pg_stat_statements".to_owned())];
    Setup { settings, ..Setup::default() }
}

/// Number of lookups that the server has completed, by its own count,
/// which a killed server forgets. It was set up as [`counting`].
pub(crate) async fn lookups_carried_out(postgres: &Postgres) -> u64 {
    let count = format!(
        "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
         SELECT COALESCE(sum(calls), 0) FROM pg_stat_statements WHERE query {IS_LOOKUP}"
    );
    postgres.value(&count).await.parse().unwrap()
}

/// Looks at what the server is doing, repeatedly until it is dropped. Goes
/// on by itself when the server comes back. Has its own thread, so that it
/// looks as often while its test is busy.
#[derive(Debug)]
pub(crate) struct Observer(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    stop: AtomicBool,
    looks: AtomicUsize,
    connections: AtomicUsize,
    statements: AtomicUsize,
    lookups: AtomicUsize,
}

/// The most that an [`Observer`] has seen at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// Number of polls.
    pub(crate) looks: usize,
    /// Connections of services.
    pub(crate) connections: usize,
    /// Statements of services under way, polls of the feed among them.
    pub(crate) statements: usize,
    /// Lookups under way.
    pub(crate) lookups: usize,
}

impl Observer {
    pub(crate) fn of(postgres: &Postgres) -> Self {
        let seen = Arc::new(Seen::default());
        let (connecting, shared) = (postgres.connecting(), Arc::clone(&seen));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        std::thread::spawn(move || runtime.block_on(look(connecting, shared)));
        Self(seen)
    }

    pub(crate) fn most(&self) -> Most {
        let Seen { looks, connections, statements, lookups, stop: _ } = &*self.0;
        let [looks, connections, statements, lookups] =
            [looks, connections, statements, lookups].map(|count| count.load(Ordering::SeqCst));
        Most { looks, connections, statements, lookups }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

async fn look(connecting: Connecting, seen: Arc<Seen>) {
    let count = format!(
        "SELECT count(*), count(*) FILTER (WHERE state = 'active'),
             count(*) FILTER (WHERE state = 'active' AND query {IS_LOOKUP})
         FROM pg_stat_activity WHERE {OURS}"
    );
    let stopped = || seen.stop.load(Ordering::SeqCst);
    while !stopped() {
        if let Ok(client) = connecting.connect().await {
            while !stopped()
                && let Ok(row) = client.query_one(&count, &[]).await
            {
                for (column, most) in
                    [&seen.connections, &seen.statements, &seen.lookups].into_iter().enumerate()
                {
                    let now = usize::try_from(row.get::<_, i64>(column)).unwrap();
                    most.fetch_max(now, Ordering::SeqCst);
                }
                seen.looks.fetch_add(1, Ordering::SeqCst);
                sleep(EVERY).await;
            }
        }
        sleep(AGAIN).await;
    }
}

/// Ends all connections of services at the server, repeatedly.
#[derive(Debug)]
pub(crate) struct Terminator {
    stop: Arc<AtomicBool>,
    ended: JoinHandle<usize>,
}

impl Terminator {
    /// From now on, every so often.
    pub(crate) async fn start(postgres: &Postgres, every: Duration) -> Self {
        let client = postgres.client().await;
        let stop = Arc::new(AtomicBool::new(false));
        let ended = beside(terminate(client, every, Arc::clone(&stop)));
        Self { stop, ended }
    }

    /// Stops, and says how many it has ended.
    pub(crate) async fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.ended.await.unwrap()
    }
}

async fn terminate(client: Client, every: Duration, stop: Arc<AtomicBool>) -> usize {
    let all = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}");
    let mut ticks = interval(every);
    let mut ended = 0;
    while !stop.load(Ordering::SeqCst) {
        ticks.tick().await;
        ended += client.query(&all, &[]).await.unwrap().len();
    }
    ended
}
