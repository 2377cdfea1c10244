//! Which threads should serve, and which of them a connection? Bare servers that
//! differ in that alone.

mod trial;

use std::{num::NonZeroUsize, time::Duration};

use prost::Message as _;

use self::trial::{RATE, Trial, Under};
use crate::{
    Result, Run,
    bare::{self, Layout, Speaks},
    keystead::{Site, typical_request},
    process::{Place, cores},
    report::{Axis, Chart, Line, Section, Table},
    statistics::grouped,
    typical,
};

type WithThreads = fn(NonZeroUsize) -> Layout;

/// What is compared, and what it is called.
const LAYOUTS: [(&str, WithThreads); 3] = [
    ("one runtime, all threads", Layout::Shared),
    ("a runtime a thread, SO_REUSEPORT", Layout::Hashed),
    ("a runtime a thread, fewest connections", Layout::Handed),
];

/// How many connections share the load evenly.
const EVEN: [u32; 5] = [1, 2, 8, 64, 1000];

/// What came of one layout under one load, over all rounds.
struct Cell {
    layout: &'static str,
    under: Under,
    trials: Vec<Trial>,
}

pub(crate) fn measure(run: Run) -> Result<Section> {
    let (rounds, each) = match run {
        Run { quick: true } => (1, Duration::from_millis(300)),
        Run { quick: false } => (5, Duration::from_millis(1200)),
    };
    let threads = NonZeroUsize::new(cores()?.len()).ok_or("there is no core")?;
    let site = Site::new()?;
    let answer = site.write("answer", typical::answer()?.encode_to_vec())?;
    let request = site.write("request", typical_request(typical::PLACEHOLDER)?)?;
    let mut servers = Vec::new();
    for (name, layout) in LAYOUTS {
        let server = bare::start(Speaks::Keystead, layout(threads), &answer, Place::Anywhere)?;
        servers.push((name, server));
    }
    let loads = || EVEN.map(Under::Even).into_iter().chain([Under::Uneven]);
    let mut cells: Vec<_> = loads()
        .flat_map(|under| LAYOUTS.map(|(layout, _)| Cell { layout, under, trials: Vec::new() }))
        .collect();
    for round in 0..rounds {
        let mut turns: Vec<_> = cells.iter_mut().collect();
        // There and back, so that none always comes after the same other.
        if round % 2 == 1 {
            turns.reverse();
        }
        for cell in turns {
            let server = servers.iter().find(|(name, _)| *name == cell.layout);
            let (_, (process, address)) = server.ok_or("a layout has no server")?;
            cell.trials.push(Trial::of(process, *address, &request, cell.under, each)?);
        }
    }
    Ok(Section {
        title: "Layouts of the process".to_owned(),
        intro: intro(threads, rounds, each),
        tables: vec![table(&cells)],
        charts: charts(&cells, threads),
        remarks: remarks(threads),
        goals: Vec::new(),
    })
}

fn intro(threads: NonZeroUsize, rounds: usize, each: Duration) -> String {
    format!(
        "Bare servers with {threads} serving threads each, which differ in one thing: which thread \
         serves a connection. *One runtime*: tokio's multi-thread runtime, whose threads take work \
         from each other. *`SO_REUSEPORT`*: a current-thread runtime a thread, each with a \
         listener of its own on the same port, among which the kernel chooses by a hash of the \
         addresses. *Fewest connections*: a current-thread runtime a thread, and one listener that \
         hands each connection to the thread that has the fewest.\n\
         \n\
         Each is loaded by 1 to 1000 connections that share the load evenly, and by 8 of which one \
         has half of the load; in {rounds} rounds of {:.1} s, of which the median is shown. First \
         without rest, with 256 requests under way in all (1000 over 1000 connections); then with \
         {} requests a second, at which times are taken, from sending a request to the end of its \
         answer.",
        each.as_secs_f64(),
        grouped(RATE),
    )
}

fn table(cells: &[Cell]) -> Table {
    let columns = [
        "connections, layout",
        "answers/s",
        "answers/s of CPU",
        "busiest thread",
        "could reach/s",
        "median µs",
        "p99 µs",
    ];
    let mut table = Table::new("", &columns);
    for cell in cells {
        table.rows.push(vec![
            format!("{}, {}", cell.under, cell.layout),
            grouped(cell.median(Trial::per_second)),
            grouped(cell.median(Trial::per_cpu_second)),
            format!("{:.0} %", cell.median(Trial::busiest) * 100.0),
            grouped(cell.median(Trial::could_reach)),
            grouped(cell.median(Trial::median_micros)),
            grouped(cell.median(Trial::p99_micros)),
        ]);
    }
    table
}

fn charts(cells: &[Cell], threads: NonZeroUsize) -> Vec<Chart> {
    let chart = |file: &str, title: String, y: &str, figure: fn(&Trial) -> f64| {
        let line = |layout: &str| Line {
            name: layout.to_owned(),
            points: cells
                .iter()
                .filter(|cell| cell.layout == layout)
                .filter_map(|cell| Some((cell.under.even()?, cell.median(figure))))
                .collect(),
        };
        Chart {
            file: file.to_owned(),
            title,
            x: Axis::logarithmic("connections, evenly loaded"),
            y: Axis::linear(y),
            lines: LAYOUTS.iter().map(|(layout, _)| line(layout)).collect(),
        }
    };
    vec![
        chart(
            "layout-cpu",
            "Answers for a second of the server's CPU time".to_owned(),
            "answers per second of CPU",
            Trial::per_cpu_second,
        ),
        chart(
            "layout-reach",
            format!("What {threads} cores could answer before the busiest thread is full"),
            "answers per second",
            Trial::could_reach,
        ),
        chart(
            "layout-p99",
            format!("99th percentile of times at {} requests per second", grouped(RATE)),
            "microseconds",
            Trial::p99_micros,
        ),
    ]
}

fn remarks(threads: NonZeroUsize) -> Vec<String> {
    vec![
        format!(
            "The loader, one thread, runs on the same {threads} cores as the server, so that \
             `answers/s` is what both reach together. It says little by itself."
        ),
        "`answers/s of CPU` divides by the CPU time of the server alone. `busiest thread` is its \
         share of that time; `could reach` is the one divided by the other: where a thread cannot \
         give work away, the server is full when its busiest thread is. Each is the middle of the \
         rounds by itself. Times have in them what the machine does meanwhile."
            .to_owned(),
        "*8, one has half* is a proxy with one busy connection beside idle ones: no layout that \
         keeps a connection on one thread can spread it."
            .to_owned(),
    ]
}

impl Cell {
    fn median(&self, figure: fn(&Trial) -> f64) -> f64 {
        crate::statistics::median(self.trials.iter().map(figure))
    }
}
