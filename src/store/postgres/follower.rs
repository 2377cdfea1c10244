//! The connection that follows the changes: it listens, and reads the table.

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
    witness::{ANSWERING, Answering, Server, Servers},
};
use crate::{
    key::Revision,
    store::{ChangePage, DataAge, Follower, StoreError, StoreErrorKind, Woken},
    time::jittered,
};

/// Where triggers announce changes. The migrations name it too.
const CHANNEL: &str = "keystead_changes";

/// How far the ages are spread at which connections are renewed.
const AGE_JITTER: f64 = 0.1;

/// How long a follower goes on that could not be renewed.
const RENEWAL_RETRY: Duration = Duration::from_secs(2);

/// The newest row is never deleted: a trigger keeps it.
static HEAD: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT (SELECT COALESCE(max(revision), 0) FROM keystead.key_changes), {ANSWERING}")
});

/// What was deleted is read in the same statement, so that both are of the same
/// moment. There is a row whenever something was deleted: the newest.
const CHANGES: &str = "\
    SELECT revision, digest, kind, \
        COALESCE((SELECT through FROM keystead.pruned_changes), 0) > $1 \
    FROM keystead.key_changes WHERE revision > $1 ORDER BY revision LIMIT $2";

/// Follows the changes over a connection of its own, outside the pool.
///
/// It listens where that can work. Behind a pooler that hands out another
/// connection for every transaction ([`super::PostgresConfig::prepared_statements`]
/// unset), and on a standby, it does not: there, the changes must be asked for.
pub struct PostgresFollower {
    client: Client,
    server: Server,
    servers: Arc<Servers>,
    takeovers: watch::Receiver<u64>,
    history: u64,
    /// What comes of asking who answers behind the name.
    proof: watch::Receiver<Proof>,
    age: DataAge,
    max_lag: Duration,
    /// When it is time to follow anew.
    renewal: Instant,
    ears: Option<Ears>,
    prepared_statements: bool,
    query_timeout: Duration,
    remedy: Arc<str>,
}

/// What the driver of the connection has heard, and how much of it was told.
struct Ears {
    heard: watch::Receiver<Heard>,
    /// How many announcements have been told.
    announcements: u64,
    /// How many words of ours were sent, and how many of them were told.
    beats_sent: u64,
    beats: u64,
    /// What our words begin with: those of other servers come here as well.
    ours: Arc<str>,
}

#[derive(Debug, Default)]
struct Heard {
    announcements: u64,
    /// The number of the last word of ours that came back.
    beat: u64,
    /// Why the connection has ended.
    ended: Option<StoreError>,
}

impl PostgresFollower {
    pub(super) async fn connect(store: &PostgresStore) -> Result<Self, StoreError> {
        let ours = beat_prefix()?;
        let (tell, heard) = watch::channel(Heard::default());
        let (listener, remedy) = (Arc::clone(&ours), Arc::clone(&store.remedy));
        let drive = |connection| {
            let driving = drive(connection, tell, listener, remedy);
            store.tasks.spawn_until_stopped("listen", driving);
        };
        let takeovers = store.servers.takeovers();
        let dialled_at = Instant::now();
        let (client, server) = store.dialer.dial(&store.remedy, drive).await?;
        store.servers.meet(server)?;
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
            ears: None,
            prepared_statements: store.prepared_statements,
            query_timeout: store.query_timeout,
            remedy: Arc::clone(&store.remedy),
        };
        if store.prepared_statements && follower.listens().await? {
            let ears = Ears { heard, announcements: 0, beats_sent: 0, beats: 0, ours };
            follower.ears = Some(ears);
        }
        Ok(follower)
    }

    /// Begins to listen. False on a standby, which announces nothing.
    async fn listens(&self) -> Result<bool, StoreError> {
        let listen = format!("LISTEN {CHANNEL}");
        let listening = timeout(self.query_timeout, self.client.batch_execute(&listen)).await;
        match listening.map_err(|_| error::no_answer(self.query_timeout))? {
            Ok(()) => Ok(true),
            Err(reason) if error::is_standby(&reason) => Ok(false),
            Err(reason) => Err(error::translate(&reason, &self.remedy)),
        }
    }

    /// Takes in what an answer says of its server. Fails when it is not the one that
    /// is followed any more, as behind a pooler, or has become a primary.
    fn observe(&mut self, answering: &Answering, asked_at: Instant) -> Result<(), StoreError> {
        if answering.process != self.server.process {
            return Err(StoreError::new(StoreErrorKind::Unreachable, "another server answers"));
        }
        let age = self.servers.observe(answering, asked_at)?.age;
        let verified_at = self.proof.borrow().verified_at;
        let unproved = asked_at.saturating_duration_since(verified_at) > self.max_lag;
        self.age =
            if unproved { DataAge::Lagging(age.as_of(asked_at).min(verified_at)) } else { age };
        Ok(())
    }

    /// Whether the name leads to a server that is to be preferred: a primary to a
    /// standby, and any to a standby whose data are old.
    fn prefers_other(&mut self) -> bool {
        let is_new = self.proof.has_changed().unwrap_or(false);
        let Proof { is_other, is_primary, .. } = *self.proof.borrow_and_update();
        let is_standby = self.server.process.timeline.is_none();
        is_new && is_other && is_standby && (is_primary || self.age.is_lagging())
    }

    /// Runs one statement. Unnamed: they are few, and need no second round trip.
    async fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let asking = async {
            if self.prepared_statements {
                self.client.query_typed(sql, params).await
            } else {
                let limit = statement_timeout(self.query_timeout);
                call::in_a_transaction(&self.client, sql, params, limit).await
            }
        };
        timeout(self.query_timeout, asking)
            .await
            .map_err(|_| error::no_answer(self.query_timeout))?
            .map_err(|reason| error::translate(&reason, &self.remedy))
    }
}

