//! The way to PostgreSQL: a TCP proxy that makes every round trip longer, and counts
//! the queries that are under way.

mod traffic;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use traffic::Watched;
pub(crate) use traffic::{Counted, Traffic};

use crate::Result;

/// How much is carried at once.
const PIECE: usize = 64 * 1024;

/// How many pieces may be on their way: one or two, as nobody asks anew before there
/// is an answer.
const ON_THE_WAY: usize = 1024;

/// A proxy, which goes on until the suite ends.
#[derive(Debug)]
pub(crate) struct Network {
    address: SocketAddr,
    traffic: Arc<Traffic>,
}

impl Network {
    /// A way to `target` on which what is asked arrives so much later, and answers
    /// at once: a round trip takes so much longer.
    pub(crate) fn before(target: SocketAddr, longer: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let traffic = Arc::new(Traffic::default());
        let watched = Arc::clone(&traffic);
        thread::spawn(move || {
            for near in listener.incoming() {
                let watched = Watched::new(Arc::clone(&watched));
                // Whoever asked is told by the end of its connection.
                let _ =
                    near.map_err(Into::into).and_then(|near| carry(&near, target, longer, watched));
            }
        });
        Ok(Self { address, traffic })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }
}

/// Carries one connection until either side ends it.
fn carry(near: &TcpStream, target: SocketAddr, longer: Duration, watched: Watched) -> Result<()> {
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let watched = Arc::new(watched);
    let (sent, arriving) = sync_channel(ON_THE_WAY);
    let (asking, answered) = (near.try_clone()?, near.try_clone()?);
    let (asked, answering) = (far.try_clone()?, far);
    let also = Arc::clone(&watched);
    thread::spawn(move || {
        receive(asking, &sent, longer, &also);
    });
    thread::spawn(move || deliver(&arriving, asked));
    thread::spawn(move || pass_back(answering, answered, &watched));
    Ok(())
}

/// What the client asks, with when it arrives.
fn receive(
    mut from: TcpStream,
    to: &SyncSender<(Instant, Vec<u8>)>,
    longer: Duration,
    watched: &Watched,
) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let due = Instant::now() + longer;
        watched.asked(&piece[..length]);
        if to.send((due, piece[..length].to_vec())).is_err() {
            break;
        }
    }
    // As late as all else.
    let _ = to.send((Instant::now() + longer, Vec::new()));
}

fn deliver(arriving: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((due, piece)) = arriving.recv() {
        loop {
            let early = due.saturating_duration_since(Instant::now());
            if early.is_zero() {
                break;
            }
            // Nobody wakes it: a sleep, to some 50 µs.
            thread::park_timeout(early);
        }
        if to.write_all(&piece).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn pass_back(mut from: TcpStream, mut to: TcpStream, watched: &Watched) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        // Before the client can ask anew.
        watched.answered(&piece[..length]);
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    watched.ended();
    let _ = to.shutdown(Shutdown::Both);
}
