//! How fast a cold instance gets its keys from PostgreSQL when all are asked for at
//! once, and how much it asks of PostgreSQL meanwhile.

mod callers;
mod naive;
mod section;

use std::time::{Duration, Instant};

use crate::{
    Result, Run,
    environment::{Ground, Key},
    figures::{count, grouped},
    grpc::block_on,
    process::Place,
    report::Section,
};

/// `store.guard.max_in_flight`, and the connections of the baseline.
const CONNECTIONS: usize = 4;

/// How many callers ask at the same time. 1,000 are as many as four queries of
/// `fill.batch_max` ask for; of 4,000, those that come last find no place in
/// `check.timeout` unless 27,000 are answered each second.
const LOADS: [usize; 4] = [500, 1_000, 2_000, 4_000];

/// The part `refill`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (keys, slice, loads) =
        if run.quick { (20_000, 2_000, &LOADS[1..3]) } else { (100_000, 10_000, &LOADS[..]) };
    let times = if run.quick { 1 } else { 2 };
    let ground = Ground::set(Place::Anywhere, usize::try_from(keys)?)?;
    // On one thread, so that callers leave the other cores to what they call.
    let rounds = block_on(async {
        let mut rounds = Vec::new();
        for &callers in (0..times).flat_map(|_| loads) {
            // Others than in the round before.
            let some = &ground.stored[rounds.len() * slice..][..slice];
            let naive = naively(&ground, some).await?;
            let (keystead, refused) = by_keystead(&ground, callers).await?;
            rounds.push(Round { callers, naive, keystead, refused });
        }
        Ok(rounds)
    })?;
    Ok(section::section(&rounds, keys))
}

/// What was measured in turns, so that what else goes on here hits both alike.
struct Round {
    callers: usize,
    naive: Answered,
    keystead: Answered,
    /// How often somebody was refused, and asked again.
    refused: u64,
}

/// Keys that were all answered.
struct Answered {
    keys: usize,
    took: Duration,
    queries: f64,
    /// How many queries were under way at the same time.
    most_at_once: usize,
}

impl Answered {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn per_second(&self) -> f64 {
        self.keys as f64 / self.took.as_secs_f64()
    }
}

/// A new instance is asked for all keys.
async fn by_keystead(ground: &Ground, callers: usize) -> Result<(Answered, u64)> {
    let settings = [("STORE__GUARD__MAX_IN_FLIGHT", "4")];
    let service = ground.program(Place::Anywhere, None, &settings)?.serve().await?;
    ground.network.most_at_once();
    let before = service.counted()?;
    let (took, refused) = callers::ask_all(service.grpc, callers, &ground.stored).await?;
    let most_at_once = ground.network.most_at_once();

    let told = service.counted()?;
    let checks = |labels: &[(&str, &str)]| told.sum("keystead_checks_total", labels);
    let keys = ground.stored.len();
    assert_eq!(grouped(checks(&[("code", "OK")])), count(keys as u64), "one answer each");
    service.check_held(keys as u64)?;
    let queries = told.grown(&before, "keystead_store_queries_total", &[]);
    Ok((Answered { keys, took, queries, most_at_once }, refused))
}

/// What a service does at a miss that has a pool of connections and nothing more.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn naively(ground: &Ground, keys: &[Key]) -> Result<Answered> {
    let clients = naive::connect(ground.network.address, CONNECTIONS).await?;
    ground.network.most_at_once();
    let began = Instant::now();
    naive::ask_all(&clients, keys).await?;
    let (took, most_at_once) = (began.elapsed(), ground.network.most_at_once());
    Ok(Answered { keys: keys.len(), took, queries: keys.len() as f64, most_at_once })
}
