//! h2load of nghttp2, which loads without a rate: always the same message.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    Result,
    load::CONNECTIONS,
    process::{Place, Process, run},
};

/// How many requests each connection has under way at once.
const STREAMS: usize = 32;

/// What it takes to answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Microseconds of CPU time for a request.
    pub(crate) micros: f64,
    /// Which part of the time the server was busy: below about 0.9 it is the loader, or the
    /// machine, that could do no more.
    pub(crate) busy: f64,
    pub(crate) per_second: f64,
}

/// Sends `count` requests to a server, from the core for loading, and fails unless each is
/// answered with HTTP 200. gRPC tells its own status elsewhere.
pub(crate) fn load(
    server: &Process,
    address: SocketAddr,
    path: &str,
    frame: &Path,
    count: u32,
) -> Result<Cost> {
    let mut command = Place::Loading.command("h2load", None)?;
    command.arg(format!("--requests={count}"));
    command.arg(format!("--clients={CONNECTIONS}"));
    command.arg(format!("--max-concurrent-streams={STREAMS}"));
    command.arg("--data").arg(frame);
    command.args(["--header=content-type: application/grpc", "--header=te: trailers"]);
    command.arg(format!("http://{address}{path}"));
    let (began, before) = (Instant::now(), server.busy()?);
    let said = run(&mut command)?;
    let (took, busy): (_, Duration) = (began.elapsed(), server.busy()?.saturating_sub(before));
    if !said.contains(&format!("status codes: {count} 2xx,")) {
        return Err(format!("not all {count} were answered: {command:?}\n{said}").into());
    }
    Ok(Cost {
        micros: busy.as_secs_f64() * 1e6 / f64::from(count),
        busy: busy.div_duration_f64(took),
        per_second: f64::from(count) / took.as_secs_f64(),
    })
}
