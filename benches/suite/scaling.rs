//! How the cost of a check and the slowest of them grow with what there may be more
//! of: load, keys, connections, misses.

mod section;

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    Result, Run,
    environment::{Ground, PATIENT},
    h2load::{self, Cost},
    keystead::{CHECK, Service},
    load::{CONNECTIONS, Flow, Tally, load},
    process::Place,
    report::Section,
};

/// Keys that are asked for by turns, where their number is not what grows.
const WARM: usize = 1_000;

/// Offered load, as shares of capacity.
const RATES: [f64; 6] = [0.1, 0.3, 0.5, 0.7, 0.8, 0.9];

/// Keys in memory, all of which are asked for.
const KEYS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

const OVER: [usize; 4] = [1, 8, 64, 512];

/// Shares of misses.
const MISSES: [f64; 4] = [0.0, 0.001, 0.01, 0.1];

/// The share of capacity at which what is not load is made to grow.
const FIXED: f64 = 0.3;

/// The same where misses are: with the most of them, as many as PostgreSQL answers on
/// the core that it shares.
const WITH_MISSES: f64 = 0.1;

/// How many requests are sent to find out what a service can do.
const ALL_AT_ONCE: u32 = 200_000;

/// How long a service is loaded before it counts: what it does first takes longer.
const WARM_UP: Duration = Duration::from_millis(300);

/// What came of one load.
struct Point {
    /// What there is so much of.
    at: f64,
    /// Checks a second that were due.
    rate: f64,
    /// Microseconds of the service's CPU time for each check.
    micros: f64,
    /// How much of its core the service used.
    used: f64,
    warm: Tally,
    /// Misses beside them that were refused: the store did not keep up.
    refused: u64,
}

/// All that was measured.
struct Growth {
    capacity: Cost,
    rates: Vec<Point>,
    keys: Vec<Point>,
    connections: Vec<Point>,
    misses: Vec<Point>,
}

/// The part `scaling`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (each, rates, keys, over, misses) = match run {
        Run { quick: true } => {
            (Duration::from_millis(700), &RATES[1..4], &KEYS[..3], &OVER[..], &MISSES[1..])
        }
        Run { quick: false } => {
            (Duration::from_secs(5), &RATES[..], &KEYS[..], &OVER[..], &MISSES[..])
        }
    };
    // Capacity is known only later: enough for one that is above any that was seen.
    let unasked = share_of(400_000.0 * WITH_MISSES * MISSES.iter().sum::<f64>(), each);
    let ground = Ground::set(Place::Beside, WARM + unasked)?;
    let warm = ground.requests(0..WARM);
    let filled = ground.fill(WARM, KEYS[0])?;
    let running = ground.serve(Place::Served, Some(&filled), &PATIENT)?;
    let frame = ground.folder.path().join("check");
    fs::write(&frame, &warm[0])?;
    let capacity = || h2load::load(&running.process, running.grpc, CHECK, &frame, ALL_AT_ONCE);
    // What it does first takes longer.
    capacity()?;
    let capacity = capacity()?;
    let fixed = capacity.per_second * FIXED;

    let with_rate = |share: &f64| {
        let mut point =
            point(&running, &warm, None, capacity.per_second * share, CONNECTIONS, each)?;
        point.at = share * 100.0;
        Ok(point)
    };
    let over_connections = |count: &usize| {
        let mut point = point(&running, &warm, None, fixed, *count, each)?;
        point.at = f64::from(u32::try_from(*count)?);
        Ok(point)
    };
    let (rates, connections) = (
        rates.iter().map(with_rate).collect::<Result<_>>()?,
        over.iter().map(over_connections).collect::<Result<_>>()?,
    );
    let misses = with_misses(&ground, &running, misses, capacity.per_second * WITH_MISSES, each)?;
    drop(running);
    let with_keys = |count: &u64| in_memory(&ground, *count, fixed, each);
    let keys = keys.iter().map(with_keys).collect::<Result<_>>()?;
    let growth = Growth { capacity, rates, keys, connections, misses };
    Ok(section::section(&growth, each))
}

/// How many requests are due at this rate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
fn share_of(rate: f64, lasts: Duration) -> usize {
    (rate * lasts.as_secs_f64()).ceil() as usize
}

/// Offers one load. `besides` are other checks, with their rate.
fn point(
    running: &Service,
    requests: &Arc<[Bytes]>,
    besides: Option<(&Arc<[Bytes]>, f64)>,
    rate: f64,
    connections: usize,
    lasts: Duration,
) -> Result<Point> {
    let flow = |(messages, rate): (&Arc<[Bytes]>, f64)| Flow {
        address: running.grpc,
        messages: Arc::clone(messages),
        connections,
        rate,
    };
    let flows: Vec<_> = [(requests, rate)].into_iter().chain(besides).map(flow).collect();
    let done = load(&flows, lasts, || running.process.busy())?;
    let checks: u64 = done.tallies.iter().map(Tally::answers).sum();
    Ok(Point {
        at: 0.0,
        rate: flows.iter().map(|flow| flow.rate).sum(),
        micros: done.busy.as_secs_f64() * 1e6 / f64::from(u32::try_from(checks)?),
        used: done.share(),
        warm: done.tallies[0].all_granted()?,
        refused: done.tallies[1..].iter().map(|tally| tally.others).sum(),
    })
}

/// With other shares of checks of keys that nobody has asked for. The times are those of
/// the warm ones beside them.
fn with_misses(
    ground: &Ground,
    running: &Service,
    shares: &[f64],
    rate: f64,
    each: Duration,
) -> Result<Vec<Point>> {
    let warm = ground.requests(0..WARM);
    let mut from = WARM;
    let mut points = Vec::new();
    for share in shares {
        let count = share_of(rate * share, each);
        let unasked = ground.requests(from..from + count);
        from += count;
        let besides = (count > 0).then_some((&unasked, rate * share));
        let before = running.counted()?;
        let lasts = rate * (1.0 - share);
        let mut point = point(running, &warm, besides, lasts, CONNECTIONS, each)?;
        let missed = running.counted()?.grown(
            &before,
            "keystead_cache_lookups_total",
            &[("result", "miss")],
        );
        let sent = f64::from(u32::try_from(count)?);
        // The last one may be due just at the end.
        if (missed - sent).abs() > 1.5 {
            return Err(format!("{missed} of {sent} keys were not in memory").into());
        }
        point.at = share * 100.0;
        points.push(point);
    }
    Ok(points)
}

/// With so many keys in memory, all of which are asked for by turns.
fn in_memory(ground: &Ground, keys: u64, rate: f64, each: Duration) -> Result<Point> {
    let filled = ground.fill(WARM, keys)?;
    let running = ground.serve(Place::Served, Some(&filled), &PATIENT)?;
    point(&running, &filled.requests, None, rate, CONNECTIONS, WARM_UP)?;
    let mut point = point(&running, &filled.requests, None, rate, CONNECTIONS, each)?;
    point.at = f64::from(u32::try_from(keys)?);
    Ok(point)
}
