//! Other programs, which end with what started them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::Result;

/// How setpriv becomes the user who runs PostgreSQL, which refuses to run as root.
const UNPRIVILEGED: [&str; 3] = ["--reuid=postgres", "--regid=postgres", "--init-groups"];

/// How many parts of a second the kernel counts CPU time in: `USER_HZ`, 100 on every
/// architecture that there is a Rust for.
const TICKS: u32 = 100;

/// Who runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Who runs the suite.
    Ourselves,
    /// Who may run PostgreSQL: as ourselves, unless we are root.
    Postgres,
}

/// A program that runs. Ends at once when this is dropped, or the thread that
/// started it ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    user: User,
}

impl Process {
    /// Starts a program, which says what it says to the file `output`.
    pub(crate) fn start(command: &Command, user: User, output: &Path) -> Result<Self> {
        let output = fs::File::create(output)?;
        let mut dying = Command::new("setpriv");
        dying.arg("--pdeathsig=KILL").args(rights(user)?).arg(command.get_program());
        dying.args(command.get_args()).env_clear();
        dying.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            dying.current_dir(folder);
        }
        dying.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = dying.spawn().map_err(|error| format!("setpriv of util-linux: {error}"))?;
        Ok(Self { child, user })
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to it and to those that it has started.
    pub(crate) fn signal_all(&self, signal: &str) -> Result<()> {
        let mut command = Command::new("kill");
        command.args(["-s", signal]);
        for id in family(self.id())? {
            command.arg(id.to_string());
        }
        // One of them may end meanwhile.
        command.output()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let id = self.child.id().to_string();
            // On SIGQUIT PostgreSQL ends at once, with all its processes.
            let signal = if self.user == User::Postgres { "QUIT" } else { "KILL" };
            let _ = Command::new("kill").args(["-s", signal, &id]).status();
            let _ = self.child.wait();
        }
    }
}

/// The CPU time that a process and those that it has started have used so far.
pub(crate) fn cpu_time(id: u32) -> Result<Duration> {
    // A process may end while it is looked at.
    let used = |id: &u32| Some(statistics(&id.to_string())?.0);
    Ok(family(id)?.iter().filter_map(used).sum())
}

/// A process and those that it has started, it first.
fn family(id: u32) -> Result<Vec<u32>> {
    let mut all = vec![id];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let child = name.to_str().and_then(|name| Some((name.parse().ok()?, statistics(name)?.1)));
        if let Some((child, parent)) = child
            && parent == id
        {
            all.push(child);
        }
    }
    Ok(all)
}

/// The CPU time that this process has used so far, without those that it started.
pub(crate) fn own_cpu_time() -> Duration {
    statistics("self").map_or(Duration::ZERO, |(used, _)| used)
}

/// The CPU time of a process, and who started it.
fn statistics(process: &str) -> Option<(Duration, u32)> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, fields) = line.rsplit_once(") ")?;
    let fields: Vec<_> = fields.split(' ').collect();
    let field = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some((Duration::from_secs(1) * (field(11)? + field(12)?) / TICKS, field(1)?))
}

/// Runs a program to its end; what it printed.
pub(crate) fn run(command: &Command, user: User) -> Result<String> {
    let rights = rights(user)?;
    let mut whole =
        Command::new(if rights.is_empty() { command.get_program() } else { "setpriv".as_ref() });
    if !rights.is_empty() {
        whole.args(rights).arg(command.get_program());
    }
    whole.args(command.get_args());
    whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = whole.output();
    let output = output.map_err(|error| format!("{whole:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{whole:?}: {said}").into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What setpriv needs to be told.
fn rights(user: User) -> Result<&'static [&'static str]> {
    let is_root = fs::metadata("/proc/self")?.uid() == 0;
    Ok(if user == User::Postgres && is_root { &UNPRIVILEGED } else { &[] })
}
