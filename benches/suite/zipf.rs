//! How many checks find their key in memory, when there is room for some of the
//! keys only.
//!
//! Traffic is Zipf's: the key at rank `r` is asked for in proportion to `r^-s`, each
//! time independently. The service's own memory is filled as the service fills it,
//! a record put in at each miss. Beside it stand the same traffic on a cache that
//! evicts what was used least recently, and the most that any cache can reach that
//! does not know the future: the share of the hottest keys it has room for.

use std::{num::NonZeroUsize, sync::Arc, thread, time::Duration};

use crate::{
    Result, Run, format,
    population::{self, Kind},
    report::{Axis, Chart, Line, Section, Table},
};
use keystead::{
    cache::{CacheConfig, Coverage, Memory},
    key::Digest,
    store::Answer,
    suspect::{SuspectConfig, Suspicion},
    time::Clock,
};

/// Flat, as the literature finds for the web, and steep.
const SKEWS: [f64; 3] = [0.8, 0.99, 1.2];

/// Room, as a share of the keys.
const CAPACITIES: [f64; 5] = [0.01, 0.05, 0.10, 0.25, 0.50];

/// The part `zipf`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let plan = if run.quick {
        Plan { keys: 100_000, checks: 300_000 }
    } else {
        Plan { keys: 1_000_000, checks: 2_000_000 }
    };
    let measured = all(plan)?;
    let percent = |ratio: f64| format!("{:.1} %", 100.0 * ratio);
    let mut table = Table::new("", &["skew", "room", "Keystead", "LRU", "the most possible"]);
    for it in &measured {
        // No cache of so many keys could be better, chance aside.
        assert!(it.keystead > 0.0 && it.keystead < it.best + 0.01, "it cannot be so: {it:?}");
        table.rows.push(vec![
            format!("{}", it.skew),
            percent(it.capacity),
            percent(it.keystead),
            percent(it.lru),
            percent(it.best),
        ]);
    }
    let lines = SKEWS.iter().flat_map(|&skew| {
        let line = |name: &str, ratio: fn(&Measured) -> f64| {
            let here = measured.iter().filter(|it| it.skew.to_bits() == skew.to_bits());
            let points = here.map(|it| (100.0 * it.capacity, 100.0 * ratio(it))).collect();
            Line { name: format!("{name}, skew {skew}"), points }
        };
        [line("Keystead", |it| it.keystead), line("the most possible", |it| it.best)]
    });
    let chart = Chart {
        file: "zipf".to_owned(),
        title: "Checks that find their key in memory".to_owned(),
        x: Axis::linear("room for so many of the keys, %"),
        y: Axis::linear("hits, %"),
        lines: lines.collect(),
    };
    Ok(Section {
        title: "Hits against room".to_owned(),
        intro: intro(plan),
        tables: vec![table],
        charts: vec![chart],
        ..Section::default()
    })
}

fn intro(plan: Plan) -> String {
    format!(
        "How many checks find their key in memory when `cache.max_entries` has room for a part of {keys} keys alone. The \
         key at rank *r* is asked for in proportion to *r* to the power of minus the skew. Keystead is the memory of the service \
         itself, into which each miss puts its record; LRU is simulated beside it with the same traffic; the most possible is \
         the share of the traffic that the hottest keys have for which there is room. {checks} checks are counted, after as many \
         others, and after each key once, so that no cache begins with room left.",
        keys = format::count(plan.keys as u64),
        checks = format::count(plan.checks as u64),
    )
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Different keys.
    keys: usize,
    /// Checks that are counted. As many go before that are not, and before those
    /// each key once, so that no cache has room left.
    checks: usize,
}

/// The hit ratios with one skew and one capacity, each from 0 to 1.
#[derive(Debug, Clone, Copy)]
struct Measured {
    skew: f64,
    /// Room, as a share of the keys.
    capacity: f64,
    keystead: f64,
    lru: f64,
    best: f64,
}

/// All skews with all capacities.
fn all(plan: Plan) -> Result<Vec<Measured>> {
    let digests: Vec<Digest> = (0..plan.keys as u64).map(population::digest).collect();
    let digests = &digests[..];
    let measured: Vec<std::result::Result<Vec<Measured>, String>> = thread::scope(|scope| {
        let threads = SKEWS.map(|skew| {
            scope.spawn(move || with_skew(skew, plan, digests).map_err(|error| error.to_string()))
        });
        let joined = threads
            .map(|thread| thread.join().unwrap_or_else(|died| std::panic::resume_unwind(died)));
        joined.into()
    });
    let measured = measured.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(measured.concat())
}

