//! How long the slowest of warm checks take, and what else may go on meanwhile
//! without making them slower: misses, a snapshot, a flood of made-up keys, a store
//! that hangs.

mod section;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use prost::Message as _;

use crate::{
    Result, Run,
    bare::{self, Runtime, Speaks},
    environment::{CONNECTIONS, Filled, Ground, PATIENT, Running, flow},
    keystead::Counted,
    load::Pressure,
    open_loop::{Flow, Plan, Tally},
    process::{Place, Process},
    report::Section,
    statistics::median,
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
    /// Misses, of another service on the loader's core: what they do to the loader, and
    /// to what shares its core.
    Elsewhere,
    Misses,
    Snapshot,
    /// As many warm checks more as there are made-up keys in a flood.
    More,
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
    /// How many a second the service answers without rest.
    most: f64,
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
            Self::Elsewhere => "misses of another service",
            Self::Misses => "misses",
            Self::Snapshot => "snapshots are written",
            Self::More => "more warm checks",
            Self::Flood => "a flood of made-up keys",
            Self::Hang => "the store hangs",
        })
    }
}

impl Case {
    const ALL: [Self; 8] = [
        Self::Bare,
        Self::Nothing,
        Self::Elsewhere,
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
            Self::Elsewhere | Self::Misses => &PATIENT,
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

    /// At how many warm checks a second the service uses this share of its core: the one
    /// in the middle of what so many tries end with. Each begins where the last one ended,
    /// as less is used for each check the more there are.
    fn load(&self, share: f64, tries: usize) -> Result<Load> {
        let settings = Case::Nothing.settings();
        let running = self.ground.serve(Place::Served, Some(&self.filled), settings)?;
        let most = running.capacity(&self.warm, TURN)?.per_second;
        let busy = || running.service.busy();
        let (mut rate, mut found) = (FIRST_RATE, Vec::new());
        for _ in 0..tries {
            let flows = vec![self.flow(running.service.grpc, rate)];
            let done = Plan { flows, lasts: TRIED }.run_on(busy)?;
            done.tallies[0].all_granted()?;
            rate *= share / done.share();
            found.push(rate);
        }
        // The first ones are on the way there.
        Ok(Load { share, rate: median(found.split_off(tries / 2)), most })
    }

    /// Warm checks at a rate.
    fn flow(&self, address: SocketAddr, rate: f64) -> Flow {
        flow(address, &self.warm, Pressure::Rate(rate), CONNECTIONS)
    }

    /// The turns of a process: each has its own, so that it finds nothing that another
    /// case has left.
    fn cells(&self, case: Case, load: Load) -> Result<Vec<Cell>> {
        let turns = 0..self.unasked.len();
        if case == Case::Bare {
            let (process, address) =
                bare::start(Speaks::Keystead, Runtime::CurrentThread, &self.answer, Place::Served)?;
            self.warm_up(address, load)?;
            return turns.map(|_| self.bare(&process, address, load)).collect();
        }
        let running = self.ground.serve(Place::Served, Some(&self.filled), case.settings())?;
        let other = match case {
            Case::Elsewhere => Some(self.ground.serve(Place::Beside, None, case.settings())?),
            _ => None,
        };
        let asked = other.as_ref().unwrap_or(&running);
        self.warm_up(running.service.grpc, load)?;
        if case == Case::Hang {
            self.ground.postgres.hang()?;
        }
        let cells = turns.map(|turn| self.cell(case, &running, asked, load, turn));
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

    fn warm_up(&self, address: SocketAddr, load: Load) -> Result<()> {
        let flows = vec![self.flow(address, load.rate)];
        Plan { flows, lasts: WARM_UP }.run()?;
        Ok(())
    }

    fn bare(&self, process: &Process, address: SocketAddr, load: Load) -> Result<Cell> {
        let flows = vec![self.flow(address, load.rate)];
        let done = Plan { flows, lasts: TURN }.run_on(|| process.busy())?;
        let warm = done.tallies[0].all_granted()?;
        Ok(Cell { warm, busy: done.share(), events: 0.0, refused: 0, queries: 0.0 })
    }

    /// `asked` gets what is sent besides.
    fn cell(
        &self,
        case: Case,
        running: &Running,
        asked: &Running,
        load: Load,
        turn: usize,
    ) -> Result<Cell> {
        let mut flows = vec![self.flow(running.service.grpc, load.rate)];
        let also = match case {
            Case::Elsewhere | Case::Misses => Some((&self.unasked[turn], MISSES)),
            Case::More => Some((&self.warm, load.flood())),
            Case::Flood => Some((&self.forged, load.flood())),
            Case::Bare | Case::Nothing | Case::Snapshot | Case::Hang => None,
        };
        if let Some((requests, rate)) = also {
            flows.push(flow(asked.service.grpc, requests, Pressure::Rate(rate), CONNECTIONS));
        }
        let (before, before_asked) = (running.service.counted()?, asked.service.counted()?);
        let done = Plan { flows, lasts: TURN }.run_on(|| running.service.busy())?;
        let grown = Grown { before, after: running.service.counted()? };
        let asked = Grown { before: before_asked, after: asked.service.counted()? };
        let besides = done.tallies.get(1).copied().unwrap_or_default();
        let warm = done.tallies[0].all_granted()?;
        let events = grown.check(case, &asked, &warm, &besides)?;
        Ok(Cell {
            warm,
            busy: done.share(),
            events,
            refused: match case {
                Case::Elsewhere | Case::Misses => besides.others,
                _ => 0,
            },
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
    fn check(&self, case: Case, asked: &Self, warm: &Tally, besides: &Tally) -> Result<f64> {
        let checks = |code| self.of("keystead_checks_total", &[("code", code)]);
        let here = if case == Case::Elsewhere { 0 } else { besides.granted };
        let granted = (warm.granted + here) as f64;
        let sent = (besides.granted + besides.others) as f64;
        let same = |counted: f64, sent: f64| (counted - sent).abs() < 0.5;
        let lookups = |result| self.of("keystead_cache_lookups_total", &[("result", result)]);
        let events = match case {
            Case::Bare | Case::Nothing => 0.0,
            Case::More => sent,
            Case::Elsewhere | Case::Misses => {
                asked.of("keystead_cache_lookups_total", &[("result", "miss")])
            }
            Case::Snapshot => self.of("keystead_snapshot_writes_total", &[("result", "written")]),
            Case::Flood => checks("UNAUTHENTICATED"),
            Case::Hang => self.of("keystead_store_lookups_total", &[("result", "error")]),
        };
        let went_on = match case {
            Case::Bare | Case::Nothing | Case::More | Case::Snapshot | Case::Hang => true,
            Case::Elsewhere | Case::Misses => same(events, sent),
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
