//! A real Envoy, which runs the very file of `examples/envoy/`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{
    eventually,
    http::{get, send},
};

/// The versions that every promise is held with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Knows `error_response` of an answer.
    V1_40,
    /// Does not.
    V1_36,
}

/// A configuration, which was that of the example.
#[derive(Debug, Clone)]
pub(crate) struct EnvoyConfig(String);

/// An Envoy that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Envoy {
    _child: Child,
    folder: TempDir,
    /// Address for its clients.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

/// All its counters and gauges at one time.
#[derive(Debug, Clone)]
pub(crate) struct Stats(BTreeMap<String, u64>);

impl Version {
    pub(crate) const BOTH: [Self; 2] = [Self::V1_40, Self::V1_36];

    fn binary(self) -> PathBuf {
        let version = match self {
            Self::V1_40 => "1.40.0",
            Self::V1_36 => "1.36.4",
        };
        let below = format!("target/envoy/{version}/envoy/_bin/envoy");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&below);
        assert!(path.exists(), "{below} is missing; make it with `scripts/test install`");
        path
    }

    /// Envoy with its arguments. It is killed when its handle is dropped, and by
    /// the kernel when the thread of the test ends without that.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL").arg(self.binary()).kill_on_drop(true);
        // One worker; nothing is shared with another Envoy of this machine.
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        command.stdin(Stdio::null());
        command
    }
}

impl EnvoyConfig {
    /// The example with ports that are free, one or two replicas of Keystead, and
    /// the service behind it.
    pub(crate) fn new(keystead: &[SocketAddr], service: SocketAddr) -> Self {
        let config = Self(fs::read_to_string(example()).unwrap())
            .with("127.0.0.1, port_value: 9901", "127.0.0.1, port_value: 0")
            .with("0.0.0.0, port_value: 8080", "127.0.0.1, port_value: 0")
            .with_port(8000, service)
            .with_port(50051, keystead[0]);
        match keystead.get(1) {
            Some(second) => config.with_port(50061, *second),
            None => config.with(&endpoint(50061), ""),
        }
    }

    /// Puts a gRPC service behind it.
    pub(crate) fn with_grpc(self, service: SocketAddr) -> Self {
        self.with_port(8001, service)
    }

    /// With a patience that a busy machine does not use up.
    pub(crate) fn patient(self) -> Self {
        self.with("timeout: 0.4s", "timeout: 30s").with("max_interval: 0.18s", "max_interval: 20s")
    }

    /// Replaces what must be there, once.
    pub(crate) fn with(self, from: &str, to: &str) -> Self {
        assert_eq!(self.0.matches(from).count(), 1, "`{from}` in the example");
        Self(self.0.replace(from, to))
    }

    fn with_port(self, of_the_example: u16, address: SocketAddr) -> Self {
        self.with(&endpoint(of_the_example), &endpoint(address.port()))
    }
}

/// The file as it is.
pub(crate) fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/envoy/envoy.yaml")
}

/// A server on this machine as the example writes it.
fn endpoint(port: u16) -> String {
    format!(
        "- endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}"
    )
}

impl Envoy {
    /// Starts it, and returns when it listens: when every replica has been asked
    /// for its health once.
    pub(crate) async fn start(version: Version, config: &EnvoyConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("envoy.yaml"), &config.0).unwrap();
        let mut command = version.command();
        command.arg("-c").arg(path("envoy.yaml"));
        command.arg("--admin-address-path").arg(path("admin"));
        command.stdout(File::create(path("stdout")).unwrap());
        command.stderr(File::create(path("stderr")).unwrap());
        let mut child = command.spawn().expect("setpriv of util-linux runs servers in tests");
        let [admin, address] = eventually("Envoy listens", async || {
            let ended = child.try_wait().unwrap();
            let log = || fs::read_to_string(path("stderr")).unwrap();
            assert!(ended.is_none(), "it ended ({ended:?}): {}", log());
            let admin = fs::read_to_string(path("admin")).ok()?.parse().ok()?;
            let ready = send(admin, get("/ready", &[])).await;
            Some([admin, listener(admin).await?]).filter(|_| ready.status == 200)
        })
        .await;
        Self { _child: child, folder, address, admin }
    }

    pub(crate) async fn stats(&self) -> Stats {
        let answer = send(self.admin, get("/stats", &[])).await;
        let series = answer.body.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Stats(series.collect())
    }

    /// Waits until Envoy sees this number of healthy Keystead replicas.
    pub(crate) async fn until_healthy(&self, count: u64) {
        eventually(&format!("{count} replicas are healthy"), async || {
            let healthy = self.stats().await.get("cluster.keystead.membership_healthy");
            (healthy == count).then_some(())
        })
        .await;
    }

    /// The lines of the access log, once it has this number. They are written
    /// some time after the answer.
    pub(crate) async fn access_log(&self, count: usize) -> Vec<Value> {
        eventually("the access log is written", async || {
            let text = fs::read_to_string(self.folder.path().join("stdout")).unwrap();
            let lines: Vec<_> = text.lines().map_while(|l| serde_json::from_str(l).ok()).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }
}

impl Stats {
    /// 0 for what has never been counted.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// A counter of the filter that asks Keystead, such as `denied`.
    pub(crate) fn ext_authz(&self, counter: &str) -> u64 {
        self.get(&format!("http.edge.ext_authz.{counter}"))
    }
}

/// Bound address of the one listener.
async fn listener(admin: SocketAddr) -> Option<SocketAddr> {
    let listeners = send(admin, get("/listeners?format=json", &[])).await.json();
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = address["port_value"].as_u64().filter(|port| *port != 0)?;
    Some(([127, 0, 0, 1], u16::try_from(port).unwrap()).into())
}

/// Makes a test of each case with each version of Envoy.
macro_rules! on_both_envoys {
    ($($case:ident,)*) => {
        mod v1_40 {
            use crate::harness::envoy::Version;
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(Version::V1_40).await;
                }
            )*
        }
        mod v1_36 {
            use crate::harness::envoy::Version;
            $(
                #[tokio::test]
                async fn $case() {
                    super::$case(Version::V1_36).await;
                }
            )*
        }
    };
}
pub(crate) use on_both_envoys;
