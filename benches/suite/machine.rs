//! Where a measurement was made.

use std::{fs, process::Command};

use keystead::time::Clock;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Where, when and of what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// UTC, to the minute.
    pub(crate) at: String,
    /// The commit, with a `+` when files were changed since.
    pub(crate) commit: String,
    pub(crate) machine: Machine,
}

/// What it ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    /// That this process may use.
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) system: String,
    pub(crate) compiler: String,
}

impl Origin {
    pub(crate) fn here_and_now() -> Result<Self> {
        let changed = said("git", &["status", "--porcelain", "--untracked-files=no"])?;
        let mark = if changed.is_empty() { "" } else { "+" };
        Ok(Self {
            at: Clock::System.wall().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            commit: format!("{}{mark}", said("git", &["rev-parse", "--short=12", "HEAD"])?),
            machine: Machine::this()?,
        })
    }
}

impl Machine {
    fn this() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let kib: u64 = field(&fs::read_to_string("/proc/meminfo")?, "MemTotal")
            .and_then(|value| value.split(' ').next()?.parse().ok())
            .ok_or("/proc/meminfo tells no MemTotal")?;
        Ok(Self {
            processor: field(&processors, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: (kib + (1 << 19)) >> 20,
            system: said("uname", &["-srm"])?,
            compiler: compiler()?,
        })
    }
}

/// The compiler, and how it was told otherwise than by `Cargo.toml` to build: the
/// suite is run by whoever builds it.
fn compiler() -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "cargo is told by the environment")]
    let told = std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PROFILE_BENCH_"));
    let mut told: Vec<_> = told.map(|(name, value)| format!("{name}={value}")).collect();
    told.sort();
    Ok([vec![said("rustc", &["--version"])?], told].concat().join(", "))
}

/// The value behind `name:` in one of the lists of `/proc`.
pub(crate) fn field(list: &str, name: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// What a program prints.
fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8(output.stdout)?;
    output.status.success().then(|| text.trim().to_owned()).ok_or_else(|| {
        format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr))
            .into()
    })
}
