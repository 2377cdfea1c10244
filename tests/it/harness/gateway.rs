//! A real proxy in front of a service, with the very configuration that users
//! copy from `examples/`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use axum::body::Body;
use http::Request;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{
    eventually, free_port,
    http::{Answer, get, send},
    postgres::find_binary,
    process::Server,
};

/// Where the examples expect Keystead and the service.
const KEYSTEAD: &str = "127.0.0.1:9465";
const SERVICE: &str = "127.0.0.1:3000";

/// A running proxy, which ends with its test.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    _server: Server,
    folder: TempDir,
}

/// Start command of a proxy.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

/// How a proxy is run: writes what it needs into a folder, and says how to
/// start it there with the example, rendered for a port.
pub(crate) type Prepare = fn(folder: &Path, example: &str, port: u16) -> Launch;

impl Gateway {
    /// Starts one with the example of that path, in front of `service`, asking
    /// `keystead`, and with one text in the example replaced by another. Returns
    /// when it accepts connections.
    pub(crate) async fn start(
        example: &str,
        prepare: Prepare,
        (from, to): (&str, &str),
        keystead: SocketAddr,
        service: SocketAddr,
    ) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
        let example = fs::read_to_string(path).unwrap();
        let example = if from.is_empty() { example } else { replaced(&example, from, to) };
        let example = replaced(&example, KEYSTEAD, &keystead.to_string());
        let example = replaced(&example, SERVICE, &service.to_string());
        loop {
            if let Some(started) = Self::try_start(&example, prepare, free_port()).await {
                return started;
            }
        }
    }

    /// `None` when the port is taken.
    async fn try_start(example: &str, prepare: Prepare, port: u16) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let Launch { program, arguments } = prepare(folder.path(), example, port);
        let log = folder.path().join("log");
        let mut server = Server::spawn_as_ourselves(&program, &arguments, &log);
        let accepts = eventually("the proxy accepts connections", async || {
            if server.has_ended() {
                let log = fs::read_to_string(&log).unwrap();
                assert!(log.to_lowercase().contains("address already in use"), "it ended: {log}");
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", port)).await.ok().map(|_| true)
        });
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        accepts.await.then_some(Self { address, _server: server, folder })
    }

    /// Content of a file in its folder.
    pub(crate) fn written(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(get(path, headers)).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(self.address, request).await
    }
}

/// A part of an example that is not there would be a test of something else.
pub(crate) fn replaced(example: &str, from: &str, to: &str) -> String {
    assert!(example.contains(from), "the example does not name {from}");
    example.replace(from, to)
}

/// A program of a Debian package, installed or only unpacked.
pub(crate) fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/debian");
    let directories = ["usr/sbin", "usr/bin"].map(|below| unpacked.join(below));
    let directories: Vec<_> = directories.into_iter().chain(["/usr/sbin".into()]).collect();
    find_binary(name, &directories, "get it with `scripts/test install`")
}
