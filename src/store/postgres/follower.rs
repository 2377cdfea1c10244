//! The follower: listens for announcements and reads the change table over one connection.

use std::{
    fmt,
    future::poll_fn,
    num::NonZeroU32,
    sync::{Arc, LazyLock},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_postgres::{AsyncMessage, Client, Notification, Row, types::Type};

use super::{
    PostgresStore,
    call::{self, Param},
    dial::Driven,
    error, rows, statement_timeout,
    verification::{Proof, Verification},
    witness::{SERVER_COLUMNS, Server, ServerReport, Servers},
};
use crate::{
    key::Revision,
    store::{ChangePage, DataAge, Follower, StoreError, StoreErrorKind, Woken},
    time::jittered,
};

/// Channel of the announcements, which the migrations name too.
const CHANNEL: &str = "keystead_changes";

/// Jitter of the connections' maximum age.
const AGE_JITTER: f64 = 0.1;

/// Retry interval after a failed renewal.
const RENEWAL_RETRY: Duration = Duration::from_secs(2);

/// The newest row is never deleted: a trigger keeps it.
static HEAD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT (SELECT COALESCE(max(revision), 0) FROM keystead.key_changes), {SERVER_COLUMNS}"
    )
});

/// Reads deletions in the same statement, so that both are of one snapshot. If anything was
/// deleted, there is a row: the newest.
const CHANGES: &str = "\
    SELECT revision, digest, kind, \
        COALESCE((SELECT through FROM keystead.pruned_changes), 0) > $1 \
    FROM keystead.key_changes WHERE revision > $1 ORDER BY revision LIMIT $2";

/// Follows the changes over a dedicated connection outside the pool.
///
/// Listens for announcements where possible. Behind a transaction-mode pooler
/// ([`super::PostgresConfig::prepared_statements`] unset) and on a standby it does not: poll
/// there.
pub struct PostgresFollower {
    client: Client,
    server: Server,
    servers: Arc<Servers>,
    takeovers: watch::Receiver<u64>,
    history: u64,
    /// Results of verifying which server the URL leads to.
    proof: watch::Receiver<Proof>,
    age: DataAge,
    max_lag: Duration,
    /// When to follow again.
    renewal: Instant,
    listener: Option<Listener>,
    prepared_statements: bool,
    query_timeout: Duration,
    remedy: Arc<str>,
}

/// Notifications received by the connection task, and how many of them were returned.
struct Listener {
    received: watch::Receiver<Received>,
    /// Number of announcements returned.
    announcements: u64,
    /// Number of heartbeats sent, and of those returned.
    beats_sent: u64,
    beats: u64,
    /// Prefix of this connection's heartbeats: those of other servers arrive here as well.
    prefix: Arc<str>,
}

#[derive(Debug, Default)]
struct Received {
    announcements: u64,
    /// Number of the last heartbeat that returned.
    beat: u64,
    /// Why the connection has ended.
    ended: Option<StoreError>,
}

impl PostgresFollower {
    pub(super) async fn connect(store: &PostgresStore) -> Result<Self, StoreError> {
        let prefix = beat_prefix()?;
        let (sender, received) = watch::channel(Received::default());
        let (driver_prefix, remedy) = (Arc::clone(&prefix), Arc::clone(&store.remedy));
        let drive = |connection| {
            let driving = drive(connection, sender, driver_prefix, remedy);
            store.tasks.spawn_until_stopped("listen", driving);
        };
        let takeovers = store.servers.takeovers();
        let dialled_at = Instant::now();
        let (client, server) = store.dialer.dial(&store.remedy, drive).await?;
        store.servers.register(server)?;
        let history = *takeovers.borrow();
        let proof = Verification::begin(store, server, dialled_at);
        let mut follower = Self {
            client,
            server,
            servers: Arc::clone(&store.servers),
            takeovers,
            history,
            proof,
            age: DataAge::Current,
            max_lag: store.max_lag,
            renewal: dialled_at + jittered(store.max_connection_age, AGE_JITTER),
            listener: None,
            prepared_statements: store.prepared_statements,
            query_timeout: store.query_timeout,
            remedy: Arc::clone(&store.remedy),
        };
        if store.prepared_statements && follower.listens().await? {
            let listener = Listener { received, announcements: 0, beats_sent: 0, beats: 0, prefix };
            follower.listener = Some(listener);
        }
        Ok(follower)
    }

    /// Starts to listen. Returns false on a standby, which announces nothing.
    async fn listens(&self) -> Result<bool, StoreError> {
        let listen = format!("LISTEN {CHANNEL}");
        let listening = timeout(self.query_timeout, self.client.batch_execute(&listen)).await;
        match listening.map_err(|_| error::no_answer(self.query_timeout))? {
            Ok(()) => Ok(true),
            Err(reason) if error::is_standby(&reason) => Ok(false),
            Err(reason) => Err(error::translate(&reason, &self.remedy)),
        }
    }

    /// Evaluates the server columns of an answer. Fails if another server answers, as behind a
    /// pooler, or if it has become a primary.
    fn observe(&mut self, report: &ServerReport, queried_at: Instant) -> Result<(), StoreError> {
        if report.process != self.server.process {
            return Err(StoreError::new(StoreErrorKind::Unreachable, "another server answers"));
        }
        let age = self.servers.observe(report, queried_at)?.age;
        let verified_at = self.proof.borrow().verified_at;
        let unproved = queried_at.saturating_duration_since(verified_at) > self.max_lag;
        self.age =
            if unproved { DataAge::Lagging(age.as_of(queried_at).min(verified_at)) } else { age };
        Ok(())
    }

