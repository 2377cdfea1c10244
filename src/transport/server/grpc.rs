//! gRPC: HTTP/2 that begins at once.

use std::{net::SocketAddr, pin::pin, time::Duration};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    AGE_JITTER, Broken, GOODBYE, PREFACE, Serves,
    calls::Calls,
    first_words,
    gate::{Gate, not_grpc},
    http1,
    whole::Whole,
};
use crate::{time::jittered, transport::GrpcConfig};

/// A peer that is silent for this long is pinged, and given up when it does not
/// answer the ping within [`KEEPALIVE_TIMEOUT`]: a peer that vanished without a
/// word must not hold its place for ever. The values are those that gRPC
/// servers use for connections across networks that forget idle flows.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn converse(
    config: GrpcConfig,
    (stream, peer): (TcpStream, SocketAddr),
    service: impl Serves,
    goodbye: CancellationToken,
) -> Result<(), Broken> {
    let mut words = [0; PREFACE.len()];
    tokio::select! {
        said = first_words(&stream, &mut words) => said?,
        () = goodbye.cancelled() => return Ok(()),
    }
    let service = Gate { refuse: not_grpc, service };
    let age = jittered(config.max_connection_age, AGE_JITTER);
    if words != *PREFACE {
        // All that is not HTTP/2 is refused, in words that its sender can read.
        return http1::converse((age, config.max_header_bytes), (stream, peer), service, goodbye)
            .await;
    }
    let calls = Calls::default();
    let connection = http2::Builder::new(calls.clone())
        // gRPC has no use for the date in every answer.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .max_header_list_size(config.max_header_bytes.get())
        .max_concurrent_streams(config.max_concurrent_streams.get())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(Whole(TokioIo::new(stream)), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = calls.answered_in(connection.as_mut()) => return Ok(ended?),
        () = sleep(age) => {}
        () = goodbye.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let rest = calls.answered_in(connection);
    Ok(timeout(GOODBYE, rest).await.map_err(|_| Broken::Clinging)??)
}
