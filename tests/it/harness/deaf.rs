//! A relay before PostgreSQL that loses what the server announces, and nothing
//! else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::beside;

/// The type of a `NotificationResponse`.
const NOTIFICATION: u8 = b'A';

/// A relay, which ends with its test. Connections through it have no TLS.
#[derive(Debug)]
pub(crate) struct Deaf {
    port: u16,
    hears: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
}

impl Deaf {
    /// A relay that loses announcements from the beginning on.
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hears, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (passing, counted) = (Arc::clone(&hears), Arc::clone(&lost));
        beside(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let words = words(from_server, to_client, Arc::clone(&passing), counted.clone());
                beside(words);
                beside(questions(from_client, to_server));
            }
        });
        Self { port, hears, lost }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on announcements get through.
    pub(crate) fn hear(&self) {
        self.hears.store(true, Ordering::SeqCst);
    }

    /// Number of lost ones.
    pub(crate) fn lost(&self) -> usize {
        self.lost.load(Ordering::SeqCst)
    }
}

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// Every message of the server is a type, a length that counts itself, and so
/// much more.
async fn words(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    hears: Arc<AtomicBool>,
    lost: Arc<AtomicUsize>,
) -> io::Result<()> {
    loop {
        let of_type = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut message = vec![of_type];
        message.extend(length.to_be_bytes());
        message.resize(usize::try_from(length).unwrap() + 1, 0);
        from.read_exact(&mut message[5..]).await?;
        if of_type == NOTIFICATION && !hears.load(Ordering::SeqCst) {
            lost.fetch_add(1, Ordering::SeqCst);
        } else {
            to.write_all(&message).await?;
        }
    }
}
