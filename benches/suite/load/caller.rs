//! Those who ask.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{self, Connection, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request};
use tokio::{
    net::TcpStream,
    runtime::Builder,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::Shared;
use crate::Result;

/// How many bytes of answers a connection may have under way.
const WINDOW: u32 = 1 << 24;

/// How many requests may be under way at a rate that is not kept up with.
const MOST_UNDER_WAY: usize = 10_000;

/// An answer to one call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The `grpc-status`.
    pub(crate) status: i32,
    /// The message without the five bytes before it; empty if there is none.
    pub(crate) message: Bytes,
    /// Without a message, the headers: they are all there is.
    pub(crate) trailers: HeaderMap,
}

/// Asks once, on a connection of its own.
pub(crate) fn ask(address: SocketAddr, path: &str, frame: Vec<u8>) -> Result<Answer> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (sender, connection) = connect(address).await?;
        tokio::select! {
            ended = connection => Err(format!("the connection ended: {ended:?}").into()),
            answer = call(sender, path, frame.into()) => answer,
        }
    })
}

/// A connection, and what must be awaited while it is used.
pub(crate) async fn connect(
    address: SocketAddr,
) -> Result<(SendRequest<Bytes>, Connection<TcpStream>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    Ok(builder.enable_push(false).handshake(stream).await?)
}

/// One request after the other, until the end.
pub(super) async fn in_turn(shared: Arc<Shared>) -> Result<()> {
    while let Some(frame) = shared.next() {
        let began = Instant::now();
        let answer = call(shared.turn(), &shared.path, frame).await?;
        shared.saw(answer.status, began.elapsed());
    }
    Ok(())
}

/// So many requests a second until the end, or until too many are under way.
pub(super) async fn at_rate(rate: f64, shared: Arc<Shared>) -> Result<()> {
    let distance = Duration::from_secs_f64(1.0 / rate);
    let mut due = Instant::now();
    let mut under_way = JoinSet::new();
    loop {
        sleep_until(due).await;
        let Some(frame) = shared.next() else { break };
        while under_way.len() >= MOST_UNDER_WAY {
            under_way.join_next().await.ok_or("nothing is under way")???;
        }
        let shared = Arc::clone(&shared);
        under_way.spawn(async move {
            let began = Instant::now();
            let answer = call(shared.turn(), &shared.path, frame).await?;
            shared.saw(answer.status, began.elapsed());
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
        while let Some(ended) = under_way.try_join_next() {
            ended??;
        }
        due += distance;
    }
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    Ok(())
}

/// Calls a method with a framed message.
pub(crate) async fn call(sender: SendRequest<Bytes>, path: &str, frame: Bytes) -> Result<Answer> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("http://keystead{path}").parse()?;
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));

    let (response, mut body) = sender.ready().await?.send_request(request, false)?;
    body.send_data(frame, true)?;
    let response = response.await?;
    if response.status() != http::StatusCode::OK {
        return Err(format!("HTTP {}", response.status()).into());
    }
    let (head, mut body) = response.into_parts();
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let status = status(&trailers)?;
    message.advance(message.len().min(5));
    Ok(Answer { status, message: message.freeze(), trailers })
}

fn status(headers: &HeaderMap) -> Result<i32> {
    let status = headers.get("grpc-status").ok_or("an answer without a grpc-status")?;
    Ok(status.to_str()?.parse()?)
}
