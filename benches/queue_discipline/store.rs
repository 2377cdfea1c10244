//! The store: how long a query takes. Times are in milliseconds.

use crate::random::Random;

/// There and back.
const NETWORK: f64 = 1.0;

/// What a query costs the server and the driver, alone: measured on PostgreSQL
/// 15 with a million keys, on two cores. See `--measure`.
const QUERY: f64 = 0.08;

/// What each key in it costs.
const KEY: f64 = 0.011;

/// How many queries are served at once without slowing each other down.
/// Measured with 1, 4 and 8: the time of a query is in proportion to how many
/// there are beyond.
const CORES: f64 = 2.0;

/// The spread of the measured times, as the standard deviation of their
/// logarithm: p50 is 0.88 of the mean, p99 is 2.8 times it (measured: 0.85 to
/// 0.89, and 3.0 to 3.8 beside other work).
const SPREAD: f64 = 0.5;

/// The mean time of a query about `keys`, one of `busy` at the server.
fn mean(keys: f64, busy: f64) -> f64 {
    NETWORK + (QUERY + KEY * keys) * (busy / CORES).max(1.0)
}

/// How many keys `places` can look up in a second at most, `batch` at a time.
pub(crate) fn capacity(places: f64, batch: f64) -> f64 {
    places * batch / mean(batch, places) * 1e3
}

/// How long one query takes at a server that is `slowed` times slower.
pub(crate) fn draw(random: &mut Random, keys: f64, busy: f64, slowed: f64) -> f64 {
    let normal = (-2.0 * random.unit().ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos();
    mean(keys, busy) * slowed * (SPREAD * normal - SPREAD * SPREAD / 2.0).exp()
}
