//! Clients that mean no good: none stops the others, memory stays within a bound, and
//! each is ended or refused, and counted.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use keystead::{config::Config, key::Action, store::StoreUrl};
use prost::Message;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tonic::transport::Channel;

use crate::harness::{
    admin::Admin,
    app::{channel_to, check_over, presenting},
    beside, eventually,
    keys::{Key, Keys},
    keystead::{Keystead, Server},
    wire::CHECK,
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const ENVOY: &str = "/envoy.service.auth.v3.Authorization/Check";

const MB: u64 = 1024 * 1024;

/// A service, a cached key, and a client that checks it all the time.
struct Site {
    server: Server,
    keys: Keys,
    key: Key,
    channel: Channel,
    _keystead: Keystead,
}

impl Site {
    async fn with(more: &str) -> Self {
        let keystead = Keystead::new().configured_by("keystead.toml", more);
        let mut config = Config::default();
        config.store.url = StoreUrl::Sqlite { path: keystead.path("keystead.db") };
        let keys = Keys::open(&config).await;
        let key = keys.create_many(1).await.remove(0);
        let server = keystead.serve(&[]).await;
        let (channel, _) = channel_to(server.grpc).await;
        let site = Self { server, keys, key, channel, _keystead: keystead };
        eventually("the key is known", async || site.check().await.then_some(())).await;
        site
    }

    async fn check(&self) -> bool {
        check_over(self.channel.clone(), presenting(&self.key.text)).await.is_ok()
    }

    async fn ended(&self, why: &str) -> f64 {
        let series = format!(r#"keystead_connections_ended_total{{why="{why}"}}"#);
        Admin(self.server.admin).metric(&series).await
    }

    /// Checks all the while that something is done, and holds that none fails. Returns
    /// how many there were.
    async fn while_checked(&self, done: impl Future<Output = ()>) -> usize {
        let over = AtomicBool::new(false);
        let checks = async {
            let mut checks = 0;
            while !over.load(Relaxed) {
                assert!(self.check().await, "a check of another client failed");
                checks += 1;
            }
            checks
        };
        let done = async {
            done.await;
            over.store(true, Relaxed);
        };
        tokio::join!(checks, done).0
    }

    /// Asserts that peak memory stays below this number of MB.
    fn holds_below(&self, bound: u64) {
        let peak = self.server.peak_memory() / MB;
        println!("at most {peak} MB of memory, and {bound} MB is the bound");
        assert!(peak < bound, "{peak} MB");
    }
}

/// A manually driven connection with flow-control windows of this number of bytes.
async fn connect(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(65_535);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    beside(connection);
    sender.ready().await.unwrap()
}

fn request(path: &str) -> Request<()> {
    Request::post(format!("http://keystead{path}"))
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

#[tokio::test]
async fn messages_that_never_end_take_bounded_memory_and_stop_nobody() {
    let site = Site::with("").await;
    let checks = site
        .while_checked(async {
            let mut streams = Vec::new();
            let mut connections = Vec::new();
            // Far more than a message may have; most of what may wait; a little.
            for (path, announced) in [(HEALTH, 4 * MB), (ENVOY, 200 * 1024), (CHECK, 60 * 1024)] {
                for _ in 0..2 {
                    let mut sender = connect(site.server.grpc, 65_535).await;
                    for _ in 0..300 {
                        let Ok(ready) = sender.clone().ready().await else { break };
                        sender = ready;
                        let Ok((answer, mut body)) = sender.send_request(request(path), false)
                        else {
                            break;
                        };
                        let length = u32::try_from(announced).unwrap().to_be_bytes();
                        let most = usize::try_from(announced).unwrap() - 1;
                        let begun = [&[0], &length[..], &vec![7; most]].concat();
                        // Queued here, and sent as far as the windows allow.
                        let _ = body.send_data(begun.into(), false);
                        streams.push((answer, body));
                    }
                    connections.push(sender);
                }
            }
            let held = "keystead_connection_held_bytes";
            eventually("some is held", async || {
                (Admin(site.server.admin).metric(held).await > 0.5).then_some(())
            })
            .await;
            for (answer, body) in streams {
                // Refused, or reset; never waited for without an end.
                let ended = tokio::time::timeout(Duration::from_secs(40), answer).await;
                assert!(ended.is_ok(), "a call that never ends is still open");
                drop(body);
            }
            site_holds_nothing(&site).await;
        })
        .await;
    println!("{checks} checks of others, none failed");
    let scrape = Admin(site.server.admin).scrape().await;
    let refused: f64 = ["authz", "ext_authz"]
        .iter()
        .flat_map(|surface| {
            [("INVALID_ARGUMENT", "REQUEST_INVALID"), ("UNAVAILABLE", "OVERLOADED")]
                .map(|(code, reason)| crate::harness::admin::checks_of(surface, code, reason))
        })
        .map(|series| scrape.get(&series))
        .sum();
    assert!(refused > 100.0, "{refused} were refused and counted");
    site.holds_below(200);
}

async fn site_holds_nothing(site: &Site) {
    Admin(site.server.admin).until_metric("keystead_connection_held_bytes", 0.0).await;
}

#[tokio::test]
async fn client_that_takes_no_answer_is_ended_and_holds_little() {
    let site = Site::with("").await;
    let message = framed(&presenting(&site.key.text).encode_to_vec());
    // With a window of one byte a client of this kind ends itself after some hundred.
    for (window, many) in [(0, 900), (1, 90)] {
        let before = site.ended("unread").await;
        let checks = site
            .while_checked(async {
                let mut calls = Vec::new();
                let mut connections = Vec::new();
                for _ in 0..20 {
                    let mut sender = connect(site.server.grpc, window).await;
                    for _ in 0..many {
                        sender = sender.ready().await.unwrap();
                        let (answer, mut body) =
                            sender.send_request(request(CHECK), false).unwrap();
                        body.send_data(message.clone(), true).unwrap();
                        calls.push(answer);
                    }
                    connections.push(sender);
                }
                eventually("all are ended", async || {
                    (site.ended("unread").await > before + 19.5).then_some(())
                })
                .await;
            })
            .await;
        println!("window {window}: {checks} checks of others, none failed");
        site_holds_nothing(&site).await;
    }
    site.holds_below(250);
}

#[tokio::test]
async fn useless_frames_end_their_connection_and_delay_nobody() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let site = Site::with("").await;
    let floods: [(&str, &[u8]); 5] = [
        ("PING", b"\0\0\x08\x06\0\0\0\0\0abcdefgh"),
        ("SETTINGS", b"\0\0\0\x04\0\0\0\0\0"),
        ("PRIORITY", b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x10"),
        ("WINDOW_UPDATE", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01"),
        ("of no known type", b"\0\0\0\x77\0\0\0\0\0"),
    ];
    for (name, frame) in floods {
        let before = site.ended("flood").await;
        site.while_checked(async {
            let stream = TcpStream::connect(site.server.grpc).await.unwrap();
            let (mut read, mut write) = stream.into_split();
            beside(async move {
                let mut answers = vec![0; 65_536];
                while read.read(&mut answers).await.is_ok_and(|read| read > 0) {}
            });
            write.write_all(PREFACE).await.unwrap();
            let many = frame.repeat(100);
            while write.write_all(&many).await.is_ok() {}
        })
        .await;
        eventually(name, async || (site.ended("flood").await > before + 0.5).then_some(())).await;
    }
}

#[tokio::test]
async fn calls_cancelled_at_once_cost_other_calls_of_their_connection_nothing() {
    const CALLS: usize = 400;
    let site = Site::with("").await;
    let message = framed(&presenting(&site.key.text).encode_to_vec());
    let mut sender = connect(site.server.grpc, 65_535).await;
    for _ in 0..5 {
        // What is sent in a pause of the network, or of the service.
        site.server.signal("STOP").await;
        let (mut live, mut given_up) = (Vec::new(), Vec::new());
        for nth in 0..CALLS {
            sender = sender.ready().await.unwrap();
            let (answer, mut body) = sender.send_request(request(CHECK), false).unwrap();
            body.send_data(message.clone(), true).unwrap();
            if nth % 20 == 0 { live.push(answer) } else { given_up.push((answer, body)) }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for (answer, mut body) in given_up {
            body.send_reset(h2::Reason::CANCEL);
            drop(answer);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        site.server.signal("CONT").await;
        for answer in live {
            let answer = answer.await.expect("a call that was not given up is answered");
            assert_eq!(answer.status(), 200);
        }
    }
    assert_eq!(site.ended("resets").await.to_bits(), 0);
}

#[tokio::test]
async fn one_client_cannot_take_every_connection_slot() {
    // An ordinary login allows 1,024 files, fewer than a client who means no good takes.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let site = Site::with("[grpc]\nmax_connections = 100").await;
    let mut idle = Vec::new();
    for address in [site.server.grpc, site.server.admin] {
        for _ in 0..1_100 {
            idle.extend(TcpStream::connect(address).await.ok());
        }
    }
    assert!(site.check().await, "who was there goes on");
    // Another address still gets connections, and so do probes.
    for address in [site.server.grpc, site.server.admin] {
        let mut other = from_another(address).await;
        let question: &[u8] = if address == site.server.admin {
            b"GET /livez HTTP/1.1\r\nhost: keystead\r\nconnection: close\r\n\r\n"
        } else {
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
        };
        other.write_all(question).await.unwrap();
        let mut answer = [0; 12];
        other.read_exact(&mut answer).await.expect("another client is answered");
        if address == site.server.admin {
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
    }
    drop(idle);
    eventually("the refusals are counted", async || {
        (site.ended("share").await > 1_000.0).then_some(())
    })
    .await;
    let log = site.server.log();
    let said = log.lines().filter(|line| line.contains("connection refused; find")).count();
    assert!((1..100).contains(&said), "said {said} times: {log}");
}

/// A connection from an address that nobody else has.
async fn from_another(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
async fn clients_that_read_no_metrics_are_cut_off_and_a_revocation_takes_effect_meanwhile() {
    let site = Site::with("").await;
    let all = site.keys.create_many(20).await;
    let (channel, _) = channel_to(site.server.grpc).await;
    let is_ok = async |key: &Key| check_over(channel.clone(), presenting(&key.text)).await.is_ok();
    for key in &all {
        eventually("it is known", async || is_ok(key).await.then_some(())).await;
    }
    let before = site.ended("broken").await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut client = TcpStream::connect(site.server.admin).await.unwrap();
        let question = b"GET /metrics HTTP/1.1\r\nhost: keystead\r\n\r\n".repeat(1_000);
        client.write_all(&question).await.unwrap();
        silent.push(client);
    }
    let mut slowest = Duration::ZERO;
    for key in &all {
        site.keys.act(key, Action::Revoke).await;
        let began = Instant::now();
        eventually("the revocation takes effect", async || (!is_ok(key).await).then_some(())).await;
        slowest = slowest.max(began.elapsed());
    }
    println!("revocations were felt after {slowest:?} at most");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    eventually("they are given up", async || {
        let mut probe = from_another(site.server.admin).await;
        probe.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        probe.read_u8().await.expect("a probe is answered");
        (site.ended("broken").await > before + 63.5).then_some(())
    })
    .await;
    drop(silent);
    site.holds_below(200);
}
