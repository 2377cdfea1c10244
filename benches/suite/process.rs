//! Other programs, each where it is to run, with the CPU time that they use. They end
//! with the suite.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    time::clock_getcpuclockid,
    unistd::{Pid, gettid},
};

use crate::{Result, report::field};

/// How nice is what runs beside a loader: it gets a quarter of the core that the loader
/// never leaves, and the loader waits less for it.
const NICENESS: &str = "5";

/// How long a program may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the first core that this process may use.
    Served,
    /// On the last, which is another one where there are two.
    Loading,
    /// On any but the first, and behind a loader there.
    Beside,
    /// Wherever the kernel puts it.
    Anywhere,
}

/// A process that is killed when this is dropped, and by the kernel when the suite ends
/// without that.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Place {
    /// A command that begins a program there, as this user of the system if one is named,
    /// and without the environment.
    pub(crate) fn command(self, program: impl AsRef<OsStr>, user: Option<&str>) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL").env_clear().stdin(Stdio::null());
        if let Some(user) = user {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
            command.arg("--init-groups");
        }
        if let Some(list) = self.list()? {
            command.args(["taskset", "--cpu-list", &list]);
        }
        if self == Self::Beside {
            command.args(["nice", "-n", NICENESS]);
        }
        command.arg(program);
        Ok(command)
    }

    /// Keeps the thread there that calls this, and those that it starts from now on.
    pub(crate) fn keep_this_thread(self) -> Result<()> {
        let id = gettid().to_string();
        if let Some(list) = self.list()? {
            run(Command::new("taskset").args(["--cpu-list", "--pid", &list, &id]))?;
        }
        if self == Self::Beside {
            run(Command::new("renice").args(["-n", NICENESS, "-p", &id]))?;
        }
        Ok(())
    }

    /// The cores, if not all.
    fn list(self) -> Result<Option<String>> {
        let status = fs::read_to_string("/proc/self/status")?;
        let list = field(&status, "Cpus_allowed_list").ok_or("/proc tells no cores")?;
        let mut cores = Vec::new();
        for range in list.split(',') {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            cores.extend(from.parse::<usize>()?..=to.parse()?);
        }
        let some = match self {
            _ if cores.len() < 2 => &[],
            Self::Served => &cores[..1],
            Self::Loading => &cores[cores.len() - 1..],
            Self::Beside => &cores[1..],
            Self::Anywhere => &[],
        };
        let names: Vec<_> = some.iter().map(usize::to_string).collect();
        Ok(Some(names.join(",")).filter(|list| !list.is_empty()))
    }
}

impl Process {
    /// Begins a program, which says what it says to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        let child = command.stdout(file.try_clone()?).stderr(file).spawn();
        let child = child.map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until somebody listens there.
    pub(crate) fn until_it_listens(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(address).is_err() {
            self.check_alive(deadline)?;
            thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Fails with what it has said when it has ended, or was to be ready by then.
    pub(crate) fn check_alive(&mut self, deadline: Instant) -> Result<()> {
        if self.child.try_wait()?.is_some() || Instant::now() > deadline {
            return Err(format!("it is not ready: {}", self.said()?).into());
        }
        Ok(())
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The CPU time that it has used so far, of all its threads, those that have ended
    /// too.
    pub(crate) fn busy(&self) -> Result<Duration> {
        Ok(clock_getcpuclockid(self.id())?.now()?.into())
    }

    /// Sends a signal to it and to those that it has started.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        let id = self.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        kill(id, signal)?;
        for child in children.split_whitespace() {
            // It may end meanwhile.
            let _ = kill(Pid::from_raw(child.parse()?), signal);
        }
        Ok(())
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end; what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let (said, complaint) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{command:?}: {said}{complaint}").into());
    }
    Ok(said)
}

/// An address on which nobody listens just now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