fn with_skew(skew: f64, plan: Plan, digests: &[Digest]) -> Result<Vec<Measured>> {
    let popularity = Popularity::new(plan.keys, skew);
    let mut random = Random(skew.to_bits());
    // Ranks are keys, as digests have no order. Each key once, then traffic.
    let mut all: Vec<u32> = (0..u32::try_from(plan.keys)?).collect();
    random.shuffle(&mut all);
    let traffic: Vec<u32> =
        (0..2 * plan.checks).map(|_| popularity.draw(random.fraction())).collect();
    let (before, counted) = traffic.split_at(plan.checks);
    let before: Vec<u32> = [&all[..], before].concat();

    let each = CAPACITIES.map(|capacity| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "below 2^32"
        )]
        let room = (plan.keys as f64 * capacity) as usize;
        let mut keystead = Real::new(room, digests)?;
        let mut lru = Lru::new(room, plan.keys);
        Ok(Measured {
            skew,
            capacity,
            keystead: ratio(&before, counted, |key| keystead.asked(key)),
            lru: ratio(&before, counted, |key| lru.asked(key)),
            best: popularity.share_of_hottest(room),
        })
    });
    each.into_iter().collect()
}

/// The share of `counted` for which `hits` says true.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ratio(before: &[u32], counted: &[u32], mut hits: impl FnMut(u32) -> bool) -> f64 {
    for key in before {
        hits(*key);
    }
    let hit = counted.iter().filter(|key| hits(**key)).count();
    hit as f64 / counted.len() as f64
}

/// How often each rank is asked for.
struct Popularity {
    /// Of each rank: the share of all traffic that it and the hotter ones have.
    up_to: Vec<f64>,
}

impl Popularity {
    fn new(keys: usize, skew: f64) -> Self {
        let mut sum = 0.0;
        let mut up_to: Vec<f64> = (1..=keys)
            .map(|rank| {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
                let rank = rank as f64;
                sum += rank.powf(-skew);
                sum
            })
            .collect();
        for share in &mut up_to {
            *share /= sum;
        }
        Self { up_to }
    }

    fn draw(&self, fraction: f64) -> u32 {
        let rank = self.up_to.partition_point(|share| *share <= fraction);
        u32::try_from(rank.min(self.up_to.len() - 1)).unwrap_or(u32::MAX)
    }

    fn share_of_hottest(&self, count: usize) -> f64 {
        count.checked_sub(1).map_or(0.0, |last| self.up_to[last])
    }
}

/// The memory of the service.
struct Real<'a> {
    memory: Memory,
    digests: &'a [Digest],
    answer: Answer,
    clock: Clock,
}

impl<'a> Real<'a> {
    fn new(room: usize, digests: &'a [Digest]) -> Result<Self> {
        let clock = Clock::System;
        let max_entries = NonZeroUsize::new(room).ok_or("no room")?;
        let config = CacheConfig { max_entries, ..CacheConfig::default() };
        let coverage = Arc::new(Coverage::new(Duration::from_secs(1)));
        let suspicion = Arc::new(Suspicion::new(SuspectConfig::default()));
        let memory = Memory::new(config, coverage, suspicion, clock.clone());
        let answer = population::answer(&population::record(Kind::Typical, 0, clock.wall())?);
        Ok(Self { memory, digests, answer, clock })
    }

    /// Whether it was there. It is now, unless the memory would not have it.
    fn asked(&mut self, key: u32) -> bool {
        let digest = &self.digests[key as usize];
        let now = self.clock.monotonic();
        let hit = self.memory.look(digest, now).is_some();
        if !hit {
            let taken = self.memory.take(*digest, &self.answer, now);
            assert!(taken.is_ok(), "nothing contradicts the record");
        }
        hit
    }
}

/// A cache that evicts what was used least recently: a ring of keys, in the order
/// of their last use.
struct Lru {
    room: usize,
    held: usize,
    /// Of each key, which was used next after it and last before it; itself when it
    /// is not held. The last place of both is the head of the ring.
    newer: Vec<u32>,
    older: Vec<u32>,
}

impl Lru {
    fn new(room: usize, keys: usize) -> Self {
        let alone: Vec<u32> = (0..=u32::try_from(keys).unwrap_or(u32::MAX - 1)).collect();
        Self { room, held: 0, newer: alone.clone(), older: alone }
    }

    fn asked(&mut self, key: u32) -> bool {
        let head = u32::try_from(self.newer.len() - 1).unwrap_or(u32::MAX);
        let hit = self.newer[key as usize] != key;
        if hit {
            self.take_out(key);
        } else if self.held == self.room {
            // After the head comes the oldest.
            self.take_out(self.newer[head as usize]);
        } else {
            self.held += 1;
        }
        let newest = self.older[head as usize];
        self.newer[newest as usize] = key;
        self.older[key as usize] = newest;
        self.newer[key as usize] = head;
        self.older[head as usize] = key;
        hit
    }

    fn take_out(&mut self, key: u32) {
        let (newer, older) = (self.newer[key as usize], self.older[key as usize]);
        self.newer[older as usize] = newer;
        self.older[newer as usize] = older;
        self.newer[key as usize] = key;
        self.older[key as usize] = key;
    }
}

/// The same numbers in each run: `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1, with 53 bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn shuffle(&mut self, all: &mut [u32]) {
        for at in (1..all.len()).rev() {
            #[expect(clippy::cast_possible_truncation, reason = "below `at`")]
            let other = (self.next() % (at as u64 + 1)) as usize;
            all.swap(at, other);
        }
    }
}
