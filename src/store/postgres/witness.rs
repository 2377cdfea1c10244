//! Who answers: which server, whether it still is the one, and how old its data
//! are. Shared by the pool and the follower of a store.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_postgres::{Row, SimpleQueryMessage, SimpleQueryRow};

use super::{
    replay::{Observed, Replay, Standby},
    rows,
};
use crate::store::{DataAge, StoreError, StoreErrorKind};

/// What every answer says of its server, in the same round trip. A standby has no
/// timeline here; the others say nothing of replay.
pub(super) const ANSWERING: &str = "\
    (EXTRACT(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS ks_started, \
    CASE WHEN NOT pg_is_in_recovery() THEN \
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int \
    END AS ks_timeline, \
    CASE WHEN pg_is_in_recovery() \
        THEN COALESCE((pg_last_wal_receive_lsn() - '0/0')::bigint, 0) END AS ks_received, \
    CASE WHEN pg_is_in_recovery() \
        THEN COALESCE((pg_last_wal_replay_lsn() - '0/0')::bigint, 0) END AS ks_replayed, \
    CASE WHEN pg_is_in_recovery() \
        THEN (SELECT pid FROM pg_stat_wal_receiver) END AS ks_receiver, \
    CASE WHEN pg_is_in_recovery() THEN (EXTRACT(epoch FROM \
        clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint END AS ks_replayed_ago";

/// The first question on every connection. It costs a look into a file at the
/// server, so that answers do not carry it.
pub(super) const WHO: &str = "\
    SELECT (SELECT system_identifier FROM pg_control_system()), \
        (EXTRACT(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
        CASE WHEN NOT pg_is_in_recovery() THEN \
            ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END";

/// How many servers that were superseded are remembered, and of how many the replay.
const MAX_SERVERS: usize = 16;

/// A running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    /// The cluster that it is a copy of.
    pub(super) system: i64,
    pub(super) process: Process,
}

/// One run of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// When it was started, in microseconds, by which servers of one system are told
    /// apart.
    pub(super) started: i64,
    /// Grows with each promotion. `None` on a standby.
    pub(super) timeline: Option<i32>,
}

/// What an answer says of its server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answering {
    pub(super) process: Process,
    pub(super) standby: Option<Standby>,
}

/// The servers that were met behind the name in the URL.
#[derive(Debug)]
pub(super) struct Servers {
    met: Mutex<Met>,
    /// How often another server has taken over.
    takeovers: watch::Sender<u64>,
    /// Somebody has reason to doubt that the right server answers.
    pub(super) doubted: Notify,
    max_lag: Duration,
}

#[derive(Debug, Default)]
struct Met {
    system: Option<i64>,
    primary: Option<Process>,
    /// Primaries that others took over from, the last one at the end.
    superseded: VecDeque<i64>,
    /// Connections that were made before lead to another server.
    since: Option<std::time::Instant>,
    replays: HashMap<i64, Replay>,
}

impl Servers {
    pub(super) fn new(max_lag: Duration) -> Self {
        let (takeovers, doubted) = (watch::Sender::new(0), Notify::new());
        Self { met: Mutex::default(), takeovers, doubted, max_lag }
    }

    /// Takes in who answers on a new connection. Fails when that is a server that
    /// another one has taken over from.
    pub(super) fn meet(&self, server: Server) -> Result<(), StoreError> {
        let mut met = self.met();
        let Server { system, process } = server;
        let other_system = met.system.is_some_and(|known| known != system);
        let Some(timeline) = process.timeline.filter(|_| !other_system) else {
            met.system = Some(system);
            if other_system {
                self.takes_over(&mut met, server);
            }
            return Ok(());
        };
        met.system = Some(system);
        match met.primary {
            None => met.primary = Some(process),
            Some(known) if known.started == process.started => met.primary = Some(process),
            Some(known) if known.timeline > Some(timeline) => return Err(superseded()),
            Some(_) => self.takes_over(&mut met, server),
        }
        Ok(())
    }

    fn takes_over(&self, met: &mut Met, server: Server) {
        let Process { started, timeline } = server.process;
        if let Some(old) = met.primary {
            met.superseded.push_back(old.started);
        }
        met.superseded.retain(|other| *other != started);
        if met.superseded.len() > MAX_SERVERS {
            met.superseded.pop_front();
        }
        met.primary = timeline.map(|_| server.process);
        met.since = Some(Instant::now().into_std());
        self.takeovers.send_modify(|count| *count += 1);
        tracing::info!(
            system = server.system,
            ?timeline,
            "another server, or the same one started anew, answers behind the name in `store.url`; \
             all connections to the one before are given up"
        );
    }

    /// Whether a connection that was made then leads to a server that nobody has
    /// taken over from since.
    pub(super) fn is_current(&self, made: std::time::Instant) -> bool {
        self.met().since.is_none_or(|since| made >= since)
    }

