//! What the slowest hundredth of those who check warm keys notices of a
//! fault: ratios of times, which mean something in an optimised build with
//! nothing beside it, and are tested in such a build alone (`scripts/soak`).

use std::time::{Duration, Instant};

use tonic::Code;

use super::{
    fault::Fault,
    site::{Site, until_answered},
};
use crate::harness::{
    app::Service,
    eventually,
    load::{KeyClass, Load, Plan},
    observer::counting,
    proxy::Conduct,
};

/// How long each phase lasts: thousands of checks.
const LASTS: Duration = Duration::from_secs(5);

/// Keys, each of which was seen before the fault.
const SEEN: usize = 1000;

/// How much longer the slowest hundredth may take than before the fault.
const FACTOR: u32 = 2;

macro_rules! unnoticed {
    ($($name:ident: $fault:expr,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                unnoticed($fault).await;
            }
        )*
    };
}

unnoticed! {
    slowest_warm_checks_do_not_notice_that_the_server_is_killed: Fault::Killed,
    slowest_warm_checks_do_not_notice_that_the_server_hangs: Fault::Stopped,
    slowest_warm_checks_do_not_notice_a_black_hole: Fault::Network(Conduct::Swallow),
    slowest_warm_checks_do_not_notice_that_the_table_is_gone: Fault::TableRenamed,
    slowest_warm_checks_do_not_notice_that_the_table_is_emptied: Fault::Emptied,
}

/// With the windows as they are by default.
async fn unnoticed(fault: Fault) {
    let mut site = Site::with(Duration::from_millis(100), counting()).await;
    let keys = site.keys(SEEN).await;
    let service = Service::ready(&site.config).await;
    for key in &keys {
        until_answered(&service, key).await;
    }
    let rest = Duration::from_millis(1);
    let plan = Plan { warm: keys, unseen: Vec::new(), callers: 4, rest };

    let mut load = Load::start(&service, plan, "settling");
    passed(LASTS / 5).await;
    load.phase("before");
    passed(LASTS).await;
    load.phase("during");
    fault.strike(&mut site).await;
    passed(LASTS).await;
    let record = load.stop().await;
    fault.mend(&mut site).await;

    let [before, during] = ["before", "during"].map(|phase| record.during(phase, KeyClass::Warm));
    let [normal, then] = [&before, &during].map(|slice| slice.permille(990));
    println!(
        "{fault:?}: p99 of {} checks {normal:?}, then of {} {then:?}",
        before.count(),
        during.count()
    );
    assert_eq!(during.tally.of_code(Code::Ok), during.count(), "{:?}", during.tally);
    assert!(then < FACTOR * normal, "{then:?} instead of {normal:?}");
}

async fn passed(time: Duration) {
    let began = Instant::now();
    eventually("time has passed", async || (began.elapsed() > time).then_some(())).await;
}
