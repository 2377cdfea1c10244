//! A network that breaks on command: a small TCP proxy in front of a server.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

use super::beside;

/// Effect of the network on existing and new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Carries everything.
    Forward,
    /// Carries everything, each piece so much later in each direction.
    Delay(Duration),
    /// A black hole: takes everything and carries nothing. A connection that
    /// has lost something in it is dead for ever, without a word.
    Swallow,
    /// Connections are reset, and new ones refused: nobody listens.
    Refuse,
    /// Connections are reset, new ones as soon as they are made.
    Reset,
}

/// A proxy, which ends with its test.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    /// Destination of new connections.
    target: watch::Sender<SocketAddr>,
    conduct: watch::Sender<Conduct>,
}

impl Proxy {
    /// A proxy that forwards to `target`.
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (conduct, following) = watch::channel(Conduct::Forward);
        let (target, leading) = watch::channel(target);
        beside(listen(listener, address, leading, following));
        Self { address, target, conduct }
    }

    /// Its own address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn set(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }

    /// New connections lead to another server from now on, as behind a name that is
    /// switched. Those that are there go on.
    pub(crate) fn switch_to(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }
}

async fn listen(
    mut listener: TcpListener,
    address: SocketAddr,
    target: watch::Receiver<SocketAddr>,
    mut conduct: watch::Receiver<Conduct>,
) {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                let target = *target.borrow();
                beside(carry(stream, target, conduct.clone()));
            }
            refusing = refuses(&mut conduct) => if refusing.is_err() {
                return;
            },
        }
        if *conduct.borrow() == Conduct::Refuse {
            drop(listener);
            if conduct.wait_for(|now| *now != Conduct::Refuse).await.is_err() {
                return;
            }
            // The port was ours a moment ago; another process may have it for
            // as long as it takes to connect to somewhere.
            listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse),
                }
                sleep(Duration::from_millis(1)).await;
            };
        }
    }
}

async fn refuses(conduct: &mut watch::Receiver<Conduct>) -> Result<(), watch::error::RecvError> {
    conduct.wait_for(|now| *now == Conduct::Refuse).await.map(drop)
}

/// Carries one connection until either side ends it, or the network does.
async fn carry(stream: TcpStream, target: SocketAddr, mut conduct: watch::Receiver<Conduct>) {
    let now = *conduct.borrow_and_update();
    match now {
        Conduct::Refuse | Conduct::Reset => return reset(stream),
        Conduct::Swallow => return swallow(stream, conduct).await,
        Conduct::Forward | Conduct::Delay(_) => {}
    }
    let Ok(upstream) = TcpStream::connect(target).await else {
        return reset(stream);
    };
    let [near, far] = [stream, upstream].map(|stream| {
        stream.set_nodelay(true).unwrap();
        // Dropped, a connection is reset.
        stream.set_zero_linger().unwrap();
        stream.into_split()
    });
    tokio::select! {
        () = pump(near.0, far.1, conduct.clone()) => {}
        () = pump(far.0, near.1, conduct.clone()) => {}
        () = breaks(&mut conduct) => {}
    }
}

/// Carries one direction until its end.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, conduct: watch::Receiver<Conduct>) {
    let mut piece = vec![0; 16 * 1024];
    let mut dead = false;
    while let Ok(length) = from.read(&mut piece).await {
        let now = *conduct.borrow();
        dead |= now == Conduct::Swallow;
        if dead {
            // Neither the end of a direction gets through.
            if length == 0 {
                std::future::pending::<()>().await;
            }
            continue;
        }
        if let Conduct::Delay(delay) = now {
            sleep(delay).await;
        }
        if length == 0 || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

async fn breaks(conduct: &mut watch::Receiver<Conduct>) {
    let broken = |now: &Conduct| matches!(now, Conduct::Refuse | Conduct::Reset);
    if conduct.wait_for(broken).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Keeps a connection open and silent for ever, unless the network resets it.
async fn swallow(stream: TcpStream, mut conduct: watch::Receiver<Conduct>) {
    let mut stream = stream;
    let mut piece = vec![0; 16 * 1024];
    let reading = async { while stream.read(&mut piece).await.is_ok_and(|length| length > 0) {} };
    tokio::select! {
        () = reading => {}
        () = breaks(&mut conduct) => {}
    }
    reset(stream);
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}
