//! Real parts for tests, each private to its test and gone with it.

pub(crate) mod admin;
pub(crate) mod app;
pub(crate) mod backend;
pub(crate) mod caddy;
pub(crate) mod changes;
pub(crate) mod deaf;
pub(crate) mod envoy;
pub(crate) mod ext_authz;
pub(crate) mod fixture;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod keystead;
pub(crate) mod load;
pub(crate) mod nginx;
pub(crate) mod observer;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
mod process;
pub(crate) mod proxy;
pub(crate) mod refusal;
pub(crate) mod relay;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// Longer than anything here takes on a busy machine with few cores; a test that
/// reaches it has failed.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Asks until there is an answer, and panics when there is none in time.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Writes a file that its owner alone may read.
pub(crate) fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A port of 127.0.0.1 on which nobody listens. Another process may take it at
/// any time.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Runs something beside the test, until the test ends.
pub(crate) fn beside<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of its test")]
    tokio::spawn(task)
}
