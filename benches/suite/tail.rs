//! How long the slowest of warm checks take, and what else may go on meanwhile
//! without making them slower: misses, a snapshot, a flood of made-up keys, a store
//! that hangs.

mod told;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use prost::Message as _;

use crate::{
    Result, Run,
    bare::{self, Layout, Speaks},
    ground::{CONNECTIONS, Filled, Ground, PATIENT, Running, UNDER_WAY, flow},
    keystead::Counted,
    load::Pressure,
    process::Place,
    report::Section,
    steady::{Plan, Tally},
    typical,
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

/// How much of capacity a flood takes besides.
const FLOOD: f64 = 0.1;

/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(1_500);

/// How long a service is loaded without rest before it counts: what it does first takes
/// longer.
const WARM_UP: Duration = Duration::from_millis(200);

/// How long it is then loaded so to learn its capacity, which on a shared machine is
/// another every minute.
const PROBED: Duration = Duration::from_millis(300);

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// The same load on a bare server: what the machine itself does to it.
    Bare,
    Nothing,
    Misses,
    Snapshot,
    /// As many warm checks more as there are made-up keys in a flood.
    More,
    Flood,
    Hang,
}

/// What came of a case during one turn.
struct Cell {
    /// Answers a second without rest, of this process when it had just begun.
    capacity: f64,
    /// Warm checks that were due, a second.
    due: f64,
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

/// All turns of a case at one share of capacity.
struct Row {
    case: Case,
    share: f64,
    cells: Vec<Cell>,
}

struct Stage {
    ground: Ground,
    filled: Filled,
    warm: PathBuf,
    /// For each turn of a process, others.
    unasked: Vec<PathBuf>,
    forged: PathBuf,
    /// What a bare server answers.
    answer: PathBuf,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "a bare server, nothing else",
            Self::Nothing => "nothing else",
            Self::Misses => "misses",
            Self::Snapshot => "snapshots are written",
            Self::More => "more warm checks",
            Self::Flood => "a flood of made-up keys",
            Self::Hang => "the store hangs",
        })
    }
}

impl Case {
    const ALL: [Self; 7] = [
        Self::Bare,
        Self::Nothing,
        Self::Misses,
        Self::Snapshot,
        Self::More,
        Self::Flood,
        Self::Hang,
    ];

    /// What the service is told besides where its store is.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bare | Self::Nothing | Self::More | Self::Flood => &[("SNAPSHOT__EVERY", "1h")],
            Self::Misses => &PATIENT,
            Self::Snapshot => &[("SNAPSHOT__EVERY", "1s")],
            Self::Hang => &[
                ("SNAPSHOT__EVERY", "1h"),
                ("CACHE__FRESH_FOR", "1s"),
                ("CACHE__FEED_FRESH_FOR", "1s"),
                ("CACHE__REVALIDATE_FOR", "1s"),
            ],
        }
    }
}

/// The part `tail`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (rounds, turns, shares) = match run {
        Run { quick: true } => (1, 2, &SHARES[..1]),
        Run { quick: false } => (3, 4, &SHARES[..]),
    };
    let stage = Stage::set(turns)?;
    let mut rows = Vec::new();
    for &share in shares {
        let mut here = Case::ALL.map(|case| Row { case, share, cells: Vec::new() });
        for _ in 0..rounds {
            for row in &mut here {
                row.cells.extend(stage.cells(row.case, share)?);
            }
        }
        rows.extend(here);
    }
    Ok(told::section(&rows, rounds * turns))
}

