//! A relay before a server that counts round trips.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Passes bytes on between clients and a server on 127.0.0.1.
pub(crate) struct Relay {
    port: u16,
    turns: Arc<AtomicU32>,
}

impl Relay {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&turns);
        #[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::spawn(relay(client, server, Arc::clone(&counted)));
            }
        });
        Self { port, turns }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How often a client has spoken, after the server had or for the first
    /// time: one for each round trip.
    pub(crate) fn turns(&self) -> u32 {
        self.turns.load(Ordering::SeqCst)
    }
}

async fn relay(client: TcpStream, server: TcpStream, turns: Arc<AtomicU32>) {
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut server_spoke = true;
    let (mut asked, mut answered) = ([0; 16_384], [0; 16_384]);
    loop {
        let open = tokio::select! {
            read = from_client.read(&mut asked) => {
                turns.fetch_add(u32::from(server_spoke), Ordering::SeqCst);
                server_spoke = false;
                pass(&mut to_server, &asked, read).await
            }
            read = from_server.read(&mut answered) => {
                server_spoke = true;
                pass(&mut to_client, &answered, read).await
            }
        };
        if !open {
            return;
        }
    }
}

/// False when either end has closed.
async fn pass(
    to: &mut (impl AsyncWrite + Unpin),
    buffer: &[u8],
    read: std::io::Result<usize>,
) -> bool {
    match read {
        Ok(0) | Err(_) => false,
        Ok(length) => to.write_all(&buffer[..length]).await.is_ok(),
    }
}
