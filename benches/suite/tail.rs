//! How long the slowest of warm checks take, and what else may go on meanwhile
//! without making them slower: misses, a snapshot, a flood of made-up keys, a store
//! that hangs.
//!
//! Each case has a service of its own, with a core for itself; cases take turns. First the
//! rates are found at which the service uses a share of that core. Requests that come one
//! by one take more than those that find others to be read with, so that this is far from
//! what it answers without rest. That all warm checks are granted, and that what was to go
//! on did, is held against the service's own counters.

mod section;

use std::{fmt, fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    Result, Run,
    bare::{self, RUNTIMES, SERVICES},
    environment::{Filled, Ground, PATIENT},
    figures::median,
    keystead::{Counted, Service},
    load::{CONNECTIONS, Flow, Tally, load},
    process::{Place, Process},
    report::Section,
    typical,
};

/// Keys that are asked for by turns: few enough that no miss of the processor's
/// caches is part of what is compared.
const WARM: usize = 1_000;

/// How many keys are in memory: what a snapshot has to write, more than once while a
/// process lives.
const IN_MEMORY: u64 = 100_000;

/// Misses a second.
const MISSES: f64 = 1_000.0;

/// How much of its core the service is to use.
const SHARES: [f64; 2] = [0.5, 0.8];

/// How much more a flood sends, where the warm checks use all of the core.
const FLOOD: f64 = 0.1;

/// How long a turn lasts.
const TURN: Duration = Duration::from_secs(1);

/// How long a service is loaded before it counts: what it does first takes longer.
const WARM_UP: Duration = Duration::from_millis(200);

/// The first rate that is tried to find out which one a share of the core is: a second.
const FIRST_RATE: f64 = 20_000.0;

/// How long each rate is tried.
const TRIED: Duration = Duration::from_millis(500);

/// What goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// The same load on a bare server: what the machine itself does to it.
    Bare,
    Nothing,
    Misses,
    Snapshot,
    Flood,
    Hang,
}

/// What came of a case during one turn.
struct Cell {
    warm: Tally,
    /// How much of its core the server used.
    busy: f64,
    /// What was counted of it meanwhile: misses, snapshots, refusals, failed lookups.
    events: f64,
    /// Misses that were refused: whether the store keeps up is not asked here.
    refused: u64,
    /// Queries to the store meanwhile.
    queries: f64,
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// How much of its core the service uses so, if nothing else goes on.
    share: f64,
    /// Warm checks a second.
    rate: f64,
}

impl Load {
    /// Made-up keys a second in a flood.
    fn flood(self) -> f64 {
        self.rate / self.share * FLOOD
    }
}

/// All turns of a case under one load.
struct Row {
    case: Case,
    load: Load,
    cells: Vec<Cell>,
}

struct Stage {
    ground: Ground,
    filled: Filled,
    warm: Arc<[Bytes]>,
    /// For each turn of a process, others.
    unasked: Vec<Arc<[Bytes]>>,
    forged: Arc<[Bytes]>,
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
            Self::Flood => "a flood of made-up keys",
            Self::Hang => "the store hangs",
        })
    }
}

impl Case {
    const ALL: [Self; 6] =
        [Self::Bare, Self::Nothing, Self::Misses, Self::Snapshot, Self::Flood, Self::Hang];

    /// What the service is told besides where its store is.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bare | Self::Nothing | Self::Flood => &[("SNAPSHOT__EVERY", "1h")],
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
        Run { quick: true } => (1, 8, &SHARES[1..]),
        Run { quick: false } => (4, 6, &SHARES[..]),
    };
    let stage = Stage::set(turns)?;
    let mut rows = Vec::new();
    for &share in shares {
        let load = stage.load(share, 5 * rounds)?;
        let mut here = Case::ALL.map(|case| Row { case, load, cells: Vec::new() });
        for _ in 0..rounds {
            for row in &mut here {
                row.cells.extend(stage.cells(row.case, load)?);
            }
        }
        rows.extend(here);
    }
    Ok(section::section(&rows, rounds * turns))
}

