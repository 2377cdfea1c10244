//! The program itself, as a user runs it: in its own folder, with nothing
//! in its environment.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use super::{DEADLINE, eventually, free_port, process::is_root, write_private};

/// How long a command may take. The longest, an import of 20,000 keys, takes 5 s
/// without optimisation, and several times that beside other tests; with it, one of a
/// million keys.
const COMMAND_LIMIT: Duration = Duration::from_mins(if cfg!(debug_assertions) { 4 } else { 30 });

/// A folder to run the program in. With no configuration it keeps its keys in
/// `keystead.db` there.
#[derive(Debug)]
pub(crate) struct Keystead {
    folder: TempDir,
    /// The configuration file, if it has one.
    config: Option<PathBuf>,
    program: PathBuf,
    /// The user who runs it, if that is not the one who runs the test.
    user: Option<u32>,
}

/// A user who owns nothing.
const PROBE_DIGEST: u32 = 65534;

/// Outcome of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A service that runs until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Address of the data listener.
    pub(crate) grpc: SocketAddr,
    /// Address of the admin listener.
    pub(crate) admin: SocketAddr,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Keystead {
    pub(crate) fn new() -> Self {
        let program = env!("CARGO_BIN_EXE_keystead").into();
        Self { folder: tempfile::tempdir().unwrap(), config: None, program, user: None }
    }

    /// Has it run by a user without rights, if root runs the test.
    pub(crate) fn run_by_nobody(mut self) -> Self {
        if is_root() {
            chown(self.folder.path(), Some(PROBE_DIGEST), Some(PROBE_DIGEST)).unwrap();
            // The folder that it is in may be closed to others.
            let program = self.path("keystead");
            fs::copy(&self.program, &program).unwrap();
            (self.program, self.user) = (program, Some(PROBE_DIGEST));
        }
        self
    }

    /// Writes a configuration file, which every command reads from then on.
    pub(crate) fn configured_by(mut self, name: &str, text: impl AsRef<[u8]>) -> Self {
        self.config = Some(self.write(name, text));
        self
    }

    /// A file in the folder, whether it is there or not.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file in the folder, which its owner alone may read: it may be a secret.
    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        write_private(&path, text);
        path
    }

    /// The program with its arguments, ready to be spawned. It is killed when
    /// its handle is dropped.
    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(args).current_dir(self.folder.path()).env_clear().kill_on_drop(true);
        command.envs(self.config.iter().map(|path| ("KEYSTEAD_CONFIG", path)));
        command
    }

    /// Runs the program to its end, with an empty stdin.
    pub(crate) async fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        Ran::of(self.command(args), "").await
    }

    /// Runs the program to its end, with `stdin` to read.
    pub(crate) async fn run_with(
        &self,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        stdin: impl AsRef<[u8]>,
    ) -> Ran {
        Ran::of(self.command(args), stdin).await
    }

    /// Starts the service on its own ports, and returns when it serves.
    pub(crate) async fn serve(&self, args: &[&str]) -> Server {
        self.serve_on("127.0.0.1:0", args).await
    }

    /// Starts it where one that has ended has served.
    pub(crate) async fn serve_at(&self, grpc: SocketAddr) -> Server {
        self.serve_on(&grpc.to_string(), &[]).await
    }

    /// Starts it with a file size limit of `blocks` blocks of 512 bytes, as on a full
    /// disk: existing bytes can be read and overwritten.
    pub(crate) async fn serve_within(&self, blocks: u32) -> Server {
        self.serve_limited(&format!("trap '' XFSZ; ulimit -f {blocks}")).await
    }

    /// Starts it with a soft limit of `soft` open files.
    pub(crate) async fn serve_with_open_files(&self, soft: u32) -> Server {
        self.serve_limited(&format!("ulimit -Sn {soft}")).await
    }

    /// Starts it after `limit`, a command of the shell.
    pub(crate) async fn serve_limited(&self, limit: &str) -> Server {
        Server::start(self.limited(limit), self.folder.path()).await
    }

    /// The service on its own ports, after `limit`, a command of the shell.
    pub(crate) fn limited(&self, limit: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_keystead");
        let limited = format!("{limit}; exec {program} \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &limited, "sh", "serve", "--listen", "127.0.0.1:0"]);
        command.args(["--admin", "127.0.0.1:0"]).env_clear();
        command.envs(self.config.iter().map(|path| ("KEYSTEAD_CONFIG", path)));
        command.current_dir(self.folder.path()).kill_on_drop(true);
        command
    }

    /// Starts it with something other than a file as its stderr, so that its log tells
    /// nothing, and returns when it takes connections.
    pub(crate) async fn serve_unheard(&self, stderr: impl Into<Stdio>, args: &[&str]) -> Server {
        let [grpc, admin] =
            [free_port(), free_port()].map(|port| (Ipv4Addr::LOCALHOST, port).into());
        let [grpc_text, admin_text] = [grpc, admin].map(|address: SocketAddr| address.to_string());
        let mut command = self.command(["serve", "--listen", &grpc_text, "--admin", &admin_text]);
        let [stdout, log] = ["serve.stdout", "serve.stderr"].map(|name| self.write(name, ""));
        command.args(args).stdin(Stdio::null()).stderr(stderr);
        command.stdout(File::create(&stdout).unwrap());
        let child = command.spawn().unwrap();
        let connects = async || TcpStream::connect(grpc).await.ok();
        eventually("the service takes connections", connects).await;
        Server { child, grpc, admin, stdout, stderr: log }
    }

    async fn serve_on(&self, grpc: &str, args: &[&str]) -> Server {
        let mut command = self.command(["serve", "--listen", grpc, "--admin", "127.0.0.1:0"]);
        command.args(args);
        Server::start(command, self.folder.path()).await
    }
}

