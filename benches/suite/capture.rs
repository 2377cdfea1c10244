//! Captures what a real Envoy asks, for the benchmarks to send.
//!
//! ```text
//! cargo bench --bench suite -- capture
//! ```
//!
//! Needs what `scripts/test install` installs; writes
//! `benches/data/envoy-1.40.0-check.bin`.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener as Bound, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use http::{HeaderValue, Response};
use tokio::{net::TcpListener, runtime::Builder, time::timeout};

use crate::{Result, process::Place, typical::PLACEHOLDER};

const ENVOY: &str = "target/envoy/1.40.0/envoy/_bin/envoy";

/// The configuration, in which two ports are to be put.
const CONFIGURATION: &str = include_str!("../data/envoy.yaml");

/// What a browser sends with a request that a page makes, and a key.
const REQUEST: &str = include_str!("../data/request.http");

/// How long Envoy may take to start and to ask.
const LIMIT: Duration = Duration::from_secs(30);

/// Captures it.
pub(crate) fn capture() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let envoy = root.join(ENVOY);
    if !envoy.exists() {
        return Err(format!("{ENVOY} is missing; make it with `scripts/test install`").into());
    }
    let folder = tempfile::tempdir()?;
    let asked = Bound::bind((Ipv4Addr::LOCALHOST, 0))?;
    // Another process may take it until Envoy does, which then fails.
    let listens = Bound::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let configuration = CONFIGURATION
        .replace("LISTENER_PORT", &listens.port().to_string())
        .replace("KEYSTEAD_PORT", &asked.local_addr()?.port().to_string());
    let path = folder.path().join("envoy.yaml");
    fs::write(&path, configuration)?;
    let mut command = Place::Anywhere.command(envoy)?;
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"]);
    let mut running = command.arg(path).spawn()?;
    let message = send(listens).and_then(|_client| receive(asked));
    running.kill()?;
    running.wait()?;
    let file = root.join("benches/data/envoy-1.40.0-check.bin");
    fs::write(&file, message?)?;
    println!("{} is written", file.display());
    Ok(())
}

/// Sends the request as soon as Envoy listens, and keeps the connection.
fn send(envoy: SocketAddr) -> Result<TcpStream> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect(envoy) {
            Ok(mut stream) => {
                let request = REQUEST.trim_end().replace("KEY", PLACEHOLDER).replace('\n', "\r\n");
                write!(stream, "{request}\r\n\r\n")?;
                return Ok(stream);
            }
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// The first message that comes, without the five bytes before it.
fn receive(asked: Bound) -> Result<Vec<u8>> {
    asked.set_nonblocking(true)?;
    let asking = async {
        let (stream, _) = TcpListener::from_std(asked)?.accept().await?;
        let mut connection = h2::server::handshake(stream).await?;
        let (request, mut respond) =
            connection.accept().await.ok_or("Envoy closed the connection")??;
        let mut body = request.into_body();
        let reading = async {
            let mut message = BytesMut::new();
            while let Some(data) = body.data().await {
                message.extend_from_slice(&data?);
            }
            Ok::<_, h2::Error>(message)
        };
        let message = tokio::select! {
            message = reading => message?,
            _ = connection.accept() => return Err("Envoy asked twice, or ended".into()),
        };
        let mut response = Response::new(());
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("14"));
        respond.send_response(response, true)?;
        let message = message.get(5..).ok_or("Envoy sent no message")?;
        Ok(message.to_vec())
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { timeout(LIMIT, asking).await? })
}