impl Follower for PostgresFollower {
    fn announces(&self) -> bool {
        self.ears.is_some()
    }

    fn age(&self) -> DataAge {
        self.age
    }

    fn history(&self) -> u64 {
        self.history
    }

    async fn head(&mut self) -> Result<Revision, StoreError> {
        let asked_at = Instant::now();
        let rows = self.query(&HEAD, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::unreadable("it says nothing"))?;
        self.observe(&Answering::read(row, 1)?, asked_at)?;
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
        let Some(ears) = &mut self.ears else { return Ok(()) };
        ears.beats_sent += 1;
        let notify = format!("NOTIFY {CHANNEL}, '{}{}'", ears.ours, ears.beats_sent);
        timeout(self.query_timeout, self.client.batch_execute(&notify))
            .await
            .map_err(|_| error::no_answer(self.query_timeout))?
            .map_err(|reason| error::translate(&reason, &self.remedy))
    }

    async fn wait(&mut self, until: Instant) -> Result<Woken, StoreError> {
        if Instant::now() >= self.renewal || self.prefers_other() {
            // If that fails, it is good for a while.
            self.renewal = Instant::now() + RENEWAL_RETRY;
            return Ok(Woken::Renewal);
        }
        let Self { ears, takeovers, history, renewal, .. } = self;
        let until = until.min(*renewal);
        loop {
            if *takeovers.borrow_and_update() != *history {
                return Ok(Woken::TakenOver);
            }
            if let Some(woken) = ears.as_mut().and_then(Ears::next) {
                return woken;
            }
            let heard = async {
                match ears.as_mut() {
                    Some(ears) => ears.heard.changed().await.map_err(|_| ended()),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                heard = heard => heard?,
                Ok(()) = takeovers.changed() => {}
                () = sleep_until(until) => return Ok(Woken::Elapsed),
            }
        }
    }
}

impl Ears {
    /// What has not been told yet.
    fn next(&mut self) -> Option<Result<Woken, StoreError>> {
        let heard = self.heard.borrow_and_update();
        if let Some(reason) = &heard.ended {
            return Some(Err(reason.clone()));
        }
        if heard.announcements > self.announcements {
            self.announcements = heard.announcements;
            return Some(Ok(Woken::Announced));
        }
        if heard.beat > self.beats {
            self.beats = heard.beat;
            // An older word says less than the newest, which is still to come.
            return (heard.beat == self.beats_sent).then_some(Ok(Woken::Beat));
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

/// Drives the connection to its end, and notes what is announced on it.
async fn drive(
    mut connection: Driven,
    tell: watch::Sender<Heard>,
    ours: Arc<str>,
    remedy: Arc<str>,
) {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(word))) => note(&tell, &word, &ours),
            // What the server says to a person, or what the driver may know later.
            Some(Ok(_)) => {}
            Some(Err(reason)) => {
                let reason = error::translate(&reason, &remedy);
                tell.send_modify(|heard| heard.ended = Some(reason));
                return;
            }
            None => return,
        }
    }
}

/// An announcement has no text; the word of a server has.
fn note(tell: &watch::Sender<Heard>, word: &Notification, ours: &str) {
    if word.channel() != CHANNEL {
        return;
    }
    if word.payload().is_empty() {
        tell.send_modify(|heard| heard.announcements += 1);
    } else if let Some(Ok(number)) = word.payload().strip_prefix(ours).map(str::parse) {
        tell.send_modify(|heard| heard.beat = number);
    }
}

/// Tells the words of this connection from those of all others.
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