impl Stage {
    fn set(turns: usize) -> Result<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands")]
        let misses = (MISSES * TURN.as_secs_f64()) as usize + 1;
        let ground = Ground::set(Place::Beside, WARM + turns * misses)?;
        let unasked = |turn| ground.requests(WARM + turn * misses..WARM + (turn + 1) * misses);
        let answer = ground.folder.path().join("answer");
        fs::write(&answer, typical::answer()?.encode_to_vec())?;
        Ok(Self {
            filled: ground.fill(WARM, IN_MEMORY)?,
            warm: ground.requests(0..WARM),
            unasked: (0..turns).map(unasked).collect(),
            forged: ground.forged()?,
            answer,
            ground,
        })
    }

    /// At how many warm checks a second the service uses this share of its core: the one
    /// in the middle of what so many tries end with. Each begins where the last one ended,
    /// as less is used for each check the more there are.
    fn load(&self, share: f64, tries: usize) -> Result<Load> {
        let settings = Case::Nothing.settings();
        let running = self.ground.serve(Place::Served, Some(&self.filled), settings)?;
        self.warm_up(running.grpc, FIRST_RATE)?;
        let (mut rate, mut found) = (FIRST_RATE, Vec::new());
        for _ in 0..tries {
            let flow = Self::flow(running.grpc, &self.warm, rate);
            let done = load(&[flow], TRIED, || running.process.busy())?;
            done.tallies[0].all_granted()?;
            rate *= (share / done.share()).min(1.5);
            found.push(rate);
        }
        // The first ones are on the way there.
        Ok(Load { share, rate: median(found.split_off(tries / 2)) })
    }

    fn flow(address: SocketAddr, messages: &Arc<[Bytes]>, rate: f64) -> Flow {
        Flow { address, messages: Arc::clone(messages), connections: CONNECTIONS, rate }
    }

    /// The turns of a process: each has its own, so that it finds nothing that another
    /// case has left.
    fn cells(&self, case: Case, load: Load) -> Result<Vec<Cell>> {
        let turns = 0..self.unasked.len();
        if case == Case::Bare {
            let (process, address) =
                bare::start(SERVICES[0], RUNTIMES[0], &self.answer, Place::Served)?;
            self.warm_up(address, load.rate)?;
            return turns.map(|_| self.bare(&process, address, load)).collect();
        }
        let running = self.ground.serve(Place::Served, Some(&self.filled), case.settings())?;
        self.warm_up(running.grpc, load.rate)?;
        if case == Case::Hang {
            self.ground.postgres.hang()?;
        }
        let cells = turns.map(|turn| self.cell(case, &running, load, turn));
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

    fn warm_up(&self, address: SocketAddr, rate: f64) -> Result<()> {
        load(&[Self::flow(address, &self.warm, rate)], WARM_UP, || Ok(Duration::ZERO)).map(drop)
    }

    fn bare(&self, process: &Process, address: SocketAddr, at: Load) -> Result<Cell> {
        let done = load(&[Self::flow(address, &self.warm, at.rate)], TURN, || process.busy())?;
        let warm = done.tallies[0].all_granted()?;
        Ok(Cell { warm, busy: done.share(), events: 0.0, refused: 0, queries: 0.0 })
    }

    fn cell(&self, case: Case, running: &Service, at: Load, turn: usize) -> Result<Cell> {
        let mut flows = vec![Self::flow(running.grpc, &self.warm, at.rate)];
        let also = match case {
            Case::Misses => Some((&self.unasked[turn], MISSES)),
            Case::Flood => Some((&self.forged, at.flood())),
            Case::Bare | Case::Nothing | Case::Snapshot | Case::Hang => None,
        };
        if let Some((requests, rate)) = also {
            flows.push(Self::flow(running.grpc, requests, rate));
        }
        let before = running.counted()?;
        let done = load(&flows, TURN, || running.process.busy())?;
        let grown = Grown { before, after: running.counted()? };
        let besides = done.tallies.get(1).copied().unwrap_or_default();
        let warm = done.tallies[0].all_granted()?;
        let events = grown.check(case, &warm, &besides)?;
        Ok(Cell {
            warm,
            busy: done.share(),
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
        let sent = besides.answers() as f64;
        let same = |counted: f64, sent: f64| (counted - sent).abs() < 0.5;
        let missed = self.of("keystead_cache_lookups_total", &[("result", "miss")]);
        let events = match case {
            Case::Bare | Case::Nothing => 0.0,
            Case::Misses => missed,
            Case::Snapshot => self.of("keystead_snapshot_writes_total", &[("result", "written")]),
            Case::Flood => checks("UNAUTHENTICATED"),
            Case::Hang => self.of("keystead_store_lookups_total", &[("result", "error")]),
        };
        let went_on = match case {
            Case::Bare | Case::Nothing | Case::Snapshot | Case::Hang => true,
            Case::Misses => same(events, sent),
            Case::Flood => same(events, sent) && besides.granted == 0,
        };
        // Nothing but misses is asked for in the store.
        let all_known = case == Case::Misses || same(missed, 0.0);
        if !went_on || !all_known || !same(checks("OK"), granted) {
            let counted = checks("OK");
            return Err(format!(
                "{case}: {events} of it, {counted} granted and {missed} misses, where the loader \
                 saw {warm:?} and besides {besides:?}",
            )
            .into());
        }
        Ok(events)
    }
}
