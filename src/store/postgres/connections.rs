//! The pool of connections.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
    RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use futures::FutureExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::{
    PostgresConfigError,
    dial::Dialer,
    error,
    hosts::EachHost,
    witness::{Server, Servers},
};
use crate::{
    store::{StoreError, StoreErrorKind},
    tasks::Tasks,
    time::spread,
};

/// Longest that taking an idle connection out of the pool may take. With
/// [`RecyclingMethod::Fast`] it does no I/O, so that this is never reached; it is
/// set because deadpool's default is to wait for ever.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How far the ages are spread at which connections are closed.
const AGE_JITTER: f64 = 0.1;

/// Multiplied by it, numbers that lie close together are spread evenly: 2^64 divided
/// by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The pool, and the places in it.
///
/// Connecting is not bound to the patience of a caller: a caller that finds no
/// idle connection waits for a task that makes one, and when the caller has gone
/// by then, the connection is there for the next. Otherwise a server that takes
/// longer to connect to than a lookup may last could never be used.
///
/// Idle connections are taken as they are ([`RecyclingMethod::Fast`]), without
/// the round trip of asking the server first. That is safe because a connection
/// comes back only after the server has answered all that was asked on it (see
/// [`Connection`]), and because one that has been closed meanwhile is recognised
/// as such. One that has died without a word costs one failed call, and then is
/// gone.
///
/// A lookup that is given up keeps its place until the server has ended it too, so
/// that the server works on no more of them at once than there are places, however late
/// its answers are. What it does on connections that have broken, or after it was silent
/// for so long that it is taken to have vanished, nobody can know.
pub(super) struct Connections {
    pool: Pool,
    /// One permit for each connection that is lent, being made or left in the
    /// middle of a call: what bounds the tasks that make connections. The pool itself is never waited for.
    places: Arc<Semaphore>,
    /// Longest making of a connection, with its first statement.
    create: Duration,
    /// Longest wait for a place.
    wait: Duration,
    /// Longest wait for the end of a call that was given up.
    silence: Duration,
    tasks: Tasks,
    remedy: Arc<str>,
}

