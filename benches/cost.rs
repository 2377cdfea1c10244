//! Holds what a check costs, in instructions and in allocations, against bounds.
//! Unlike times, both are the same on a busy machine.
//!
//! ```text
//! cargo bench --bench cost
//! ```
//!
//! From the headers of a request to the trailers of its answer, without a socket.
//!
//! Allocations are counted before the allocator, mimalloc as in the program; what
//! grows in its place counts as one more.
//!
//! Instructions are those of the program outside of the kernel, mimalloc and the
//! counting of allocations among them, as callgrind counts them. Valgrind offers a
//! program no SHA instructions, so that SHA-256 is computed without: this holds the
//! portable code to its bounds. Whoever has the instructions needs fewer.
//!
//! The program runs itself under callgrind twice for each call, with few calls and
//! with many. Only the number of those differs, so that the difference is what they
//! cost: both set up the same stand and build the same requests.

#[path = "suite/callgrind.rs"]
mod callgrind;
#[expect(dead_code, reason = "benches/tiers.rs needs the rest")]
#[path = "suite/in_process.rs"]
mod in_process;
#[expect(dead_code, reason = "the other benchmarks need the rest")]
#[path = "suite/typical.rs"]
mod typical;

use std::{env, error::Error, process::ExitCode};

use alloc_tracker::{Allocator, Session};

use self::in_process::{Call, InProcess};

#[global_allocator]
static ALLOCATOR: Allocator<mimalloc::MiMalloc> = Allocator::new(mimalloc::MiMalloc);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// What each call may cost: as many allocations as were counted, and about a tenth
/// more bytes and instructions, as another compiler lays them out a little otherwise.
const BOUNDS: [(&str, Call, Cost); 5] = [
    ("check", Call::Check, cost(11, 4_550, 27_000)),
    ("check-forged", Call::CheckOfForged, cost(21, 5_350, 26_200)),
    ("check-absent", Call::CheckOfAbsent, cost(19, 4_500, 31_200)),
    ("ext-authz", Call::ExtAuthz, cost(14, 7_800, 44_700)),
    ("ext-authz-forged", Call::ExtAuthzOfForged, cost(49, 9_200, 55_400)),
];

/// A count that is this much below its bound, in percent, would hide it if it came
/// back.
const MAX_SLACK_PERCENT: u64 = 25;

/// Before anything is counted: what is set up by the first calls is there, and the
/// durations that metrics gather have been passed on in whole.
const WARM_UP: u64 = 256;

/// How many calls are counted. Multiples of 64, as so many durations are gathered
/// before they are passed on.
const FEW: u64 = 640;
const MANY: u64 = 3_840;

/// What one call costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    allocations: u64,
    bytes: u64,
    instructions: u64,
}

const fn cost(allocations: u64, bytes: u64, instructions: u64) -> Cost {
    Cost { allocations, bytes, instructions }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => hold(),
        [name, calls] => under_callgrind(name, calls).map(|()| true),
        _ => Err("it takes no arguments".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the cost of a check cannot be counted: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Counts, prints, and says whether all bounds hold.
fn hold() -> Result<bool> {
    let program = env::current_exe()?;
    if !program.ancestors().nth(2).is_some_and(|profile| profile.ends_with("release")) {
        return Err(
            "the bounds are those of the profile `release`: run it without --profile".into()
        );
    }
    let stand = InProcess::new()?;
    let mut wrong = Vec::new();
    println!("path | allocations | bytes | instructions | bounds");
    println!("-----|-------------|-------|--------------|-------");
    for (name, call, bound) in BOUNDS {
        let (allocations, bytes) = allocations(&stand, call)?;
        let counted = Cost { allocations, bytes, instructions: instructions(name)? };
        let Cost { allocations, bytes, instructions } = counted;
        let bounds = format!("{}, {}, {}", bound.allocations, bound.bytes, bound.instructions);
        println!("{name} | {allocations} | {bytes} | {instructions} | {bounds}");
        wrong.extend(faults(name, counted, bound));
    }
    for fault in &wrong {
        eprintln!("{fault}");
    }
    Ok(wrong.is_empty())
}

/// What is wrong about a cost.
fn faults(name: &str, counted: Cost, bound: Cost) -> impl Iterator<Item = String> {
    let each = [
        ("allocations", counted.allocations, bound.allocations),
        ("bytes", counted.bytes, bound.bytes),
        ("instructions", counted.instructions, bound.instructions),
    ];
    each.into_iter().filter_map(move |(what, counted, bound)| {
        if counted > bound {
            Some(format!("{name} takes {counted} {what}, more than its bound of {bound}"))
        } else if counted * 100 < bound * (100 - MAX_SLACK_PERCENT) {
            Some(format!(
                "{name} takes {counted} {what}, far less than its bound of {bound}: tighten it in \
                 benches/cost.rs"
            ))
        } else {
            None
        }
    })
}

/// How many allocations one call makes, and of how many bytes.
fn allocations(stand: &InProcess, call: Call) -> Result<(u64, u64)> {
    let requests: Vec<_> = (0..WARM_UP + FEW).map(|_| stand.request(call)).collect();
    let mut requests = requests.into_iter();
    for request in requests.by_ref().take(usize::try_from(WARM_UP)?) {
        stand.answer(call, request);
    }
    let session = Session::new();
    let operation = session.operation("calls");
    let span = operation.measure_thread();
    for request in requests {
        stand.answer(call, request);
    }
    drop(span);
    let report = session.to_report();
    let (_, all) = report.operations().next().ok_or("nothing was counted")?;
    let (count, bytes) = (all.total_allocations_count(), all.total_bytes_allocated());
    // One that is made now and then counts as one in each call.
    Ok((count.div_ceil(FEW), bytes.div_ceil(FEW)))
}

/// How many instructions one call takes.
fn instructions(name: &str) -> Result<u64> {
    let collected = |calls: u64| callgrind::collected([name, &calls.to_string()]);
    let (few, many) = (collected(FEW)?, collected(MANY)?);
    let more = many.checked_sub(few).ok_or("more calls took fewer instructions")?;
    Ok(more / (MANY - FEW))
}

/// Makes so many calls.
fn under_callgrind(name: &str, calls: &str) -> Result<()> {
    let known = BOUNDS.iter().find(|(known, ..)| *known == name);
    let (_, call, _) = *known.ok_or("there is no such call")?;
    let calls = usize::try_from(WARM_UP + calls.parse::<u64>()?)?;
    let stand = InProcess::new()?;
    let mut requests: Vec<_> = (0..WARM_UP + MANY).map(|_| stand.request(call)).collect();
    requests.reverse();
    for _ in 0..calls {
        let request = requests.pop().ok_or("more calls than are counted")?;
        stand.answer(call, request);
    }
    // What is left over would take instructions to be dropped.
    std::process::exit(0)
}
