//! Server processes of other people's making, which die with the test.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// How setpriv becomes the user who runs servers.
const UNPRIVILEGED: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--init-groups"];

/// A server and all processes that it has started.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts it, never as root, which neither PostgreSQL nor PgBouncer would
    /// allow. The kernel kills it when the thread of the test ends, however that
    /// comes about.
    pub(crate) fn spawn(program: &Path, arguments: &[String], log: &Path) -> Self {
        let drop_rights: &[&str] = if is_root() { &UNPRIVILEGED } else { &[] };
        Self::start(drop_rights, program, arguments, log)
    }

    /// As [`Server::spawn`], but as the user who runs the test.
    pub(crate) fn spawn_as_ourselves(program: &Path, arguments: &[String], log: &Path) -> Self {
        Self::start(&[], program, arguments, log)
    }

    fn start(rights: &[&str], program: &Path, arguments: &[String], log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL").args(rights).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().expect("setpriv of util-linux runs servers in tests"))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Kills all its processes at once, as a lost machine would.
    pub(crate) fn kill(&mut self) {
        // The parent first, so that it cannot tell its children to end in order.
        let mut all = vec![self.0.id()];
        all.extend(children(self.0.id()));
        signal("KILL", &all);
        self.0.wait().unwrap();
        while all.iter().any(|pid| is_alive(*pid)) {
            std::thread::yield_now();
        }
    }

    /// Stops all its processes: nothing answers, nothing is closed.
    pub(crate) fn stop_all(&self) {
        // The parent first, so that no child is added after they are counted.
        signal("STOP", &[self.0.id()]);
        signal("STOP", &children(self.0.id()));
    }

    /// Lets them go on.
    pub(crate) fn cont_all(&self) {
        signal("CONT", &children(self.0.id()));
        signal("CONT", &[self.0.id()]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A command that runs as the user who runs servers.
pub(crate) fn unprivileged(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(UNPRIVILEGED).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Runs a command to its end, and panics with what it said when it fails.
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// The processes that `parent` has started and that are still there.
fn children(parent: u32) -> Vec<u32> {
    let parent = format!("PPid:\t{parent}");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        // A process may end while it is looked at.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().any(|line| line == parent).then_some(pid)
    });
    pids.collect()
}

/// False also for a process that has ended and that nobody has waited for.
fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
}

/// Processes that have ended meanwhile are passed over.
pub(super) fn signal(name: &str, pids: &[impl ToString]) {
    let pids = pids.iter().map(ToString::to_string);
    Command::new("kill").arg(format!("-{name}")).args(pids).output().unwrap();
}
