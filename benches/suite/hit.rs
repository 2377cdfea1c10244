//! What one check costs, in CPU time of the server: warm, refused and stale, beside
//! servers that do nothing but answer.
//!
//! The server has one core, the loader another if there are two. Requests are divided by
//! the CPU time, user and system, that the server's process used, so that the loader and
//! other processes cost it nothing. A *bare* server is tonic as its documentation shows
//! it, with mimalloc, that clones a constant: what Keystead answers to the same request.
//! Ratios are to the better of its two runtimes. Keystead is the program as it ships,
//! with SQLite, metrics, change feed, uses and snapshot.

mod interleaved;
mod pgo;
mod stage;

use std::time::Duration;

use crate::{
    Result, Run,
    figures::{grouped, median, middle_half},
    hit::{
        interleaved::{Course, Performance, interleaved},
        stage::Stage,
    },
    report::{Goal, Section, Table},
};

pub(crate) use pgo::measure as guided;

/// What can be told of all contenders.
struct Standing(Vec<Performance>);

pub(crate) fn measure(run: Run) -> Result<Section> {
    let course = course(run);
    let stage = Stage::set()?;
    let standing = Standing(interleaved(&stage.contenders()?, course)?);
    Ok(Section {
        title: "One check".to_owned(),
        about: format!(
            "The server on one core, h2load on another; requests per second of the CPU time that \
             the server used, in {} rounds of {:.2} s in which all servers take their turn. A ratio \
             is made within a round; the median is shown, and what half of them are between. `busy` \
             is how much of a round the server had work.",
            course.rounds,
            course.busy_for.as_secs_f64(),
        ),
        tables: vec![
            standing.beside("A warm `Check`:", stage::CHECK, stage::BARE_CHECK),
            standing.beside(
                "A warm request of Envoy, beside servers that read it with the messages of \
                 envoy-types and answer with an empty OK:",
                stage::ENVOY,
                stage::NOTHING,
            ),
            standing.beside(
                "The same, beside servers that answer with the headers and the metadata that \
                 Keystead does:",
                stage::ENVOY,
                stage::SAME,
            ),
            standing.kinds(),
        ],
        goals: standing.goals(),
    })
}

fn course(run: Run) -> Course {
    match run {
        Run { quick: true } => Course { rounds: 5, busy_for: Duration::from_millis(150) },
        Run { quick: false } => Course { rounds: 21, busy_for: Duration::from_millis(500) },
    }
}

impl Standing {
    fn of(&self, name: &str) -> &Performance {
        self.0.iter().find(|done| done.name == name).expect("every name is that of a contender")
    }

    /// The one of these that takes less CPU time.
    fn better(&self, names: [&'static str; 2]) -> &Performance {
        let [one, other] = names.map(|name| self.of(name));
        if one.micros() <= other.micros() { one } else { other }
    }

    /// What one costs, and how many times as many requests that is as another's.
    fn row(&self, name: &'static str, other: &Performance) -> Vec<String> {
        let done = self.of(name);
        vec![
            name.to_owned(),
            grouped(1e6 / done.micros()),
            format!("{:.2}", done.micros()),
            format!("{:.2}", median(done.over(other))),
            middle_half(done.over(other)),
        ]
    }

    /// Ours beside bare servers.
    fn beside(&self, title: &str, ours: &'static str, bare: [&'static str; 2]) -> Table {
        let columns = ["server", "requests/s of CPU", "µs each", "× bare", "middle half", "busy"];
        let mut table = Table::new(title, &columns);
        for name in [ours].into_iter().chain(bare) {
            let mut row = self.row(name, self.better(bare));
            row.push(format!("{:.0} %", self.of(name).busy() * 100.0));
            table.rows.push(row);
        }
        table
    }

    fn kinds(&self) -> Table {
        let title = "What else Keystead answers; queries are those to its store:";
        let columns =
            ["answer", "requests/s of CPU", "µs each", "× warm", "middle half", "queries"];
        let mut table = Table::new(title, &columns);
        for name in [stage::CHECK, stage::FORGED, stage::ABSENT, stage::STALE] {
            let mut row = self.row(name, self.of(stage::CHECK));
            let Performance { queries, requests, .. } = self.of(name);
            row.push(format!("{queries:.0} of {}", grouped((*requests).into())));
            table.rows.push(row);
        }
        table
    }

    fn goals(&self) -> Vec<Goal> {
        let ratio = |ours: &str, bare: &Performance| median(self.of(ours).over(bare));
        let check = ratio(stage::CHECK, self.better(stage::BARE_CHECK));
        let envoy = ratio(stage::ENVOY, self.better(stage::NOTHING));
        let forged = ratio(stage::FORGED, self.of(stage::CHECK));
        let queries = self.of(stage::FORGED).queries;
        vec![
            Goal {
                what: "warm `Check`, everything on, requests per second per core".to_owned(),
                must: "0.90 × bare, aiming at 0.97".to_owned(),
                measured: format!("{check:.2} ×"),
                reached: check >= 0.90,
            },
            Goal {
                what: "warm ext_authz `Check`, real Envoy request".to_owned(),
                must:
                    "1.05 × a do-nothing server built on the stock Envoy message types, aiming at \
                       1.15"
                        .to_owned(),
                measured: format!("{envoy:.2} ×"),
                reached: envoy >= 1.05,
            },
            Goal {
                what: "refusal of a made-up key".to_owned(),
                must: "not slower than a warm hit, 0 store queries".to_owned(),
                measured: format!(
                    "{forged:.2} × the requests of a warm hit, {queries:.0} store queries"
                ),
                reached: forged >= 1.0 && queries == 0.0,
            },
        ]
    }
}
