//! The program as `scripts/pgo` builds it, optimised by a profile of itself, beside the
//! one that `cargo build --profile dist` builds.

use std::path::Path;

use super::{
    Standing, costs, course,
    interleaved::{Contender, interleaved},
    stage::{Ask, GRANTED, PATIENT},
};
use crate::{
    Result, Run,
    keystead::{CHECK, ENVOY_CHECK, Service, Site, typical_request},
    load::framed,
    process::Place,
    report::{Section, Table},
    typical,
};

/// What `scripts/bench` builds: both with the features that they ship with, which the
/// program has not that is built with the suite.
const PLAIN: &str = "target/pgo/dist/keystead";
const GUIDED: &str = "target/pgo/keystead";

/// The plain one, and the guided one, of each kind.
const CHECKS: [&str; 2] = ["plain, warm `Check`", "with a profile, warm `Check`"];
const ENVOYS: [&str; 2] = ["plain, warm ext_authz", "with a profile, warm ext_authz"];

const INTRO: &str = "\
`scripts/pgo` builds the program so that it counts which way it goes, loads it as the sections \
*One check* and *Refill* do, and builds it again with what was counted (profile-guided \
optimisation). It stands beside the same program without, as `cargo build --profile dist` builds it; \
they are asked by turns, as in *One check*, and each has a store of its own. A ratio is the \
middle of those within the rounds, not that of the two middles. What is measured is \
what it was trained for: the best case. All other sections are of programs without a profile.
";

/// The part `pgo`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let both = [Served::by(PLAIN)?, Served::by(GUIDED)?];
    let mut contenders = Vec::new();
    for ((served, check), envoy) in both.iter().zip(CHECKS).zip(ENVOYS) {
        contenders.extend(served.contenders(check, envoy)?);
    }
    Ok(Section {
        title: "With a profile of itself".to_owned(),
        intro: INTRO.to_owned(),
        tables: vec![table(&Standing(interleaved(&contenders, course(run))?))],
        ..Section::default()
    })
}

fn table(standing: &Standing) -> Table {
    let columns = ["build", "requests/s of CPU", "µs each", "× plain", "middle half"];
    let mut table = Table::new("", &columns);
    for [plain, guided] in [CHECKS, ENVOYS] {
        for name in [plain, guided] {
            let done = standing.of(name);
            table.rows.push(costs(name, done.micros(), done.over(standing.of(plain))));
        }
    }
    table
}

/// One of the programs, which serves a key of its own.
struct Served {
    site: Site,
    key: String,
    service: Service,
}

impl Served {
    fn by(program: &str) -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
        if !path.exists() {
            return Err(format!("{program} is missing; run: scripts/bench pgo").into());
        }
        let site = Site::of(&path)?;
        let key = site.mint(1)?.remove(0);
        let service = site.serve(Place::Served, PATIENT)?;
        Ok(Self { site, key, service })
    }

    fn contenders(&self, check: &'static str, envoy: &'static str) -> Result<[Contender<'_>; 2]> {
        let ask = |path, name, frame: Vec<u8>| -> Result<_> {
            Ok(Ask { service: &self.service, path, frame: self.site.write(name, frame)? })
        };
        let request = framed(&typical::envoy_request(&self.key)?)?;
        Ok([
            ask(CHECK, "check", typical_request(&self.key)?)?.of(check, "authz", GRANTED),
            ask(ENVOY_CHECK, "envoy", request)?.of(envoy, "ext_authz", GRANTED),
        ])
    }
}
