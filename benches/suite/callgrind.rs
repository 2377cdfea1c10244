//! Instructions, which are the same on a busy machine.

use std::{env, error::Error, process::Command};

/// How many instructions this program takes with these arguments.
pub(crate) fn collected(args: [&str; 2]) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(args)
        .output()
        .map_err(|error| format!("valgrind does not run: {error}; scripts/test installs it"))?;
    let said = String::from_utf8_lossy(&ran.stderr);
    let total =
        said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match total {
        Some(total) if ran.status.success() => Ok(total),
        _ => Err(format!("{} failed under callgrind ({}): {said}", args[0], ran.status).into()),
    }
}
