//! A process of its own that loads a server.
//!
//! It reads a plan, which is a line on its stdin, connects and says so. It begins when
//! its stdin ends, and tells at last what came back.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    process::Stdio,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Result, process::Place};

/// Lets the loader of this name carry out a plan. `connected` is called when it has made
/// all connections, and has asked nothing.
pub(crate) fn run<Tally: DeserializeOwned, T>(
    name: &str,
    place: Place,
    plan: &impl Serialize,
    connected: impl FnOnce() -> Result<T>,
) -> Result<(Tally, T)> {
    let mut command = place.command(std::env::current_exe()?)?;
    let mut child = command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdin.take().ok_or("the loader has no stdin")?;
    pipe.write_all(&serde_json::to_vec(plan)?)?;
    pipe.write_all(b"\n")?;
    let mut said = BufReader::new(child.stdout.take().ok_or("the loader has no stdout")?);
    said.read_line(&mut String::new())?;
    let seen = connected()?;
    // It begins now, and never waits for anybody again.
    drop(pipe);
    let mut tally = String::new();
    said.read_to_string(&mut tally)?;
    let ended = child.wait()?;
    if !ended.success() {
        return Err(format!("the loader failed: {ended}").into());
    }
    Ok((serde_json::from_str(&tally)?, seen))
}

/// What this loader has to do.
pub(crate) fn plan<Plan: DeserializeOwned>() -> Result<Plan> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Says that this loader is connected, and waits until it may begin.
pub(crate) fn wait_to_begin() -> Result<()> {
    println!("connected");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Tells what came back.
pub(crate) fn tell(tally: &impl Serialize) -> Result<()> {
    Ok(serde_json::to_writer(io::stdout(), tally)?)
}