    /// Whether the URL leads to a preferable server: a primary over a standby, and any server
    /// over a lagging standby.
    fn prefers_other(&mut self) -> bool {
        let is_new = self.proof.has_changed().unwrap_or(false);
        let Proof { is_other, is_primary, .. } = *self.proof.borrow_and_update();
        let is_standby = self.server.process.timeline.is_none();
        is_new && is_other && is_standby && (is_primary || self.age.is_lagging())
    }

    /// Runs one statement. Unnamed: there are few, and they save a second round trip.
    async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let request = async {
            if self.prepared_statements {
                self.client.query_typed(sql, params).await
            } else {
                let limit = statement_timeout(self.query_timeout);
                call::in_a_transaction(&self.client, sql, params, limit).await
            }
        };
        timeout(self.query_timeout, request)
            .await
            .map_err(|_| error::no_answer(self.query_timeout))?
            .map_err(|reason| error::translate(&reason, &self.remedy))
    }
}

impl Follower for PostgresFollower {
    fn announces(&self) -> bool {
        self.listener.is_some()
    }

    fn age(&self) -> DataAge {
        self.age
    }

    fn history(&self) -> u64 {
        self.history
    }

    async fn head(&mut self) -> Result<Revision, StoreError> {
        let queried_at = Instant::now();
        let rows = self.query(&HEAD, &[]).await?;
        let row =
            rows.first().ok_or_else(|| StoreError::unreadable("the server returned no row"))?;
        self.observe(&ServerReport::read(row, 1)?, queried_at)?;
        rows::revision(row)
    }

    async fn changes(
        &mut self,
        after: Revision,
        limit: NonZeroU32,
    ) -> Result<Option<ChangePage>, StoreError> {
        let limit = i64::from(limit.get());
        let params = [call::param(&after.0, Type::INT8), call::param(&limit, Type::INT8)];
        let rows = self.query(CHANGES, &params).await?;
        if rows.first().map_or(Ok(false), rows::is_after_a_gap)? {
            return Ok(None);
        }
        let changes = rows.iter().map(rows::change).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(ChangePage::of(changes)))
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        let Some(listener) = &mut self.listener else { return Ok(()) };
        listener.beats_sent += 1;
        let notify = format!("NOTIFY {CHANNEL}, '{}{}'", listener.prefix, listener.beats_sent);
        timeout(self.query_timeout, self.client.batch_execute(&notify))
            .await
            .map_err(|_| error::no_answer(self.query_timeout))?
            .map_err(|reason| error::translate(&reason, &self.remedy))
    }

    async fn wait(&mut self, until: Instant) -> Result<Woken, StoreError> {
        if Instant::now() >= self.renewal || self.prefers_other() {
            // If renewal fails, this follower is used for a while.
            self.renewal = Instant::now() + RENEWAL_RETRY;
            return Ok(Woken::Renewal);
        }
        let Self { listener, takeovers, history, renewal, .. } = self;
        let until = until.min(*renewal);
        loop {
            if *takeovers.borrow_and_update() != *history {
                return Ok(Woken::TakenOver);
            }
            if let Some(woken) = listener.as_mut().and_then(Listener::next) {
                return woken;
            }
            let received = async {
                match listener.as_mut() {
                    Some(listener) => listener.received.changed().await.map_err(|_| ended()),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = received => received?,
                Ok(()) = takeovers.changed() => {}
                () = sleep_until(until) => return Ok(Woken::Elapsed),
            }
        }
    }
}

impl Listener {
    /// Next event not yet returned.
    fn next(&mut self) -> Option<Result<Woken, StoreError>> {
        let received = self.received.borrow_and_update();
        if let Some(reason) = &received.ended {
            return Some(Err(reason.clone()));
        }
        if received.announcements > self.announcements {
            self.announcements = received.announcements;
            return Some(Ok(Woken::Announced));
        }
        if received.beat > self.beats {
            self.beats = received.beat;
            // Only the newest heartbeat counts, and it is still to come.
            return (received.beat == self.beats_sent).then_some(Ok(Woken::Beat));
        }
        None
    }
}

impl fmt::Debug for PostgresFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresFollower")
            .field("announces", &self.announces())
            .finish_non_exhaustive()
    }
}

/// Polls the connection to its end and records notifications.
async fn drive(
    mut connection: Driven,
    sender: watch::Sender<Received>,
    prefix: Arc<str>,
    remedy: Arc<str>,
) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                note(&sender, &notification, &prefix);
            }
            // Notices for people, and messages that future drivers may add.
            Some(Ok(_)) => {}
            Some(Err(reason)) => {
                let reason = error::translate(&reason, &remedy);
                sender.send_modify(|received| received.ended = Some(reason));
                return;
            }
            None => return,
        }
    }
}

/// Announcements have an empty payload; heartbeats do not.
fn note(sender: &watch::Sender<Received>, notification: &Notification, prefix: &str) {
    if notification.channel() != CHANNEL {
        return;
    }
    if notification.payload().is_empty() {
        sender.send_modify(|received| received.announcements += 1);
    } else if let Some(Ok(number)) = notification.payload().strip_prefix(prefix).map(str::parse) {
        sender.send_modify(|received| received.beat = number);
    }
}

/// Random prefix that distinguishes this connection's heartbeats from all others.
fn beat_prefix() -> Result<Arc<str>, StoreError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|reason| {
        StoreError::new(StoreErrorKind::Unreachable, format!("no random numbers: {reason}"))
    })?;
    Ok(format!("beat {} ", hex::encode(random)).into())
}

fn ended() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "the connection has ended")
}