impl Stage {
    fn set(turns: usize) -> Result<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands")]
        let misses = (MISSES * TURN.as_secs_f64()) as usize + 1;
        let ground = Ground::set(WARM + turns * misses)?;
        let unasked = |turn| {
            let first = WARM + turn * misses;
            ground.requests(first..first + misses)
        };
        Ok(Self {
            filled: ground.fill(WARM, IN_MEMORY)?,
            warm: ground.requests(0..WARM)?,
            unasked: (0..turns).map(unasked).collect::<Result<_>>()?,
            forged: ground.forged()?,
            answer: ground
                .file("answer", [&typical::answer()?.encode_to_vec().into()].into_iter())?,
            ground,
        })
    }

    /// Lets a server answer warm checks without rest for a while. How many it answers a
    /// second.
    fn capacity(&self, address: SocketAddr) -> Result<f64> {
        let mut per_second = 0.0;
        for lasts in [WARM_UP, PROBED] {
            let flows = vec![flow(address, &self.warm, Pressure::UnderWay(UNDER_WAY), CONNECTIONS)];
            let (tallies, ()) = Plan { flows, lasts }.run(|| Ok(()))?;
            per_second = tallies[0].all_granted()?.per_second();
        }
        Ok(per_second)
    }

    /// The turns of a process: each has its own, so that it finds nothing that another
    /// case has left.
    fn cells(&self, case: Case, share: f64) -> Result<Vec<Cell>> {
        let turns = 0..self.unasked.len();
        if case == Case::Bare {
            let (_process, address) =
                bare::start(Speaks::Keystead, Layout::TonicOnCurrent, &self.answer, Place::Served)?;
            let capacity = self.capacity(address)?;
            return turns.map(|_| self.bare(address, capacity, share)).collect();
        }
        let running = self.ground.serve(Some(&self.filled), case.settings())?;
        let capacity = self.capacity(running.service.grpc)?;
        if case == Case::Hang {
            self.ground.postgres.hang()?;
        }
        let cells = turns.map(|turn| self.cell(case, &running, capacity, share, turn));
        let cells: Result<Vec<_>> = cells.collect();
        if case == Case::Hang {
            self.ground.postgres.go_on()?;
        }
        let cells = cells?;
        // Not in each turn: a snapshot may take longer, and once the breaker is open nobody
        // asks the store.
        let went_on = cells.iter().any(|cell| cell.events >= 1.0);
        if matches!(case, Case::Snapshot | Case::Hang) && !went_on {
            return Err(format!("{case}: it did not go on").into());
        }
        Ok(cells)
    }

    fn bare(&self, address: SocketAddr, capacity: f64, share: f64) -> Result<Cell> {
        let flows = vec![flow(address, &self.warm, Pressure::Rate(capacity * share), CONNECTIONS)];
        let (tallies, ()) = Plan { flows, lasts: TURN }.run(|| Ok(()))?;
        let warm = tallies[0].all_granted()?;
        let due = capacity * share;
        Ok(Cell { capacity, due, besides: 0.0, warm, events: 0.0, refused: 0, queries: 0.0 })
    }

    fn cell(
        &self,
        case: Case,
        running: &Running,
        capacity: f64,
        share: f64,
        turn: usize,
    ) -> Result<Cell> {
        let address = running.service.grpc;
        let mut flows =
            vec![flow(address, &self.warm, Pressure::Rate(capacity * share), CONNECTIONS)];
        let also = match case {
            Case::Misses => Some((&self.unasked[turn], MISSES)),
            Case::More => Some((&self.warm, capacity * FLOOD)),
            Case::Flood => Some((&self.forged, capacity * FLOOD)),
            Case::Bare | Case::Nothing | Case::Snapshot | Case::Hang => None,
        };
        if let Some((requests, rate)) = also {
            flows.push(flow(address, requests, Pressure::Rate(rate), CONNECTIONS));
        }
        let before = running.service.counted()?;
        let (tallies, ()) = Plan { flows, lasts: TURN }.run(|| Ok(()))?;
        let grown = Grown { before, after: running.service.counted()? };
        let besides = tallies.get(1).copied().unwrap_or_default();
        let warm = tallies[0].all_granted()?;
        let events = grown.check(case, &warm, &besides)?;
        Ok(Cell {
            capacity,
            due: capacity * share,
            besides: also.map_or(0.0, |(_, rate)| rate),
            warm,
            events,
            refused: if case == Case::Misses { besides.others } else { 0 },
            queries: grown.of("keystead_store_queries_total", &[]),
        })
    }
}

/// What a service has counted during a turn.
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
            Case::Bare | Case::Nothing => 0.0,
            Case::More => sent,
            Case::Misses => lookups("miss"),
            Case::Snapshot => self.of("keystead_snapshot_writes_total", &[("result", "written")]),
            Case::Flood => checks("UNAUTHENTICATED"),
            Case::Hang => self.of("keystead_store_lookups_total", &[("result", "error")]),
        };
        let went_on = match case {
            Case::Bare | Case::Nothing | Case::More | Case::Snapshot | Case::Hang => true,
            Case::Misses => same(events, sent),
            Case::Flood => same(events, sent) && besides.granted == 0,
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
