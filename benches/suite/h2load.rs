//! h2load of nghttp2, which costs little CPU: for a message that is always the
//! same.

use std::{net::SocketAddr, path::Path};

use crate::{Result, process::Place};

/// How many connections it makes.
pub(crate) const CONNECTIONS: usize = 8;

/// How many requests each has under way at once.
pub(crate) const STREAMS: usize = 32;

/// Sends `count` requests, from the core for loading, and fails unless each is
/// answered with HTTP 200. gRPC tells its own status elsewhere.
pub(crate) fn load(address: SocketAddr, path: &str, frame: &Path, count: u32) -> Result<()> {
    let mut command = Place::Loading.command("h2load")?;
    command.arg(format!("--requests={count}"));
    command.arg(format!("--clients={CONNECTIONS}"));
    command.arg(format!("--max-concurrent-streams={STREAMS}"));
    command.arg("--data").arg(frame);
    command.args(["--header=content-type: application/grpc", "--header=te: trailers"]);
    command.arg(format!("http://{address}{path}"));
    let output = command.output()?;
    let said = String::from_utf8(output.stdout)?;
    let all = format!("status codes: {count} 2xx,");
    let done = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
    if !said.contains(&all) || !said.contains(&done) {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("not all {count} were answered: {command:?}\n{said}{complaint}").into());
    }
    Ok(())
}
