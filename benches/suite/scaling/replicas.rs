//! Instances on one PostgreSQL, which know nothing of each other.

use std::time::Duration;

use super::WARM;
use crate::{
    Result,
    environment::{CONNECTIONS, Ground, Running},
    load::Pressure,
    open_loop::{Plan, Tally},
    process::Place,
};

/// How many there are.
const COUNTS: [usize; 3] = [1, 2, 3];

/// Checks a second of each: twice each key, and far from what one can answer.
const RATE: f64 = 2_000.0;

/// Records are soon to be asked for again: what is a matter of minutes by default
/// can be seen in seconds.
const SETTINGS: [(&str, &str); 4] = [
    ("CACHE__FRESH_FOR", "1s"),
    ("CACHE__FEED_FRESH_FOR", "1s"),
    ("CHECK__TIMEOUT", "5s"),
    ("STORE__GUARD__QUERY_TIMEOUT", "2s"),
];

/// So many instances, of which each is asked for the same keys.
pub(super) struct Replicas {
    pub(super) each: Vec<Replica>,
}

/// What one asked the store, and how long its answers took.
pub(super) struct Replica {
    /// Queries while all keys were asked for the first time, and keys in them.
    pub(super) cold: [f64; 2],
    /// Queries a second after that, and keys in them.
    pub(super) steady: [f64; 2],
    pub(super) tally: Tally,
}

pub(super) fn measure(ground: &Ground, each: Duration) -> Result<Vec<Replicas>> {
    COUNTS.iter().map(|&count| together(ground, count, each)).collect()
}

fn together(ground: &Ground, count: usize, lasts: Duration) -> Result<Replicas> {
    let start = |_| ground.serve(Place::Served, None, &SETTINGS);
    let all = (0..count).map(start).collect::<Result<Vec<_>>>()?;
    let requests = ground.requests(0..WARM)?;
    let load = |lasts| {
        let flow = |it: &Running| it.flow(&requests, Pressure::Rate(RATE), CONNECTIONS);
        let flows = all.iter().map(flow).collect();
        let before = all.iter().map(asked).collect::<Result<Vec<_>>>()?;
        let tallies = Plan { flows, lasts }.run()?;
        let after = all.iter().map(asked).collect::<Result<Vec<_>>>()?;
        let grown = before
            .iter()
            .zip(after)
            .map(|(before, after)| std::array::from_fn::<_, 2, _>(|of| after[of] - before[of]));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((tallies, grown.collect::<Vec<_>>()))
    };
    // Each key once.
    let (_, cold) = load(Duration::from_millis(500))?;
    // In the first second none is to be asked for again; nor are all in the next.
    load(Duration::from_secs(2))?;
    let lasts = lasts.max(Duration::from_secs(2));
    let (tallies, steady) = load(lasts)?;
    let each = tallies.into_iter().zip(cold.into_iter().zip(steady));
    let each = each.map(|(tally, (cold, steady))| {
        let steady = steady.map(|count| count / lasts.as_secs_f64());
        Ok(Replica { cold, steady, tally: tally.all_granted()? })
    });
    Ok(Replicas { each: each.collect::<Result<_>>()? })
}

/// How many queries it has sent to the store so far, and for how many keys.
fn asked(running: &Running) -> Result<[f64; 2]> {
    let counted = running.service.counted()?;
    Ok(["keystead_store_queries_total", "keystead_store_lookups_total"]
        .map(|name| counted.sum(name, &[])))
}
