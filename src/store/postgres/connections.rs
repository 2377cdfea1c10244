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

/// Time-out of recycling an idle connection. Never reached, as [`RecyclingMethod::Fast`] does
/// no I/O; set because deadpool waits without limit by default.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Jitter of the connections' maximum age.
const AGE_JITTER: f64 = 0.1;

/// Multiplier that spreads close numbers evenly: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The pool and its bulkhead.
///
/// Connecting is independent of the caller's deadline: a caller without an idle connection
/// waits for a task that makes one, and if the caller is gone by then, the connection serves
/// the next. Otherwise a server that takes longer to connect to than a lookup may last could
/// never be used.
///
/// Idle connections are lent without a round trip ([`RecyclingMethod::Fast`]). That is safe
/// because a connection is returned only after every request on it has been answered (see
/// [`Connection`]), and because a closed one is recognised. A connection that died silently
/// costs one failed call.
///
/// A lookup that was given up keeps its permit until the server has ended it too, so the server
/// never executes more lookups than there are permits, however late its answers. This excludes
/// connections that broke, and servers silent for so long that they count as vanished.
pub(super) struct Connections {
    pool: Pool,
    /// One permit per connection that is lent, being made or abandoned during a call. Bounds
    /// the tasks that connect; callers never wait for the pool itself.
    permits: Arc<Semaphore>,
    /// Time-out of making a connection, with its first statement.
    create: Duration,
    /// Time-out of waiting for a permit.
    wait: Duration,
    /// Time-out of waiting for the end of a call that was given up.
    silence: Duration,
    tasks: Tasks,
    remedy: Arc<str>,
}

impl Connections {
    /// Creates an empty pool. Does no network I/O.
    pub(super) fn new(
        dialer: Dialer,
        max_connections: NonZeroUsize,
        servers: &Arc<Servers>,
        max_age: Duration,
        remedy: Arc<str>,
        tasks: Tasks,
    ) -> Result<Self, PostgresConfigError> {
        let Dialer { driver, connector, host_limit, limit: create, silence, opening } = dialer;
        // A permit is held while connecting or during a call, which is shorter if the server
        // answers.
        let wait = create;

        let recycling_method = RecyclingMethod::Fast;
        let connect = EachHost::new(connector, host_limit);
        let manager = Manager::from_connect(driver, connect, ManagerConfig { recycling_method });
        let mut pool = Pool::builder(manager);
        if let Some(opening) = opening {
            pool = pool.post_create(opening_hook(opening, Arc::clone(servers)));
        }
        pool = pool.pre_recycle(recycle_hook(Arc::clone(servers), max_age));
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
        let permits = Arc::new(Semaphore::new(max_connections.get()));
        Ok(Self { pool, permits, create, wait, silence, tasks, remedy })
    }

    /// Returns an idle connection or makes one.
    ///
    /// Cancel-safe: a connection in progress goes to the pool.
    pub(super) async fn get(&self) -> Result<Connection, StoreError> {
        let permit = timeout(self.wait, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| error::no_permit())?
            .map_err(|_| stopping())?;
        let Self { pool, create, silence, tasks, .. } = self;
        let (pool, create, silence, tasks) = (pool.clone(), *create, *silence, tasks.clone());
        let mut getting = Box::pin(async move {
            // The pool's own time-out does not cover the first statement.
            let got = timeout(create, pool.get()).await;
            let object = got.unwrap_or(Err(PoolError::Timeout(TimeoutType::Create)))?;
            Ok(Connection { lent: Some((object, permit)), answer_pending: false, silence, tasks })
        });
        // An idle connection is ready at once; only connecting needs a task.
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
            // A connection without a taker returns to the pool.
            if let Err(Err(error)) = hand_over.send(getting.await) {
                tracing::debug!(%error, "could not connect; the caller has gone");
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

/// Runs the first statements on a new connection and registers its server.
fn opening_hook(opening: Arc<str>, servers: Arc<Servers>) -> Hook {
    Hook::async_fn(move |client, _| {
        let (opening, servers) = (Arc::clone(&opening), Arc::clone(&servers));
        async move {
            let said = client.simple_query(&opening).await.map_err(HookError::Backend)?;
            let registered = Server::read(&said).and_then(|server| servers.register(server));
            registered.map_err(|refused| HookError::message(refused.detail().to_owned()))
        }
        .boxed()
    })
}

/// Closes a connection that is too old, or whose server has been superseded, instead of lending
/// it.
fn recycle_hook(servers: Arc<Servers>, max_age: Duration) -> Hook {
    Hook::sync_fn(move |client, metrics| {
        // A different maximum age for each connection, and always the same.
        let address = Arc::as_ptr(&client.statement_cache).addr() as u64;
        let drawn = (address.wrapping_mul(GOLDEN) >> u32::BITS) as u32;
        let max_age = max_age.mul_f32(spread(drawn, AGE_JITTER));
        if metrics.age() >= max_age || !servers.is_current(metrics.created) {
            return Err(HookError::message(
                "the connection is too old or its server was superseded",
            ));
        }
        Ok(())
    })
}

fn stopping() -> StoreError {
    StoreError::new(StoreErrorKind::Unreachable, "the service is stopping")
}

/// A connection from the pool.
///
/// Dropping it returns it, unless an answer is pending: a call that was dropped, timed out or
/// failed leaves the connection in an unknown state. Then it leaves the pool, and is closed and
/// its permit released once the server has ended the call.
pub(super) struct Connection {
    /// `None` once returned.
    lent: Option<(Object, OwnedSemaphorePermit)>,
    answer_pending: bool,
    silence: Duration,
    tasks: Tasks,
}

impl Connection {
    /// The client for one request. The connection is closed on drop unless
    /// [`Connection::settled`] is called afterwards.
    pub(super) fn client(&mut self) -> &mut ClientWrapper {
        self.answer_pending = true;
        &mut self.lent.as_mut().expect("the connection is lent until `drop`").0
    }

    /// Marks every request as answered.
    pub(super) fn settled(&mut self) {
        self.answer_pending = false;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.answer_pending
            && let Some((object, permit)) = self.lent.take()
        {
            let (client, silence) = (Object::take(object), self.silence);
            self.tasks.spawn_until_stopped("leave", async move {
                // Answered after all earlier requests.
                let _ = timeout(silence, client.batch_execute("")).await;
                drop(client);
                drop(permit);
            });
        }
    }
}
