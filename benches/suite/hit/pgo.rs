//! The program as `scripts/pgo` builds it, optimised by a profile of itself, beside the
//! one that `cargo build --profile dist` builds.

use std::path::Path;

use super::{
    Standing, course,
    interleaved::interleaved,
    stage::{GRANTED, SETTINGS, Served},
};
use crate::{
    Result, Run,
    keystead::Program,
    process::Place,
    report::{Section, Table},
};

/// What `scripts/bench` builds: both with the features that they ship with, which the
/// program has not that is built with the suite.
const PLAIN: &str = "target/pgo/dist/keystead";
const GUIDED: &str = "target/pgo/keystead";

/// The plain one, and the guided one, of each kind.
const CHECKS: [&str; 2] = ["plain, warm `Check`", "with a profile, warm `Check`"];
const ENVOYS: [&str; 2] = ["plain, warm ext_authz", "with a profile, warm ext_authz"];

/// The part `pgo`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let both = [served(PLAIN)?, served(GUIDED)?];
    let mut contenders = Vec::new();
    for ((served, check), envoy) in both.iter().zip(CHECKS).zip(ENVOYS) {
        contenders.extend([served.check(check, &served.key, GRANTED)?, served.envoy(envoy)?]);
    }
    let standing = Standing(interleaved(&contenders, course(run))?);
    let columns = ["build", "requests/s of CPU", "µs each", "× plain", "middle half"];
    let mut table = Table::new("", &columns);
    for [plain, guided] in [CHECKS, ENVOYS] {
        table.rows.extend([plain, guided].map(|name| standing.row(name, standing.of(plain))));
    }
    Ok(Section {
        title: "With a profile of itself".to_owned(),
        about: "The program as `scripts/pgo` builds it (profile-guided optimisation) beside the same \
                program without a profile, measured as in *One check*: with what it was trained for, \
                which is the best case. All other sections are without a profile."
            .to_owned(),
        tables: vec![table],
        ..Section::default()
    })
}

fn served(program: &str) -> Result<Served> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
    if !path.exists() {
        return Err(format!("{program} is missing; run: scripts/bench pgo").into());
    }
    Served::by(Program::new(Place::Served)?.built_at(path), &SETTINGS)
}
