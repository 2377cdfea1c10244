//! HTTP/1.1, as proxies and people speak it.

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
    Broken, FIRST_WORDS, MAX_DRAIN, Peer, Serves, await_preface,
    bodies::{AnswerBody, RequestBody},
    gate::{Gate, not_one_host},
    meter::Meter,
};
use crate::telemetry::ConnectionEnd;

/// How much more than the headers that it may have is read of an HTTP/1 request at once,
/// so that one with somewhat more is read whole as a rule. The least that hyper takes
/// for a buffer.
const BEYOND_HEADERS: usize = 8192;

/// A connection that is `age` old is closed with the next answer: on one that
/// has nothing under way a client could just be sending. One on which nothing
/// comes for [`FIRST_WORDS`] is closed by hyper.
pub(super) async fn serve_connection<S: Serves>(
    (age, max_header_bytes): (Duration, NonZeroU32),
    (stream, peer): (TcpStream, SocketAddr),
    service: S,
    meter: &Arc<Meter>,
    draining: CancellationToken,
) -> Result<ConnectionEnd, Broken> {
    // hyper would hold on to one that has said nothing yet.
    let mut word = [0];
    tokio::select! {
        said = await_preface(&stream, &mut word) => said?,
        () = draining.cancelled() => return Ok(ConnectionEnd::Drain),
    }
    let last = AtomicBool::new(false);
    let service = Gate { refuse: not_one_host, service };
    let service = service
        .map_request(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            // The client's own wish, which hyper follows without a word.
            if wants_close(request.headers()) {
                last.store(true, Ordering::Relaxed);
            }
            RequestBody::of(request, meter)
        })
        .map_response(|mut response: Response<_>| {
            if last.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(|body| AnswerBody::of(body, Arc::clone(meter)))
        });
    let max_header_bytes = usize::try_from(max_header_bytes.get()).unwrap_or(usize::MAX);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_header_size(max_header_bytes)
        .max_buf_size(max_header_bytes.saturating_add(BEYOND_HEADERS))
        .header_read_timeout(FIRST_WORDS)
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
