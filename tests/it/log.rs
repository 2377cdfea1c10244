//! The log costs what it carries, and nothing else: whoever reads it may be gone,
//! full or asleep.

use std::{
    fs::{self, File, OpenOptions},
    io::{PipeReader, Read, Write, pipe},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};
use tonic::{Code, transport::Channel};

use crate::harness::{
    admin::Admin,
    app::{channel_to, check_over, presenting},
    eventually,
    keystead::{Keystead, Ran, Server},
};

const DROPPED: &str = "keystead_log_lines_dropped_total";

/// How long the end may take: the drain of a service that nobody uses any more, a
/// second for the reader of the log, and what a busy machine adds.
const END: Duration = Duration::from_secs(20);

/// More checks than any buffer has room for lines of.
const CHECKS: usize = 300;

/// No delay, and lines without end: each check logs some.
const CHATTY: &str = "log.filter = \"trace\"\ndrain.delay = \"0s\"\n";

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A service that logs to `stderr`, with a key that is in memory.
struct Site {
    keystead: Keystead,
    server: Server,
    channel: Channel,
    key: String,
}

impl Site {
    async fn logging_to(stderr: impl Into<Stdio>) -> Self {
        let keystead = Keystead::new().configured_by("keystead.toml", CHATTY);
        let created = keystead.run(["keys", "create", "--principal", "acme", "--json"]).await;
        let key = created.json()["key"].as_str().unwrap().to_owned();
        let server = keystead.serve_unheard(stderr, &[]).await;
        Admin(server.admin).until_ready().await;
        let (channel, _) = channel_to(server.grpc).await;
        let site = Self { keystead, server, channel, key };
        site.answers(1).await;
        site
    }

    async fn answers(&self, checks: usize) {
        for _ in 0..checks {
            check_over(self.channel.clone(), presenting(&self.key)).await.unwrap();
        }
        assert_eq!(Admin(self.server.admin).get("/livez").await.status, 200);
    }

    /// Until at least one line was dropped.
    async fn loses_lines(&self) -> f64 {
        eventually("a line of the log is dropped", async || {
            self.answers(CHECKS).await;
            let dropped = Admin(self.server.admin).metric(DROPPED).await;
            (dropped > 0.0).then_some(dropped)
        })
        .await
    }

    /// Takes the store away, and waits until that has been logged.
    async fn loses_its_store(&self) {
        let path = self.keystead.path("keystead.db");
        fs::rename(&path, self.keystead.path("elsewhere.db")).unwrap();
        eventually("the instance is degraded", async || {
            let status = Admin(self.server.admin).status().await;
            (status["state"] == "degraded").then_some(())
        })
        .await;
        let unseen = check_over(self.channel.clone(), presenting("somebody-else")).await;
        assert_eq!(unseen.unwrap_err().code(), Code::Unavailable);
    }

    /// Drains on SIGTERM, and ends well.
    async fn ends(mut self) {
        let told = Instant::now();
        self.server.signal("TERM").await;
        assert!(self.server.ended().await.success());
        assert!(told.elapsed() < END, "{:?}", told.elapsed());
    }

    /// All that the log must not stop.
    async fn survives_its_log(self) {
        let dropped = self.loses_lines().await;
        self.loses_its_store().await;
        self.answers(CHECKS).await;
        // Connections are still accepted, and what is lost is still counted.
        let (channel, _) = channel_to(self.server.grpc).await;
        check_over(channel, presenting(&self.key)).await.unwrap();
        eventually("more is lost", async || {
            (Admin(self.server.admin).metric(DROPPED).await > dropped).then_some(())
        })
        .await;
        self.ends().await;
    }
}

#[tokio::test]
async fn log_that_cannot_be_written_stops_nothing() {
    Site::logging_to(full()).await.survives_its_log().await;
}

#[tokio::test]
async fn log_whose_reader_is_gone_stops_nothing() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    Site::logging_to(writer).await.survives_its_log().await;
}

#[tokio::test]
async fn log_whose_reader_leaves_later_stops_nothing() {
    let (reader, writer) = pipe().unwrap();
    let site = Site::logging_to(writer).await;
    drop(reader);
    site.survives_its_log().await;
}

#[tokio::test]
async fn log_that_nobody_reads_stops_nothing() {
    let (_reader, writer) = pipe().unwrap();
    Site::logging_to(writer).await.survives_its_log().await;
}

