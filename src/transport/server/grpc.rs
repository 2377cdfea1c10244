//! gRPC over HTTP/2 with prior knowledge.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    AGE_JITTER, Broken, MAX_DRAIN, PREFACE, Serves, await_preface,
    bodies::{RequestBody, ResponseBody},
    gate::{Gate, not_grpc},
    http1,
    inline_executor::InlineExecutor,
    meter::Meter,
    metered::Metered,
    non_vectored::NonVectored,
};
use crate::{telemetry::ConnectionEnd, time::jittered, transport::GrpcConfig};

/// A peer that is silent for this long is pinged, and disconnected when it does not answer the ping
/// within [`KEEPALIVE_TIMEOUT`]: a peer that vanished must not hold its permit for ever. The values
/// are those that gRPC servers use across networks that drop idle flows.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may go without reading any pending response. It also bounds how long a client
/// that reads one now and then can occupy the budget that it holds.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Flow-control windows in bytes, per call and per connection: messages are read as they arrive,
/// and are usually limited to 64 KiB.
const CALL_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How many bytes of a response are buffered for a client that does not read before the call has to
/// wait: as many as a whole response has.
const MAX_SEND_BUFFER: usize = 64 * 1024;

pub(super) async fn serve_connection<S: Serves>(
    config: GrpcConfig,
    (stream, peer): (TcpStream, SocketAddr),
    service: S,
    meter: &Arc<Meter>,
    draining: CancellationToken,
) -> Result<ConnectionEnd, Broken> {
    let mut first_bytes = [0; PREFACE.len()];
    tokio::select! {
        result = await_preface(&stream, &mut first_bytes) => result?,
        () = draining.cancelled() => return Ok(ConnectionEnd::Drain),
    }
    let service = Gate { refuse: not_grpc, service };
    let age = jittered(config.max_connection_age, AGE_JITTER);
    if first_bytes != *PREFACE {
        // Refuse everything but HTTP/2 over HTTP/1.1, which its sender can read.
        let bounds = (age, config.max_header_bytes);
        return http1::serve_connection(bounds, (stream, peer), service, meter, draining).await;
    }
    let (request_meter, response_meter) = (Arc::clone(meter), Arc::clone(meter));
    let service = service
        .map_request(move |request: Request<Incoming>| RequestBody::of(request, &request_meter))
        .map_response(move |response: Response<_>| {
            response.map(|body| ResponseBody::of(body, Arc::clone(&response_meter)))
        });
    let calls = InlineExecutor::new(Arc::clone(meter));
    let streams = config.max_concurrent_streams.get();
    let resets = usize::try_from(streams).unwrap_or(usize::MAX);
    let connection = http2::Builder::new(calls.clone())
        // gRPC does not use the header `date`.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .max_header_list_size(config.max_header_bytes.get())
        .max_concurrent_streams(streams)
        // A client may reset all its calls at once.
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(resets)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .serve_connection(
            NonVectored(TokioIo::new(Metered::new(stream, Arc::clone(meter)))),
            TowerToHyperService::new(service),
        );
    let mut connection = pin!(connection);
    let mut stalled = pin!(stalled(meter));
    let end = tokio::select! {
        ended = calls.drive(connection.as_mut()) => {
            return Ok(ended.map(|()| ConnectionEnd::Closed)?);
        }
        () = stalled.as_mut() => return Err(Broken::Unread),
        () = sleep(age) => ConnectionEnd::Age,
        () = draining.cancelled() => ConnectionEnd::Drain,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = timeout(MAX_DRAIN, calls.drive(connection)) => {
            ended.map_err(|_| Broken::DrainTimedOut)??;
            Ok(end)
        }
        () = stalled => Err(Broken::Unread),
    }
}

/// Completes when responses are pending and none was read for [`STALL_TIMEOUT`].
async fn stalled(meter: &Meter) {
    let mut before = None;
    loop {
        let now = meter.sent_if_pending();
        if now.is_some() && now == before {
            return;
        }
        before = now;
        sleep(STALL_TIMEOUT).await;
    }
}
