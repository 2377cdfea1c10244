//! gRPC: HTTP/2 that begins at once.

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
    bodies::{AnswerBody, RequestBody},
    gate::{Gate, not_grpc},
    http1,
    inline_executor::InlineExecutor,
    meter::Meter,
    metered::Metered,
    non_vectored::NonVectored,
};
use crate::{telemetry::ConnectionEnd, time::jittered, transport::GrpcConfig};

/// A peer that is silent for this long is pinged, and given up when it does not
/// answer the ping within [`KEEPALIVE_TIMEOUT`]: a peer that vanished without a
/// word must not hold its place for ever. The values are those that gRPC
/// servers use for connections across networks that forget idle flows.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave its answers without taking one. It also bounds for how
/// long it may keep them from others by taking one now and then, with what it may hold.
const TAKE_ONE: Duration = Duration::from_secs(10);

/// How many bytes of messages a client may send that nobody has read yet, in one call and
/// in all: a message is read as it comes in, and one of 64 KiB is the usual bound.
const CALL_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How many bytes of an answer are kept for a client that does not take them before the
/// call is made to wait: all that an answer has.
const MAX_SEND_BUFFER: usize = 64 * 1024;

pub(super) async fn serve_connection<S: Serves>(
    config: GrpcConfig,
    (stream, peer): (TcpStream, SocketAddr),
    service: S,
    meter: &Arc<Meter>,
    draining: CancellationToken,
) -> Result<ConnectionEnd, Broken> {
    let mut words = [0; PREFACE.len()];
    tokio::select! {
        said = await_preface(&stream, &mut words) => said?,
        () = draining.cancelled() => return Ok(ConnectionEnd::Drain),
    }
    let service = Gate { refuse: not_grpc, service };
    let age = jittered(config.max_connection_age, AGE_JITTER);
    if words != *PREFACE {
        // All that is not HTTP/2 is refused, in words that its sender can read.
        let bounds = (age, config.max_header_bytes);
        return http1::serve_connection(bounds, (stream, peer), service, meter, draining).await;
    }
    let (asked, answered) = (Arc::clone(meter), Arc::clone(meter));
    let service = service
        .map_request(move |request: Request<Incoming>| RequestBody::of(request, &asked))
        .map_response(move |response: Response<_>| {
            response.map(|body| AnswerBody::of(body, Arc::clone(&answered)))
        });
    let calls = InlineExecutor::new(Arc::clone(meter));
    let streams = config.max_concurrent_streams.get();
    let resets = usize::try_from(streams).unwrap_or(usize::MAX);
    let connection = http2::Builder::new(calls.clone())
        // gRPC has no use for the date in every answer.
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .max_header_list_size(config.max_header_bytes.get())
        .max_concurrent_streams(streams)
        // A client may give up all its calls at once.
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
    let mut unread = pin!(unread(meter));
    let end = tokio::select! {
        ended = calls.answered_in(connection.as_mut()) => {
            return Ok(ended.map(|()| ConnectionEnd::Closed)?);
        }
        () = unread.as_mut() => return Err(Broken::Unread),
        () = sleep(age) => ConnectionEnd::Age,
        () = draining.cancelled() => ConnectionEnd::Drain,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = timeout(MAX_DRAIN, calls.answered_in(connection)) => {
            ended.map_err(|_| Broken::DrainTimedOut)??;
            Ok(end)
        }
        () = unread => Err(Broken::Unread),
    }
}

/// Ends when answers wait and none was taken for [`TAKE_ONE`].
async fn unread(meter: &Meter) {
    let mut before = None;
    loop {
        let now = meter.taken_while_some_wait();
        if now.is_some() && now == before {
            return;
        }
        before = now;
        sleep(TAKE_ONE).await;
    }
}