#[tokio::test]
async fn log_reports_how_many_lines_a_stalled_reader_missed() {
    let (reader, writer) = pipe().unwrap();
    let site = Site::logging_to(writer).await;
    let dropped = site.loses_lines().await;
    let lines = std::thread::spawn(|| read(reader));
    site.ends().await;
    let lines = lines.join().unwrap();
    let told = lines.iter().filter(|line| {
        line["message"].as_str().is_some_and(|text| text.starts_with("log lines were dropped"))
    });
    let told: f64 = told.map(|line| line["lines"].as_f64().unwrap()).sum();
    assert!(told >= dropped, "{told} of {dropped}");
    // The end is in the log: what waited was written before the process ended.
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

/// All lines. Panics on one that is not whole.
fn read(mut reader: PipeReader) -> Vec<Value> {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn start_that_fails_ends_though_nobody_reads_why() {
    let (_reader, mut writer) = pipe().unwrap();
    // As much as a pipe holds.
    writer.write_all(&vec![b'\n'; 65536]).unwrap();
    let keystead = Keystead::new();
    let mut command = keystead.command(["serve", "--listen", "192.0.2.1:1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let ended = tokio::time::timeout(END, command.status()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(1));
}

#[tokio::test]
async fn first_key_that_nobody_can_read_stops_nothing() {
    let keystead = Keystead::new();
    let mut command = keystead.command(["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0"]);
    let log = keystead.path("log");
    command.stdin(Stdio::null()).stdout(full()).stderr(File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let log = eventually("it serves", async || {
        let log = fs::read_to_string(&log).unwrap();
        log.contains(r#""message":"serving""#).then_some(log)
    })
    .await;
    assert!(log.contains("the first key could not be printed to stdout (No space"), "{log}");
    child.kill().await.unwrap();
}

/// What commands do whose words cannot be written.
#[tokio::test]
async fn command_whose_output_cannot_be_written_ends_with_a_sentence_and_a_code() {
    let keystead = Keystead::new();
    let create = ["keys", "create", "--principal", "acme"];
    keystead.run(create).await.ok();
    let unreachable = ["check", "k", "--server", "http://127.0.0.1:1"];
    let commands: [(&[&str], Option<i32>, i32); 9] = [
        // The codes with a stdout that is full, and with a stderr that is.
        (&create, Some(1), 0),
        (&["keys", "list"], Some(1), 0),
        (&["keys", "export"], Some(1), 0),
        (&["keys", "new-secret"], Some(1), 0),
        (&["config"], Some(1), 0),
        (&unreachable, None, 12),
        (&["keys", "show", "key_none"], None, 1),
        (&["--nonsense"], None, 1),
        (&["check", "-"], None, 12),
    ];
    for (args, full_stdout, full_stderr) in commands {
        if let Some(code) = full_stdout {
            let said = to_full(keystead.command(args), |command| command.stdout(full())).await;
            assert_eq!(said.code, Some(code), "{args:?}: {said}");
            assert!(!said.stderr.contains("panicked"), "{args:?}: {said}");
            assert_eq!(said.stderr.lines().count(), 1, "{args:?}: {said}");
        }
        let said = to_full(keystead.command(args), |command| command.stderr(full())).await;
        assert_eq!(said.code, Some(full_stderr), "{args:?}: {said}");
    }
}

async fn to_full(mut command: Command, stream: impl FnOnce(&mut Command) -> &mut Command) -> Ran {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    stream(&mut command);
    command.spawn().unwrap().wait_with_output().await.unwrap().into()
}

/// Connections that break, of every kind, on every listener.
#[tokio::test]
async fn broken_connections_cannot_fill_the_log() {
    const EACH: usize = 60;
    let config = "log.filter = \"debug\"\nlisten.forward_auth = \"127.0.0.1:0\"\n";
    let keystead = Keystead::new().configured_by("keystead.toml", config);
    let server = keystead.serve(&[]).await;
    let serving = lines(&server).into_iter().find(|line| line["message"] == "serving").unwrap();
    let listeners = ["grpc", "admin", "forward_auth"].map(|name| serving[name].as_str().unwrap());
    let words: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS handshake",
        b"GET /livez HTTP/1.1\r\nno header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n no frame at all",
        b"",
    ];
    for _ in 0..EACH {
        for address in &listeners {
            for words in words {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // It may have been closed for less.
                let _ = stream.write_all(words).await;
            }
        }
    }
    let broken = |lines: &[Value]| {
        lines.iter().filter(|line| line["message"] == "connection failed").count()
    };
    let left_out = |lines: &[Value]| -> u64 {
        let ours = lines.iter().filter(|line| line["like"] == "connection failed");
        ours.map(|line| line["lines"].as_u64().unwrap()).sum()
    };
    let lines = eventually("all connections are reported", async || {
        let lines = lines(&server);
        let told = broken(&lines) + usize::try_from(left_out(&lines)).unwrap();
        (told >= EACH * listeners.len() * words.len() * 9 / 10).then_some(lines)
    })
    .await;
    assert!(broken(&lines) <= 100, "{} lines of connections", broken(&lines));
    assert!(lines.len() <= 200, "{} lines", lines.len());
}

fn lines(server: &Server) -> Vec<Value> {
    server.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
