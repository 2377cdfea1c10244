//! How long the slowest of warm checks take, and what else may go on meanwhile
//! without making them slower: misses, a snapshot, a flood of made-up keys, a store
//! that hangs.

mod told;

use std::{fmt, path::PathBuf, time::Duration};

use crate::{
    Result, Run,
    ground::{CONNECTIONS, Capacity, Filled, Ground, PATIENT, Running},
    keystead::Counted,
    load::Pressure,
    report::Section,
    steady::{Plan, Tally},
};

/// Keys that are asked for by turns: few enough that no miss of the processor's
/// caches is part of what is compared.
const WARM: usize = 1_000;

/// How many keys are in memory: what a snapshot has to write.
const IN_MEMORY: u64 = 300_000;

/// Misses a second.
const MISSES: f64 = 1_000.0;

/// Shares of capacity.
const SHARES: [f64; 2] = [0.5, 0.8];

/// How much of capacity warm checks and a flood take together.
const FLOODED: f64 = 0.9;

/// How long a service is loaded before it counts: what it does first takes longer.
const WARM_UP: Duration = Duration::from_millis(300);

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Nothing,
    Misses,
    Snapshot,
    Flood,
    Hang,
}

/// What came of a case at one share of capacity.
struct Cell {
    case: Case,
    /// How much of capacity warm checks are.
    share: f64,
    /// What is sent besides, a second.
    besides: f64,
    warm: Tally,
    /// What was counted of it meanwhile: misses, snapshots, refusals, failed lookups.
    events: f64,
    /// Misses that were refused: whether the store keeps up is not asked here.
    refused: u64,
    /// Queries to the store meanwhile.
    queries: f64,
}

/// A case with nothing just before it.
struct Pair {
    normal: Cell,
    disturbed: Cell,
}

struct Stage {
    ground: Ground,
    filled: Filled,
    warm: PathBuf,
    unasked: PathBuf,
    forged: PathBuf,
    capacity: Capacity,
    each: Duration,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing else",
            Self::Misses => "misses",
            Self::Snapshot => "snapshots are written",
            Self::Flood => "a flood of made-up keys",
            Self::Hang => "the store hangs",
        })
    }
}

impl Case {
    const DISTURBED: [Self; 4] = [Self::Misses, Self::Snapshot, Self::Flood, Self::Hang];

    /// What the service is told besides where its store is.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Nothing | Self::Flood => &[("SNAPSHOT__EVERY", "1h")],
            Self::Misses => &PATIENT,
            Self::Snapshot => &[("SNAPSHOT__EVERY", "1s")],
            Self::Hang => &[
                ("SNAPSHOT__EVERY", "1h"),
                ("CACHE__FRESH_FOR", "1s"),
                ("CACHE__FEED_FRESH_FOR", "1s"),
            ],
        }
    }
}

/// The part `tail`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (each, shares) = match run {
        Run { quick: true } => (Duration::from_millis(1_500), &SHARES[..1]),
        Run { quick: false } => (Duration::from_secs(9), &SHARES[..]),
    };
    let mut stage = Stage::set(each)?;
    stage.capacity = {
        let running = stage.serve(Case::Nothing)?;
        running.capacity(&stage.warm, each.max(Duration::from_secs(2)))?
    };
    let mut pairs = Vec::new();
    for &share in shares {
        for case in Case::DISTURBED {
            let normal = stage.cell(Case::Nothing, share)?;
            pairs.push(Pair { normal, disturbed: stage.cell(case, share)? });
        }
    }
    Ok(told::section(&pairs, stage.capacity, each))
}

impl Stage {
    fn set(each: Duration) -> Result<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
        let misses = (MISSES * each.as_secs_f64()) as usize + 1;
        let ground = Ground::set(WARM + misses)?;
        Ok(Self {
            filled: ground.fill(WARM, IN_MEMORY)?,
            warm: ground.requests(0..WARM)?,
            unasked: ground.requests(WARM..WARM + misses)?,
            forged: ground.forged()?,
            ground,
            capacity: Capacity::default(),
            each,
        })
    }

    /// A service that has answered for a while. Each cell has one of its own, so that
    /// it finds nothing that another has left.
    fn serve(&self, case: Case) -> Result<Running> {
        let running = self.ground.serve(Some(&self.filled), case.settings())?;
        running.capacity(&self.warm, WARM_UP)?;
        Ok(running)
    }

    fn cell(&self, case: Case, share: f64) -> Result<Cell> {
        let running = self.serve(case)?;
        let mut flows = vec![running.flow(
            &self.warm,
            Pressure::Rate(self.capacity.per_second * share),
            CONNECTIONS,
        )];
        let also = match case {
            Case::Misses => Some((&self.unasked, MISSES)),
            Case::Flood => Some((&self.forged, self.capacity.per_second * (FLOODED - share))),
            Case::Nothing | Case::Snapshot | Case::Hang => None,
        };
        if let Some((requests, rate)) = also {
            flows.push(running.flow(requests, Pressure::Rate(rate), CONNECTIONS));
        }
        let before = running.service.counted()?;
        if case == Case::Hang {
            self.ground.postgres.hang()?;
        }
        let done = Plan { flows, lasts: self.each }.run(|| Ok(()));
        let after = running.service.counted();
        if case == Case::Hang {
            self.ground.postgres.go_on()?;
        }
        let (tallies, ()) = done?;
        let grown = Grown { before, after: after? };
        let besides = tallies.get(1).copied().unwrap_or_default();
        let warm = tallies[0].all_granted()?;
        Ok(Cell {
            case,
            share,
            besides: also.map_or(0.0, |(_, rate)| rate),
            warm,
            events: grown.check(case, &warm, &besides)?,
            refused: if case == Case::Misses { besides.others } else { 0 },
            queries: grown.of("keystead_store_queries_total", &[]),
        })
    }
}

/// What a service has counted during a cell.
struct Grown {
    before: Counted,
    after: Counted,
}

impl Grown {
    fn of(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.after.grown(&self.before, name, labels)
    }

    /// Fails unless what was to go on did, and the service has counted the same
    /// answers as the loader. How much of it went on.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn check(&self, case: Case, warm: &Tally, besides: &Tally) -> Result<f64> {
        let checks = |code| self.of("keystead_checks_total", &[("code", code)]);
        let granted = (warm.granted + besides.granted) as f64;
        let sent = (besides.granted + besides.others) as f64;
        let same = |counted: f64, sent: f64| (counted - sent).abs() < 0.5;
        let lookups = |result| self.of("keystead_cache_lookups_total", &[("result", result)]);
        let events = match case {
            Case::Nothing => 0.0,
            Case::Misses => lookups("miss"),
            Case::Snapshot => self.of("keystead_snapshot_writes_total", &[("result", "written")]),
            Case::Flood => checks("UNAUTHENTICATED"),
            Case::Hang => self.of("keystead_store_lookups_total", &[("result", "error")]),
        };
        let went_on = match case {
            Case::Nothing => true,
            Case::Misses => same(events, sent),
            Case::Flood => same(events, sent) && besides.granted == 0,
            Case::Snapshot | Case::Hang => events >= 1.0,
        };
        // Nothing but misses is asked for in the store.
        let all_known = case == Case::Misses || same(lookups("miss"), 0.0);
        if !went_on || !all_known || !same(checks("OK"), granted) {
            let counted = checks("OK");
            return Err(format!(
                "{case}: not as it was to be: {events} of it, {counted} granted, {} misses, \
                 where the loader saw {warm:?} and besides {besides:?}",
                lookups("miss"),
            )
            .into());
        }
        Ok(events)
    }
}