    /// Takes in what an answer to what was asked at `asked_at` says of its server.
    /// Returns how old its data are; fails when another server has taken over.
    pub(super) fn observe(
        &self,
        answering: &Answering,
        asked_at: Instant,
    ) -> Result<Observed, StoreError> {
        let mut met = self.met();
        let Process { started, timeline } = answering.process;
        let newer = met.primary.filter(|known| known.started != started);
        let is_older = timeline.is_some() && newer.is_some_and(|known| known.timeline > timeline);
        if is_older || met.superseded.contains(&started) {
            return Err(superseded());
        }
        let Some(standby) = &answering.standby else {
            return Ok(Observed { age: DataAge::Current, is_settled: true });
        };
        if met.replays.len() >= MAX_SERVERS && !met.replays.contains_key(&started) {
            met.replays.clear();
        }
        let replay = met.replays.entry(started).or_insert_with(|| Replay::new(self.max_lag));
        Ok(replay.observe(standby, asked_at))
    }

    /// How often another server has taken over, now and from now on.
    pub(super) fn takeovers(&self) -> watch::Receiver<u64> {
        self.takeovers.subscribe()
    }

    /// Nothing panics while it holds this lock, so that what a poisoned lock
    /// protects is whole.
    fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn superseded() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "another server has taken over")
}

impl Server {
    /// Reads the answer to [`WHO`].
    pub(super) fn read(messages: &[SimpleQueryMessage]) -> Result<Self, StoreError> {
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let read = |row: &SimpleQueryRow| {
            let number = |column| row.get(column)?.parse::<i64>().ok();
            let timeline = row.get(2).and_then(|text| text.parse().ok());
            Some(Self { system: number(0)?, process: Process { started: number(1)?, timeline } })
        };
        row.and_then(read).ok_or_else(|| {
            StoreError::new(StoreErrorKind::Unreachable, "the server does not say who it is")
        })
    }
}

impl Answering {
    /// Reads the columns of [`ANSWERING`], which begin at `first`.
    pub(super) fn read(row: &Row, first: usize) -> Result<Self, StoreError> {
        let started = rows::column(row, first, "?")?;
        let timeline: Option<i32> = rows::column(row, first + 1, "?")?;
        let received: Option<i64> = rows::column(row, first + 2, "?")?;
        let replayed: Option<i64> = rows::column(row, first + 3, "?")?;
        let stream = rows::column(row, first + 4, "?")?;
        let ago: Option<i64> = rows::column(row, first + 5, "?")?;
        let replayed_ago = ago.map(|ago| Duration::from_millis(ago.max(0).unsigned_abs()));
        let standby = received.zip(replayed).map(|(received, replayed)| Standby {
            received,
            replayed,
            stream,
            replayed_ago,
        });
        Ok(Self { process: Process { started, timeline }, standby })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LAG: Duration = Duration::from_secs(5);

    fn primary(system: i64, started: i64, timeline: i32) -> Server {
        Server { system, process: Process { started, timeline: Some(timeline) } }
    }

    fn takes(servers: &Servers, server: Server) -> bool {
        let answering = Answering { process: server.process, standby: None };
        servers.observe(&answering, Instant::now()).is_ok()
    }

    #[test]
    fn promoted_server_takes_over_and_the_older_primary_is_no_longer_believed() {
        let servers = Servers::new(MAX_LAG);
        let (old, new) = (primary(1, 10, 1), primary(1, 20, 2));
        servers.meet(old).unwrap();
        let made = std::time::Instant::now();
        assert!(takes(&servers, old) && servers.is_current(made));
        servers.meet(new).unwrap();
        assert_eq!(*servers.takeovers().borrow(), 1);
        assert!(!servers.is_current(made) && servers.is_current(std::time::Instant::now()));
        assert!(takes(&servers, new) && !takes(&servers, old));
        servers.meet(old).unwrap_err();
    }

    #[test]
    fn another_system_takes_over_whatever_its_timeline() {
        let servers = Servers::new(MAX_LAG);
        let (old, new) = (primary(1, 10, 7), primary(2, 5, 1));
        servers.meet(old).unwrap();
        servers.meet(new).unwrap();
        assert!(takes(&servers, new) && !takes(&servers, old));
        servers.meet(old).unwrap();
        assert!(takes(&servers, old) && !takes(&servers, new), "the name was led back");
    }

    #[test]
    fn standbys_of_the_same_system_are_no_other_server() {
        let servers = Servers::new(MAX_LAG);
        servers.meet(primary(1, 10, 3)).unwrap();
        for started in 20..40 {
            let process = Process { started, timeline: None };
            servers.meet(Server { system: 1, process }).unwrap();
        }
        assert_eq!(*servers.takeovers().borrow(), 0);
        assert!(takes(&servers, primary(1, 10, 3)));
    }
}
