//! Identity of the server, whether it has been superseded, and the age of its data. Shared by
//! the pool and the follower of a store.

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

/// Columns that describe the server, added to every answer. On a standby the timeline is NULL,
/// on a primary the replay columns are.
pub(super) const SERVER_COLUMNS: &str = "\
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

/// First query on every connection. It reads a file at the server, so it is not part of every
/// answer.
pub(super) const IDENTIFY: &str = "\
    SELECT (SELECT system_identifier FROM pg_control_system()), \
        (EXTRACT(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
        CASE WHEN NOT pg_is_in_recovery() THEN \
            ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END";

/// Maximum number of superseded servers remembered, and of servers with replay state.
const MAX_SERVERS: usize = 16;

/// A running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    /// Identifier of the database cluster.
    pub(super) system: i64,
    pub(super) process: Process,
}

/// One run of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// Start time in microseconds, which distinguishes servers of one cluster.
    pub(super) started: i64,
    /// Increases with each promotion. `None` on a standby.
    pub(super) timeline: Option<i32>,
}

/// Description of the server in an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerReport {
    pub(super) process: Process,
    pub(super) standby: Option<Standby>,
}

/// Servers seen behind the host names of the URL.
#[derive(Debug)]
pub(super) struct Servers {
    state: Mutex<ServersState>,
    /// Number of times that a server was superseded.
    takeovers: watch::Sender<u64>,
    /// Requests a verification at once.
    pub(super) recheck: Notify,
    max_lag: Duration,
}

#[derive(Debug, Default)]
struct ServersState {
    system: Option<i64>,
    primary: Option<Process>,
    /// Superseded primaries, oldest first.
    superseded: VecDeque<i64>,
    /// Older connections lead to another server.
    since: Option<std::time::Instant>,
    replays: HashMap<i64, Replay>,
}

impl Servers {
    pub(super) fn new(max_lag: Duration) -> Self {
        let (takeovers, recheck) = (watch::Sender::new(0), Notify::new());
        Self { state: Mutex::default(), takeovers, recheck, max_lag }
    }

    /// Registers the server of a new connection. Fails if it has been superseded.
    pub(super) fn register(&self, server: Server) -> Result<(), StoreError> {
        let mut state = self.state();
        let Server { system, process } = server;
        let other_system = state.system.is_some_and(|known| known != system);
        let Some(timeline) = process.timeline.filter(|_| !other_system) else {
            state.system = Some(system);
            if other_system {
                self.takes_over(&mut state, server);
            }
            return Ok(());
        };
        state.system = Some(system);
        match state.primary {
            None => state.primary = Some(process),
            Some(known) if known.started == process.started => state.primary = Some(process),
            Some(known) if known.timeline > Some(timeline) => return Err(superseded()),
            Some(_) => self.takes_over(&mut state, server),
        }
        Ok(())
    }

    fn takes_over(&self, state: &mut ServersState, server: Server) {
        let Process { started, timeline } = server.process;
        if let Some(old) = state.primary {
            state.superseded.push_back(old.started);
        }
        state.superseded.retain(|other| *other != started);
        if state.superseded.len() > MAX_SERVERS {
            state.superseded.pop_front();
        }
        state.primary = timeline.map(|_| server.process);
        state.since = Some(Instant::now().into_std());
        self.takeovers.send_modify(|count| *count += 1);
        tracing::info!(
            system = server.system,
            ?timeline,
            "another server, or the same one restarted, answers at `store.url`; \
             closing all connections to the previous one"
        );
    }

    /// Whether a connection made at `made` leads to a server that has not been superseded
    /// since.
    pub(super) fn is_current(&self, made: std::time::Instant) -> bool {
        self.state().since.is_none_or(|since| made >= since)
    }

    /// Evaluates the description of the server in an answer queried at `queried_at`. Returns the
    /// age of its data; fails if the server has been superseded.
    pub(super) fn observe(
        &self,
        report: &ServerReport,
        queried_at: Instant,
    ) -> Result<Observed, StoreError> {
        let mut state = self.state();
        let Process { started, timeline } = report.process;
        let newer = state.primary.filter(|known| known.started != started);
        let is_older = timeline.is_some() && newer.is_some_and(|known| known.timeline > timeline);
        if is_older || state.superseded.contains(&started) {
            return Err(superseded());
        }
        let Some(standby) = &report.standby else {
            return Ok(Observed { age: DataAge::Current, is_settled: true });
        };
        if state.replays.len() >= MAX_SERVERS && !state.replays.contains_key(&started) {
            state.replays.clear();
        }
        let replay = state.replays.entry(started).or_insert_with(|| Replay::new(self.max_lag));
        Ok(replay.observe(standby, queried_at))
    }

    /// Counter of takeovers.
    pub(super) fn takeovers(&self) -> watch::Receiver<u64> {
        self.takeovers.subscribe()
    }

    /// Ignores poisoning: nothing panics while it holds this lock.
    fn state(&self) -> MutexGuard<'_, ServersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn superseded() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "another server has taken over")
}

impl Server {
    /// Parses the answer to [`IDENTIFY`].
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

impl ServerReport {
    /// Parses [`SERVER_COLUMNS`], starting at column `first`.
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
        let report = ServerReport { process: server.process, standby: None };
        servers.observe(&report, Instant::now()).is_ok()
    }

    #[test]
    fn promoted_server_supersedes_the_old_primary() {
        let servers = Servers::new(MAX_LAG);
        let (old, new) = (primary(1, 10, 1), primary(1, 20, 2));
        servers.register(old).unwrap();
        let made = std::time::Instant::now();
        assert!(takes(&servers, old) && servers.is_current(made));
        servers.register(new).unwrap();
        assert_eq!(*servers.takeovers().borrow(), 1);
        assert!(!servers.is_current(made) && servers.is_current(std::time::Instant::now()));
        assert!(takes(&servers, new) && !takes(&servers, old));
        servers.register(old).unwrap_err();
    }

    #[test]
    fn other_system_supersedes_whatever_its_timeline() {
        let servers = Servers::new(MAX_LAG);
        let (old, new) = (primary(1, 10, 7), primary(2, 5, 1));
        servers.register(old).unwrap();
        servers.register(new).unwrap();
        assert!(takes(&servers, new) && !takes(&servers, old));
        servers.register(old).unwrap();
        assert!(
            takes(&servers, old) && !takes(&servers, new),
            "the name points to the old system again"
        );
    }

    #[test]
    fn standbys_of_the_same_system_supersede_nothing() {
        let servers = Servers::new(MAX_LAG);
        servers.register(primary(1, 10, 3)).unwrap();
        for started in 20..40 {
            let process = Process { started, timeline: None };
            servers.register(Server { system: 1, process }).unwrap();
        }
        assert_eq!(*servers.takeovers().borrow(), 0);
        assert!(takes(&servers, primary(1, 10, 3)));
    }
}
