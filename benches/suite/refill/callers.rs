//! Callers who ask for keys over gRPC.

use std::{
    cell::Cell,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{TryStreamExt, future::try_join_all, stream::FuturesUnordered};
use http::HeaderMap;
use tokio::time::sleep;
use tonic::Code;

use crate::environment::Key;
use crate::{Result, grpc::Channel, keystead::CHECK};

/// Over how many connections callers ask.
const CHANNELS: usize = 8;

/// Lets so many callers ask for each key until it is answered: how long all of it took, and how often
/// somebody was refused and asked again. Ends at once with any other answer.
pub(super) async fn ask_all(
    address: SocketAddr,
    callers: usize,
    keys: &[Key],
) -> Result<(Duration, u64)> {
    let channels = try_join_all((0..CHANNELS).map(|_| Channel::connect(address))).await?;
    let (next, refused) = (Cell::new(0), Cell::new(0));
    let (next, refused, channels) = (&next, &refused, &channels);
    let began = Instant::now();
    let callers = (0..callers).map(async |number| {
        let channel = &channels[number % CHANNELS];
        while let Some(key) = keys.get(next.replace(next.get() + 1)) {
            while let Some(hint) = ask(channel, key).await? {
                refused.set(refused.get() + 1);
                sleep(hint).await;
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
    callers.collect::<FuturesUnordered<_>>().try_collect::<()>().await?;
    Ok((began.elapsed(), refused.get()))
}

/// Asks once. `None` when the key was found good; when the service could not tell,
/// how long to wait before asking again.
async fn ask(channel: &Channel, key: &Key) -> Result<Option<Duration>> {
    let answer = channel.call(CHECK, key.request.clone()).await?;
    match Code::from(answer.status) {
        Code::Ok => {
            // After the tag and the length of the first field.
            let told = answer.message.get(2..).unwrap_or_default();
            assert!(told.starts_with(key.id.as_str().as_bytes()), "another key");
            Ok(None)
        }
        Code::Unavailable => {
            let hint = hint(&answer.trailers).ok_or("a refusal does not say when to come back")?;
            Ok(Some(hint))
        }
        other => Err(format!("a good key was answered with {other:?}").into()),
    }
}

fn hint(told: &HeaderMap) -> Option<Duration> {
    let millis = told.get("grpc-retry-pushback-ms")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis))
}
