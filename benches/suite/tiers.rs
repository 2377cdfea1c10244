//! What each step of a check costs by itself: what `benches/tiers.rs` and `benches/cost.rs`
//! print, which `scripts/bench` has kept, as cargo does not run one benchmark in another.

use std::fs;

use crate::{
    Result, Run,
    report::{Section, path},
};

pub(crate) fn measure(_: Run) -> Result<Section> {
    let printed = |by: &str| {
        let text = fs::read_to_string(path(format!("{by}.txt")));
        text.map_err(|error| format!("{by}.txt: {error}; run: scripts/bench tiers"))
    };
    Ok(Section {
        title: "The steps of a check".to_owned(),
        about: format!(
            "Each step by itself, and all of them without a socket, from the headers of a request \
             to the trailers of its answer (`cargo bench --bench tiers`):\n\
             \n```text\n{}\n```\n\n\
             Instructions as Valgrind counts them, which offers no SHA instructions, in the profile \
             `release`, beside the bounds that `scripts/test` holds (`cargo bench --bench cost`):\n\
             \n```text\n{}\n```",
            printed("tiers")?.trim(),
            printed("cost")?.trim(),
        ),
        ..Section::default()
    })
}
