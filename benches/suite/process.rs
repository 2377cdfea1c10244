//! Servers in processes of their own, each on a core of its own where there are
//! two, with the CPU time that they use.

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    time::clock_getcpuclockid,
    unistd::{Pid, gettid},
};

use crate::{Result, machine::field};

/// How nice is what runs beside a loader: it gets a quarter of the core that the loader
/// never leaves, and the loader waits less for it.
const NICENESS: i32 = 5;

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

/// A process that is killed when this is dropped, and by the kernel when the
/// suite ends without that.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Place {
    /// A command that begins a program there.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        command.args(self.words()?).arg(program).stdin(Stdio::null());
        Ok(command)
    }

    /// What goes before a program and its arguments so that it runs there.
    pub(crate) fn words(self) -> Result<Vec<String>> {
        let Some(list) = self.list()? else { return Ok(Vec::new()) };
        let nice = ["nice".to_owned(), format!("--adjustment={NICENESS}")];
        let nice = nice.into_iter().filter(|_| self == Self::Beside);
        Ok(nice.chain(["taskset".to_owned(), "--cpu-list".to_owned(), list]).collect())
    }

    /// Keeps the thread there that calls this, and those that it starts from now on.
    pub(crate) fn keep_this_thread(self) -> Result<()> {
        let Some(list) = self.list()? else { return Ok(()) };
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "--pid", &list, &gettid().to_string()]);
        let output = command.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        if self == Self::Beside {
            let (niceness, id) = (NICENESS.to_string(), gettid().to_string());
            let status = Command::new("renice").args(["-n", &niceness, "-p", &id]).output()?.status;
            if !status.success() {
                return Err("renice failed".into());
            }
        }
        Ok(())
    }

    /// The cores, if not all.
    fn list(self) -> Result<Option<String>> {
        let cores = cores()?;
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

/// The CPU time that a process has used so far, of all its threads, those that have
/// ended too.
pub(crate) fn busy(id: u32) -> Result<Duration> {
    let pid = Pid::from_raw(id.cast_signed());
    Ok(clock_getcpuclockid(pid)?.now()?.into())
}

/// The cores that this process may use.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let list = field(&status, "Cpus_allowed_list").ok_or("/proc/self/status tells no cores")?;
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        cores.extend(from.parse::<usize>()?..=to.parse()?);
    }
    Ok(cores)
}

impl Process {
    /// Begins it, and returns it with the address that `find` reads in a line of
    /// what it prints: on stderr if its stdout goes elsewhere.
    pub(crate) fn serve(
        command: &mut Command,
        find: impl Fn(&str) -> Option<Vec<SocketAddr>>,
    ) -> Result<(Self, Vec<SocketAddr>)> {
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let said: Box<dyn Read + Send> = match (out, err) {
            (Some(out), _) => Box::new(out),
            (None, Some(err)) => Box::new(err),
            (None, None) => return Err("its output must be piped".into()),
        };
        let (process, mut said) = (Self(child), BufReader::new(said));
        let (mut all, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Err(format!("it ended instead of serving: {command:?}\n{all}").into());
            }
            if let Some(addresses) = find(&line) {
                // It must never wait for somebody to read on.
                std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
                return Ok((process, addresses));
            }
            all.push_str(&line);
        }
    }

    /// The CPU time that it has used so far, of all its threads, those that have
    /// ended too.
    pub(crate) fn busy(&self) -> Result<Duration> {
        busy(self.0.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