impl Ran {
    /// Runs a command to its end. Panics when it does not end in time.
    pub(crate) async fn of(mut command: Command, stdin: impl AsRef<[u8]>) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let feed = async move {
            // A program that does not read all of it says so by its exit code.
            let _ = pipe.write_all(stdin.as_ref()).await;
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1.unwrap() };
        let ended = timeout(COMMAND_LIMIT, both).await;
        ended.unwrap_or_else(|_| panic!("not ended within {COMMAND_LIMIT:?}: {command:?}")).into()
    }

    /// Runs a command whose stdout nobody reads: it is closed before it writes.
    pub(crate) async fn unread(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let ended = timeout(COMMAND_LIMIT, child.wait_with_output()).await;
        let ended = ended.unwrap_or_else(|_| panic!("not ended: {command:?}"));
        ended.unwrap().into()
    }

    /// Its stdout. Panics unless it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// Its stdout as one JSON value. Panics unless it succeeded.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let stdout = self.ok();
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// Its stderr. Panics unless it ended with `code`, with nothing
    /// on stdout.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self}");
        self.stderr
    }
}

impl From<Output> for Ran {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        Self { code: status.code(), stdout, stderr }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit code {code:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}

impl Server {
    /// Starts `command`, whose stdout and stderr go to files in `folder`.
    async fn start(mut command: Command, folder: &Path) -> Self {
        let stdout = folder.join("serve.stdout");
        let stderr = folder.join("serve.stderr");
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let mut child = command.spawn().unwrap();
        let [grpc, admin] = eventually("the service serves", async || {
            let log = fs::read_to_string(&stderr).unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended instead of serving ({ended:?}): {log}");
            log.lines().find_map(addresses)
        })
        .await;
        Self { child, grpc, admin, stdout, stderr }
    }

    /// The value for `--server`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it has not been waited for")
    }

    /// Its stdout so far.
    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await.unwrap();
        assert!(sent.success(), "kill -s {name} {pid}");
        if name == "STOP" {
            // A thread on another core runs on until the signal reaches it.
            let stopped = async || threads(&pid).all(|state| state == 'T').then_some(());
            eventually("all threads are stopped", stopped).await;
        }
    }

    /// The most memory that it has had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let pid = self.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(DEADLINE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("not ended: {}", self.log())).unwrap()
    }

    /// Stops it without the delay that SIGTERM has, and returns when it has
    /// ended.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("INT").await;
        self.ended().await
    }
}

/// The addresses in the line of the log that tells them.
fn addresses(line: &str) -> Option<[SocketAddr; 2]> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line["message"] == "serving")
        .then(|| ["grpc", "admin"].map(|name| line[name].as_str().unwrap().parse().unwrap()))
}

/// The states of the threads of a process, as in proc(5).
fn threads(pid: &str) -> impl Iterator<Item = char> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|task| {
        // One that has ended meanwhile runs no more.
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(") ")?;
        after_name.chars().next()
    })
}
