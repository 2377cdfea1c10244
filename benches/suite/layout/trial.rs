//! One layout under one load.

use std::{error::Error, fmt, net::SocketAddr, path::Path, time::Duration};

use crate::{
    Result,
    keystead::CHECK,
    load::{Plan, Pressure, Tally, Until},
    process::{Place, Process},
};

/// Requests a second, at which times are taken: so few that neither server nor loader
/// wait for a core.
pub(super) const RATE: f64 = 20_000.0;

/// How many requests are under way without rest, if there are not more
/// connections.
const UNDER_WAY: usize = 256;

/// How the load is spread over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// Over so many, evenly.
    Even(u32),
    /// Over 8, of which one has half.
    Uneven,
}

/// What came of it.
pub(super) struct Trial {
    /// Without rest.
    answered: f64,
    took: Duration,
    /// CPU time of each thread meanwhile.
    busy: Vec<Duration>,
    /// At a rate.
    paced: Tally,
}

impl fmt::Display for Under {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Even(connections) => write!(f, "{connections}"),
            Self::Uneven => f.write_str("8, one has half"),
        }
    }
}

impl Under {
    /// How many share evenly, if they do.
    pub(super) fn even(self) -> Option<f64> {
        match self {
            Self::Even(connections) => Some(connections.into()),
            Self::Uneven => None,
        }
    }

    /// The connections by turns.
    fn turns(self) -> Result<Vec<usize>> {
        Ok(match self {
            Self::Even(connections) => (0..usize::try_from(connections)?).collect(),
            Self::Uneven => (1..8).flat_map(|other| [0, other]).collect(),
        })
    }
}

impl Trial {
    /// Loads a server twice, for `each`.
    pub(super) fn of(
        process: &Process,
        address: SocketAddr,
        request: &Path,
        under: Under,
        each: Duration,
    ) -> Result<Self> {
        let turns = under.turns()?;
        let run = |pressure| {
            let plan = Plan {
                address,
                path: CHECK.to_owned(),
                messages: request.to_owned(),
                turns: turns.clone(),
                pressure,
                until: Until::Elapsed(each),
            };
            let (tally, before) = plan.run(Place::Anywhere, || process.threads())?;
            Ok::<_, Box<dyn Error + Send + Sync>>((tally.all(0)?, before))
        };
        let (restless, before) = run(Pressure::UnderWay(UNDER_WAY.max(turns.len())))?;
        let since = |(id, busy): (u32, Duration)| {
            busy.saturating_sub(before.get(&id).copied().unwrap_or_default())
        };
        let busy = process.threads()?.into_iter().map(since);
        Ok(Self {
            answered: f64::from(u32::try_from(restless.count())?),
            took: restless.took,
            busy: busy.collect(),
            paced: run(Pressure::Rate(RATE))?.0,
        })
    }

    pub(super) fn per_second(&self) -> f64 {
        self.answered / self.took.as_secs_f64()
    }

    pub(super) fn per_cpu_second(&self) -> f64 {
        self.answered / self.busy.iter().sum::<Duration>().as_secs_f64()
    }

    /// The share of the busiest thread.
    pub(super) fn busiest(&self) -> f64 {
        let most = self.busy.iter().max().copied().unwrap_or_default();
        most.div_duration_f64(self.busy.iter().sum())
    }

    /// Answers a second when the busiest thread has a core for itself, and no
    /// rest.
    pub(super) fn could_reach(&self) -> f64 {
        self.per_cpu_second() / self.busiest()
    }

    pub(super) fn median_micros(&self) -> f64 {
        self.paced.median.as_secs_f64() * 1e6
    }

    pub(super) fn p99_micros(&self) -> f64 {
        self.paced.p99.as_secs_f64() * 1e6
    }
}