impl Connections {
    /// A pool without a connection in it. Does no network I/O.
    pub(super) fn new(
        dialer: Dialer,
        max_connections: NonZeroUsize,
        servers: &Arc<Servers>,
        max_age: Duration,
        remedy: Arc<str>,
        tasks: Tasks,
    ) -> Result<Self, PostgresConfigError> {
        let Dialer { driver, connector, host_limit, limit: create, silence, opening } = dialer;
        // A place is held for as long as a connection is being made, or a call
        // lasts, which is less if the server answers.
        let wait = create;

        let recycling_method = RecyclingMethod::Fast;
        let connect = EachHost::new(connector, host_limit);
        let manager = Manager::from_connect(driver, connect, ManagerConfig { recycling_method });
        let mut pool = Pool::builder(manager);
        if let Some(opening) = opening {
            pool = pool.post_create(begins_with(opening, Arc::clone(servers)));
        }
        pool = pool.pre_recycle(is_of_use(Arc::clone(servers), max_age));
        let pool = pool
            .max_size(max_connections.get())
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(wait),
                create: Some(create),
                recycle: Some(RECYCLE_TIMEOUT),
            })
            .build()
            .map_err(|reason| PostgresConfigError::Setup(reason.to_string()))?;
        let places = Arc::new(Semaphore::new(max_connections.get()));
        Ok(Self { pool, places, create, wait, silence, tasks, remedy })
    }

    /// An idle connection, or else a new one.
    ///
    /// May be cancelled: a connection that is being made goes on to the pool.
    pub(super) async fn get(&self) -> Result<Connection, StoreError> {
        let place = timeout(self.wait, Arc::clone(&self.places).acquire_owned())
            .await
            .map_err(|_| error::no_place())?
            .map_err(|_| stopping())?;
        let Self { pool, create, silence, tasks, .. } = self;
        let (pool, create, silence, tasks) = (pool.clone(), *create, *silence, tasks.clone());
        let mut getting = Box::pin(async move {
            // The pool's own time-out does not bound the first statement.
            let got = timeout(create, pool.get()).await;
            let object = got.unwrap_or(Err(PoolError::Timeout(TimeoutType::Create)))?;
            Ok(Connection { lent: Some((object, place)), answer_pending: false, silence, tasks })
        });
        // An idle connection is there at once; only making one needs a task.
        let got = match (&mut getting).now_or_never() {
            Some(got) => got,
            None => self.in_a_task(getting).await?,
        };
        got.map_err(|reason| error::from_pool(reason, &self.remedy))
    }

    async fn in_a_task(
        &self,
        getting: impl Future<Output = Result<Connection, PoolError>> + Send + 'static,
    ) -> Result<Result<Connection, PoolError>, StoreError> {
        let (hand_over, taken) = oneshot::channel();
        self.tasks.spawn_until_stopped("connect", async move {
            // A connection that nobody takes goes back to the pool.
            if let Err(Err(error)) = hand_over.send(getting.await) {
                tracing::debug!(%error, "could not connect, and nobody waits any more");
            }
        });
        taken.await.map_err(|_| stopping())
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

/// Runs the first statements on every new connection, and looks at who answers.
fn begins_with(opening: Arc<str>, servers: Arc<Servers>) -> Hook {
    Hook::async_fn(move |client, _| {
        let (opening, servers) = (Arc::clone(&opening), Arc::clone(&servers));
        async move {
            let said = client.simple_query(&opening).await.map_err(HookError::Backend)?;
            let met = Server::read(&said).and_then(|server| servers.meet(server));
            met.map_err(|refused| HookError::message(refused.detail().to_owned()))
        }
        .boxed()
    })
}

/// Closes a connection that is too old, or that leads to a server that another one
/// has taken over from, instead of lending it once more.
fn is_of_use(servers: Arc<Servers>, max_age: Duration) -> Hook {
    Hook::sync_fn(move |client, metrics| {
        // Another age for each connection, and the same each time.
        let address = Arc::as_ptr(&client.statement_cache).addr() as u64;
        let drawn = (address.wrapping_mul(GOLDEN) >> u32::BITS) as u32;
        let max_age = max_age.mul_f32(spread(drawn, AGE_JITTER));
        if metrics.age() >= max_age || !servers.is_current(metrics.created) {
            return Err(HookError::message("it is not to be used any more"));
        }
        Ok(())
    })
}

fn stopping() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "the service is stopping")
}

/// A connection out of the pool.
///
/// When dropped it goes back there, unless an answer is still to come on it: a
/// call that was dropped or timed out in the middle, or that failed, leaves the
/// connection in a state that nobody knows, and takes it out of the pool. It is
/// closed, and its place given back, when the server has ended that call.
pub(super) struct Connection {
    /// `None` once it is given back.
    lent: Option<(Object, OwnedSemaphorePermit)>,
    answer_pending: bool,
    silence: Duration,
    tasks: Tasks,
}

impl Connection {
    /// The client, to ask something. Unless [`Connection::settled`] is called
    /// afterwards, the connection ends with this value.
    pub(super) fn client(&mut self) -> &mut ClientWrapper {
        self.answer_pending = true;
        &mut self.lent.as_mut().expect("only `drop` takes it").0
    }

    /// All that was asked has been answered.
    pub(super) fn settled(&mut self) {
        self.answer_pending = false;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.answer_pending
            && let Some((object, place)) = self.lent.take()
        {
            let (client, silence) = (Object::take(object), self.silence);
            self.tasks.spawn_until_stopped("leave", async move {
                // Answered after all that was asked before.
                let _ = timeout(silence, client.batch_execute("")).await;
                drop(client);
                drop(place);
            });
        }
    }
}
