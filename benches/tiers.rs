//! What each step of a check costs by itself, in time and in allocations, and
//! what they cost together without a socket.
//!
//! ```text
//! cargo bench --bench tiers
//! ```
//!
//! Counting allocations costs some nanoseconds each, which are in the times.

#[path = "suite/in_process.rs"]
mod in_process;
#[expect(dead_code, reason = "the suite needs the rest")]
#[path = "suite/typical.rs"]
mod typical;

use std::{hint::black_box, sync::LazyLock, time::Duration};

use divan::{AllocProfiler, Bencher};
use keystead::{
    check::{Needs, decide},
    key::{CompactKey, Digest},
    store::Answer,
    telemetry::CacheResult,
    time::Clock,
};

use self::in_process::{Call, InProcess};

#[global_allocator]
static ALLOCATOR: AllocProfiler<mimalloc::MiMalloc> = AllocProfiler::new(mimalloc::MiMalloc);

static STAND: LazyLock<InProcess> = LazyLock::new(|| match InProcess::new() {
    Ok(stand) => stand,
    Err(error) => panic!("the stand for the benchmarks cannot be set up: {error}"),
});

fn main() {
    divan::main();
}

mod a_credential {
    use super::{Bencher, STAND, black_box};

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let key = STAND.key.as_bytes();
        assert!(STAND.ring.read(key).is_ok());
        bencher.bench(|| STAND.ring.read(black_box(key)));
    }

    #[divan::bench]
    fn forged(bencher: Bencher<'_, '_>) {
        let key = STAND.forged();
        assert!(STAND.ring.read(key.as_bytes()).is_err());
        bencher.bench(|| STAND.ring.read(black_box(key.as_bytes())));
    }

    #[divan::bench]
    fn foreign(bencher: Bencher<'_, '_>) {
        let key = b"acme-9f1c2b7e-5d0a-4c3b-8e6f-0a1b2c3d4e5f";
        assert!(STAND.ring.read(key).is_ok());
        bencher.bench(|| STAND.ring.read(black_box(key)));
    }
}

/// Other keys each time, so that those of a large memory are not in the caches
/// of the processor.
#[divan::bench(args = [1_000, 1_000_000])]
fn look_in_memory(bencher: Bencher<'_, '_>, keys: u64) {
    let memory = in_process::memory();
    let now = Clock::System.monotonic();
    let digest = |number: u64| Digest::sha256_of(&number.to_le_bytes());
    for number in 0..keys {
        let record = in_process::record(number).expect("a random id");
        let answer = Answer::Found(CompactKey::from(&record));
        memory.take(digest(number), &answer, now).expect("nothing contradicts it");
    }
    // A step that has no divisor in common with either count, and is not small.
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number = (number + 618_033) % keys;
            digest(number)
        })
        .bench_local_refs(|digest| memory.look(digest, now).expect("it is in memory"));
}

#[divan::bench]
fn decide_about_it(bencher: Bencher<'_, '_>) {
    let request = typical::request(&STAND.key);
    let scopes: Vec<_> = request.required_scopes.iter().map(String::as_str).collect();
    let needs = Needs { scopes: &scopes, ..Needs::default() };
    let now = Clock::System.moment();
    bencher
        .with_inputs(|| STAND.observation())
        .bench_values(|it| decide(it, black_box(needs), now));
}

#[divan::bench]
fn count_it(bencher: Bencher<'_, '_>) {
    let metrics = &STAND.metrics;
    let surface = metrics.surface("tiers", [("OK", "")]);
    bencher.bench(|| {
        metrics.cache_lookup(black_box(CacheResult::Fresh));
        surface.answered(black_box("OK"), "");
        surface.took(black_box(Duration::from_micros(2)));
    });
}

/// From the headers of a request to the trailers of its answer.
mod whole_service_without_a_socket {
    use super::{Bencher, Call, STAND};

    #[divan::bench]
    fn check(bencher: Bencher<'_, '_>) {
        answered(bencher, Call::Check);
    }

    #[divan::bench]
    fn check_of_a_forged_key(bencher: Bencher<'_, '_>) {
        answered(bencher, Call::CheckOfForged);
    }

    #[divan::bench]
    fn check_of_an_absent_key(bencher: Bencher<'_, '_>) {
        answered(bencher, Call::CheckOfAbsent);
    }

    #[divan::bench]
    fn ext_authz(bencher: Bencher<'_, '_>) {
        answered(bencher, Call::ExtAuthz);
    }

    #[divan::bench]
    fn ext_authz_of_a_forged_key(bencher: Bencher<'_, '_>) {
        answered(bencher, Call::ExtAuthzOfForged);
    }

    fn answered(bencher: Bencher<'_, '_>, call: Call) {
        bencher
            .with_inputs(|| STAND.request(call))
            .bench_values(|request| STAND.answer(call, request));
    }
}
