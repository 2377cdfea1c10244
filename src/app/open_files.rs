//! Derives the number of connections from the limit of open files: the store, the snapshot
//! and the probes must find a descriptor however many callers connect.

use std::num::NonZeroUsize;

use super::{
    StartError,
    control::STORE_CONNECTIONS,
    listeners::{ADMIN_CONNECTIONS, CONTROL_CONNECTIONS},
};
use crate::config::Config;

/// Descriptors of the process itself: the standard streams, signals, the snapshot with its
/// journal, lock and drafts, SQLite's shared memory, and files that are open briefly. At
/// most half of them are in use.
const PROCESS: usize = 32;

/// Descriptors of a runtime: tokio uses four for events, timer and signals.
const RUNTIME: usize = 4;

/// Runtimes besides those of `grpc.workers`: one for the store and background work, one
/// for the admin and the control listener.
const RUNTIMES: usize = 2;

/// Descriptors of a store connection: SQLite opens its file and its log; PostgreSQL a
/// socket, and a second one while it resolves the server's name.
const STORE_CONNECTION: usize = 2;

/// Store connections besides those of calls: that of the feed, and one that writes
/// (SQLite) or verifies the server (PostgreSQL).
const STORE_CONNECTIONS_BEHIND: usize = 2;

/// Descriptors of a listener: its socket, and a connection that is accepted and refused.
const LISTENER: usize = 2;

/// The minimum number of descriptors for callers.
const FEWEST: usize = 32;

/// The admin listener gets at least one in this many of the descriptors for callers, if it
/// needs them.
const ADMIN_SHARE: usize = 8;

/// The maximum number of connections of each listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Of the data listener, and of the forward-auth listener.
    pub(super) data: NonZeroUsize,
    pub(super) admin: NonZeroUsize,
}

/// The maximum numbers of connections under a limit of open files; `None` is no limit.
/// Logs a warning if they are lower than configured, and fails if they are too low.
pub(super) fn admitted(config: &Config, limit: Option<u64>) -> Result<Admitted, StartError> {
    let configured = config.grpc.max_connections;
    let Some(limit) = limit else {
        return Ok(Admitted { data: configured, admin: ADMIN_CONNECTIONS });
    };
    let admitted = within(config, usize::try_from(limit).unwrap_or(usize::MAX));
    let admitted = admitted.map_err(|needed| StartError::OpenFiles { limit, needed })?;
    let Admitted { data, admin } = admitted;
    if data < configured || admin < ADMIN_CONNECTIONS {
        tracing::warn!(
            open_files = limit,
            configured,
            admitted = data,
            admin_configured = ADMIN_CONNECTIONS,
            admin_admitted = admin,
            "the limit of open files is too low for `grpc.max_connections` and the connections of \
             the admin listener, so fewer are admitted; raise the hard limit (`ulimit -Hn`, \
             `LimitNOFILE=` of systemd, `--ulimit nofile=` of Docker)"
        );
    }
    Ok(admitted)
}

/// Fails with the lowest sufficient limit.
fn within(config: &Config, limit: usize) -> Result<Admitted, usize> {
    let needed = reserved(config) + FEWEST;
    let left = limit.checked_sub(reserved(config)).filter(|left| *left >= FEWEST).ok_or(needed)?;
    let listeners = 1 + usize::from(config.listen.forward_auth.is_some());
    let for_data = (left - ADMIN_CONNECTIONS.get().min(left / ADMIN_SHARE)) / listeners;
    let for_data = NonZeroUsize::new(for_data).ok_or(needed)?;
    let data = config.grpc.max_connections.min(for_data);
    let for_admin = NonZeroUsize::new(left - listeners * data.get()).ok_or(needed)?;
    Ok(Admitted { data, admin: ADMIN_CONNECTIONS.min(for_admin) })
}

/// Descriptors that callers cannot use.
fn reserved(config: &Config) -> usize {
    let listen = &config.listen;
    let listeners = 2 + [listen.control, listen.forward_auth].iter().flatten().count();
    let (to_store, of_control) = match listen.control {
        Some(_) => (STORE_CONNECTIONS.get() + STORE_CONNECTIONS_BEHIND, CONTROL_CONNECTIONS.get()),
        None => (0, 0),
    };
    let to_store = to_store + config.store.guard.max_in_flight.get() + STORE_CONNECTIONS_BEHIND;
    PROCESS
        + RUNTIME * (config.grpc.workers().get() + RUNTIMES)
        + STORE_CONNECTION * to_store
        + LISTENER * listeners
        + of_control
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(connections: usize, forward_auth: bool, control: bool) -> Config {
        let mut config = Config::default();
        let somewhere = config.listen.admin;
        config.grpc.max_connections = NonZeroUsize::new(connections).unwrap();
        config.listen.forward_auth = forward_auth.then_some(somewhere);
        config.listen.control = control.then_some(somewhere);
        config
    }

    proptest! {
        #[test]
        fn admitted_connections_fit_the_limit_and_use_all_of_it(
            connections in 1_usize..20_000,
            forward_auth: bool,
            control: bool,
            limit in 0_usize..40_000,
        ) {
            let config = config(connections, forward_auth, control);
            let listeners = if forward_auth { 2 } else { 1 };
            let configured = connections * listeners + ADMIN_CONNECTIONS.get();
            match within(&config, limit) {
                Ok(Admitted { data, admin }) => {
                    let admitted = data.get() * listeners + admin.get();
                    let room = limit - reserved(&config);
                    prop_assert!(data.get() <= connections && admin <= ADMIN_CONNECTIONS);
                    prop_assert!(admitted <= room);
                    // The remainder of dividing the room among the listeners.
                    prop_assert!(admitted == configured || admitted + listeners > room);
                    let admin_share = ADMIN_CONNECTIONS.get().min(room / ADMIN_SHARE);
                    prop_assert!(admin.get() >= admin_share);
                }
                Err(needed) => {
                    prop_assert!(limit < needed);
                    prop_assert!(within(&config, needed).is_ok());
                }
            }
        }
    }

    #[test]
    fn configured_connections_are_admitted_without_a_limit_or_far_below_it() {
        let config = config(10_000, true, true);
        for limit in [None, Some(u64::MAX), Some(524_288)] {
            let admitted = admitted(&config, limit).unwrap();
            assert_eq!(admitted.data.get(), 10_000);
            assert_eq!(admitted.admin, ADMIN_CONNECTIONS);
        }
    }
}
