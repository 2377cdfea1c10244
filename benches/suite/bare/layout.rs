//! Which threads a bare server has, and which of them serves a connection.

use std::{
    fmt, io,
    net::SocketAddr,
    num::NonZeroUsize,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use axum::Router;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
    sync::mpsc,
    task::JoinSet,
};
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use crate::Result;

/// How many connections wait to be accepted: more than any loader makes.
const BACKLOG: u32 = 4096;

/// The threads of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// tonic as its examples have it, on a runtime of the calling thread.
    TonicOnCurrent,
    /// tonic as its examples have it, on a multi-thread runtime with one worker.
    TonicOnWorker,
    /// One multi-thread runtime, whose workers take work from each other.
    Shared(NonZeroUsize),
    /// A runtime a thread, each with a listener of its own on the same port: the
    /// kernel chooses by a hash of the addresses (`SO_REUSEPORT`).
    Hashed(NonZeroUsize),
    /// A runtime a thread, and one listener: a connection goes to the runtime
    /// that has the fewest.
    Handed(NonZeroUsize),
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TonicOnCurrent => f.write_str("tonic-on-current"),
            Self::TonicOnWorker => f.write_str("tonic-on-worker"),
            Self::Shared(threads) => write!(f, "shared:{threads}"),
            Self::Hashed(threads) => write!(f, "hashed:{threads}"),
            Self::Handed(threads) => write!(f, "handed:{threads}"),
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let unknown = || format!("there is no layout `{text}`");
        let (name, threads) = text.split_once(':').unwrap_or((text, "1"));
        let threads = threads.parse().map_err(|_| unknown())?;
        match name {
            "tonic-on-current" => Ok(Self::TonicOnCurrent),
            "tonic-on-worker" => Ok(Self::TonicOnWorker),
            "shared" => Ok(Self::Shared(threads)),
            "hashed" => Ok(Self::Hashed(threads)),
            "handed" => Ok(Self::Handed(threads)),
            _ => Err(unknown()),
        }
    }
}

impl Layout {
    /// Serves until the process ends, and tells where as soon as it listens.
    pub(super) fn serve(
        self,
        address: SocketAddr,
        routes: &Routes,
        told: impl FnOnce(SocketAddr) -> io::Result<()>,
    ) -> Result<()> {
        let plain = routes.clone().prepare().into_axum_router();
        match self {
            Self::TonicOnCurrent => current()?.block_on(tonic(address, routes, told)),
            Self::TonicOnWorker => {
                workers(NonZeroUsize::MIN)?.block_on(tonic(address, routes, told))
            }
            Self::Shared(threads) => Ok(workers(threads)?.block_on(async {
                let listener = TcpListener::bind(address).await?;
                told(listener.local_addr()?)?;
                accept(&listener, plain).await
            })?),
            Self::Hashed(threads) => hashed(threads, address, &plain, told),
            Self::Handed(threads) => handed(threads, address, &plain, told),
        }
    }
}

fn current() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

fn workers(threads: NonZeroUsize) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(threads.get()).enable_all().build()
}

async fn tonic(
    address: SocketAddr,
    routes: &Routes,
    told: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    told(listener.local_addr()?)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_routes(routes.clone()).serve_with_incoming(incoming).await?)
}

fn hashed(
    threads: NonZeroUsize,
    mut address: SocketAddr,
    routes: &Router,
    told: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> Result<()> {
    let mut serving = Vec::new();
    for _ in 0..threads.get() {
        let (runtime, routes) = (current()?, routes.clone());
        let listener = runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        })?;
        address = listener.local_addr()?;
        serving.push(thread::spawn(move || runtime.block_on(accept(&listener, routes))));
    }
    told(address)?;
    joined(serving)
}

async fn accept(listener: &TcpListener, routes: Router) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(converse(stream, routes.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// A runtime to which connections are handed.
struct Hand {
    give: mpsc::Sender<std::net::TcpStream>,
    /// How many it has.
    has: Arc<AtomicUsize>,
}

fn handed(
    threads: NonZeroUsize,
    address: SocketAddr,
    routes: &Router,
    told: impl FnOnce(SocketAddr) -> io::Result<()>,
) -> Result<()> {
    let (mut hands, mut serving) = (Vec::new(), Vec::new());
    for _ in 0..threads.get() {
        let (give, take) = mpsc::channel(64);
        let has = Arc::<AtomicUsize>::default();
        hands.push(Hand { give, has: Arc::clone(&has) });
        let (runtime, routes) = (current()?, routes.clone());
        serving.push(thread::spawn(move || runtime.block_on(take_over(take, has, routes))));
    }
    current()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        told(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let fewest = hands.iter().min_by_key(|hand| hand.has.load(Ordering::Relaxed));
            let fewest = fewest.ok_or("there is no thread")?;
            fewest.has.fetch_add(1, Ordering::Relaxed);
            fewest.give.send(stream.into_std()?).await?;
        }
    })
}

async fn take_over(
    mut take: mpsc::Receiver<std::net::TcpStream>,
    has: Arc<AtomicUsize>,
    routes: Router,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    while let Some(stream) = take.recv().await {
        let (stream, routes, has) =
            (TcpStream::from_std(stream)?, routes.clone(), Arc::clone(&has));
        connections.spawn(async move {
            converse(stream, routes).await;
            has.fetch_sub(1, Ordering::Relaxed);
        });
        while connections.try_join_next().is_some() {}
    }
    Ok(())
}

/// As Keystead does it, without its bounds.
async fn converse(stream: TcpStream, routes: Router) {
    // Of a connection that breaks, the loader tells.
    let _ = stream.set_nodelay(true);
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await;
}

fn joined(serving: Vec<thread::JoinHandle<io::Result<()>>>) -> Result<()> {
    for thread in serving {
        thread.join().map_err(|_| "a thread of the server panicked")??;
    }
    Ok(())
}
