//! HTTP/1.1, for proxies and people.

mod lingering;

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, header::CONNECTION};
use hyper::{body::Incoming, server::conn::http1};
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

use self::lingering::Lingering;
use super::{
    Broken, FIRST_BYTES_TIMEOUT, MAX_DRAIN, Peer, Serves, await_preface,
    bodies::{RequestBody, ResponseBody},
    gate::{Gate, not_one_host},
    meter::Meter,
};
use crate::telemetry::ConnectionEnd;

/// How much of an HTTP/1 request is buffered beyond the maximum size of its head, so that a
/// slightly larger one is usually read completely. The smallest buffer that hyper allows.
const BUFFER_MARGIN: usize = 8192;

/// Closes the connection with the first response after `age`: closing it while idle could race with
/// the client's next request. hyper closes a connection on which nothing arrives for
/// [`FIRST_BYTES_TIMEOUT`].
pub(super) async fn serve_connection<S: Serves>(
    (age, max_header_bytes): (Duration, NonZeroU32),
    (stream, peer): (TcpStream, SocketAddr),
    service: S,
    meter: &Arc<Meter>,
    draining: CancellationToken,
) -> Result<ConnectionEnd, Broken> {
    // hyper's graceful shutdown would wait for a connection that has not sent anything.
    let mut first_byte = [0];
    tokio::select! {
        result = await_preface(&stream, &mut first_byte) => result?,
        () = draining.cancelled() => return Ok(ConnectionEnd::Drain),
    }
    let last = AtomicBool::new(false);
    let service = Gate { refuse: not_one_host, service };
    let service = service
        .map_request(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            // The client asked to close, which hyper does without sending the header.
            if wants_close(request.headers()) {
                last.store(true, Ordering::Relaxed);
            }
            RequestBody::of(request, meter)
        })
        .map_response(|mut response: Response<_>| {
            if last.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| ResponseBody::of(body, Arc::clone(meter)))
        });
    let max_header_bytes = usize::try_from(max_header_bytes.get()).unwrap_or(usize::MAX);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_header_size(max_header_bytes)
        .max_buf_size(max_header_bytes.saturating_add(BUFFER_MARGIN))
        .header_read_timeout(FIRST_BYTES_TIMEOUT)
        .serve_connection(TokioIo::new(Lingering::new(stream)), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let end = tokio::select! {
        ended = connection.as_mut() => return Ok(ended.map(|()| ConnectionEnd::Closed)?),
        () = sleep(age) => ConnectionEnd::Age,
        () = draining.cancelled() => ConnectionEnd::Drain,
    };
    last.store(true, Ordering::Relaxed);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended.map(|()| end)?),
        () = sleep(MAX_DRAIN) => {}
        () = draining.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    timeout(MAX_DRAIN, connection).await.map_err(|_| Broken::DrainTimedOut)??;
    Ok(end)
}

fn wants_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).into_iter().map(HeaderValue::as_bytes);
    let mut options = values.flat_map(|value| value.split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}
