//! What one check costs, in CPU time of the server: warm, refused, stale and
//! missed, beside servers that do nothing but answer.

mod interleaved;
mod miss;
mod pgo;
mod stage;

use std::time::Duration;

use crate::{
    Result, Run, h2load,
    hit::{
        interleaved::{Course, Performance, interleaved},
        stage::{Key, Stage},
    },
    report::{Goal, Section, Table},
    statistics::{grouped, median, middle_half},
};

pub(crate) use pgo::measure as guided;

/// What can be told of all contenders.
struct Standing(Vec<Performance>);

pub(crate) fn measure(run: Run) -> Result<Section> {
    let course = course(run);
    let stage = Stage::set(if run.quick { 30_000 } else { 200_000 })?;
    let standing = Standing(interleaved(&stage.contenders()?, course)?);
    let missed = miss::measure(&stage, course.rounds)?;
    let mut tables = standing.tables();
    tables.extend([standing.kinds(&missed), missed.table()]);
    Ok(Section {
        title: "One check".to_owned(),
        intro: intro(course),
        tables,
        charts: Vec::new(),
        remarks: remarks(&standing, &stage)?,
        goals: standing.goals(),
    })
}

fn course(run: Run) -> Course {
    match run {
        Run { quick: true } => Course { rounds: 5, busy_for: Duration::from_millis(150) },
        Run { quick: false } => Course { rounds: 21, busy_for: Duration::from_millis(500) },
    }
}

fn intro(course: Course) -> String {
    format!(
        "The server has one core, the loader another if there are two. Requests are divided by the \
         CPU time that the server's process used, user and system, so that the loader and other \
         processes cost it nothing. {} rounds of {:.2} s of CPU time each; in a round all servers \
         take their turn, a ratio is made within a round, and the median of the ratios is shown \
         with the range of the middle half of them.\n\
         \n\
         A *bare* server is tonic as its documentation shows it, with mimalloc, that clones a \
         constant answer: on a current-thread runtime, and on a multi-thread runtime with one \
         worker; ratios are to the better of the two. Its constant is what Keystead answers to the \
         same request. The *stock* messages are those of the crate envoy-types, with every field \
         that Envoy has. Keystead is the program as it ships, with its store (SQLite), metrics, \
         change feed, uses and snapshot, all as by default but for time-outs, which are patient.\n\
         \n\
         A typical key has three scopes, two pieces of metadata and expires in 90 days; a typical \
         request needs one scope. Envoy's request was captured from Envoy 1.40 with the headers of \
         a browser (`benches/data/`). The load is `taskset --cpu-list CORE h2load --requests=N \
         --clients={} --max-concurrent-streams={} --data=REQUEST URL`; every answer is counted, \
         and its gRPC status is held against Keystead's own counters.",
        course.rounds,
        course.busy_for.as_secs_f64(),
        h2load::CONNECTIONS,
        h2load::STREAMS,
    )
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

    /// Ours beside bare servers.
    fn beside(&self, title: &str, ours: &'static str, bare: [&'static str; 2]) -> Table {
        let columns = ["server", "requests/s of CPU", "µs each", "× bare", "middle half", "busy"];
        let mut table = Table::new(title, &columns);
        let better = self.better(bare);
        for name in [ours].into_iter().chain(bare) {
            let done = self.of(name);
            let mut row = costs(name, done.micros(), done.over(better));
            row.push(format!("{:.0} %", done.busy() * 100.0));
            table.rows.push(row);
        }
        table
    }

    fn tables(&self) -> Vec<Table> {
        vec![
            self.beside("A warm `Check`:", stage::CHECK, stage::BARE_CHECK),
            self.beside(
                "A warm request of Envoy, beside servers that read it and answer with an empty OK:",
                stage::ENVOY,
                stage::NOTHING,
            ),
            self.beside(
                "The same, beside servers that answer with the headers and the metadata that \
                 Keystead does:",
                stage::ENVOY,
                stage::SAME,
            ),
        ]
    }

    fn kinds(&self, missed: &miss::Missed) -> Table {
        let title = "What else Keystead answers. `× warm` is to a warm `Check`; queries are those \
                     to its store.";
        let columns =
            ["answer", "requests/s of CPU", "µs each", "× warm", "middle half", "queries"];
        let mut table = Table::new(title, &columns);
        let warm = self.of(stage::CHECK);
        for name in [stage::CHECK, stage::FORGED, stage::ABSENT, stage::STALE] {
            let done = self.of(name);
            let mut row = costs(name, done.micros(), done.over(warm));
            row.push(format!("{:.0} of {}", done.queries, grouped(done.requests.into())));
            table.rows.push(row);
        }
        let name = "a key that was never asked for, and is in the store";
        let ratios = missed.rounds.iter().map(|round| warm.micros() / round.micros);
        let mut row = costs(name, missed.micros(), ratios.collect());
        row.push(format!("{} of {}", grouped(missed.queries), grouped(missed.requests)));
        table.rows.push(row);
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
                must: "0.90 × bare".to_owned(),
                aim: Some("0.97".to_owned()),
                measured: format!("{check:.2} ×"),
                reached: check >= 0.90,
            },
            Goal {
                what: "warm ext_authz `Check`, real Envoy request".to_owned(),
                must: "1.05 × a do-nothing server built on the stock Envoy message types"
                    .to_owned(),
                aim: Some("1.15".to_owned()),
                measured: format!("{envoy:.2} ×"),
                reached: envoy >= 1.05,
            },
            Goal {
                what: "refusal of a made-up key".to_owned(),
                must: "not slower than a warm hit, 0 store queries".to_owned(),
                aim: None,
                measured: format!(
                    "{forged:.2} × the requests of a warm hit, {queries:.0} store queries"
                ),
                reached: forged >= 1.0 && queries == 0.0,
            },
        ]
    }
}

/// The first five columns: what it costs, and how many times as many requests that is as
/// another's, round by round.
fn costs(name: &str, micros: f64, ratios: Vec<f64>) -> Vec<String> {
    vec![
        name.to_owned(),
        grouped(1e6 / micros),
        format!("{micros:.2}"),
        format!("{:.2}", median(ratios.iter().copied())),
        middle_half(ratios),
    ]
}

fn remarks(standing: &Standing, stage: &Stage) -> Result<Vec<String>> {
    let least = standing.0.iter().map(Performance::busy).fold(1.0, f64::min);
    let mut remarks = vec![format!(
        "`busy` is how much of the time of a round the server had work; the least of any server is \
         {:.0} %. Requests per second of CPU hold for a server that is saturated.",
        least * 100.0
    )];
    if crate::process::cores()?.len() < 2 {
        remarks.push("There is one core: server and loader share it.".to_owned());
    }
    remarks.push(format!(
        "Envoy's request has {} bytes, the request of a `Check` {}.",
        stage.envoy_request(Key::Warm)?.len(),
        stage.request(Key::Warm)?.len(),
    ));
    Ok(remarks)
}
