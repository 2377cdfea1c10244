//! How long after its start an instance answers, with and without a snapshot, and
//! with its store up and down.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::{
    Result, Run,
    environment::{Filled, Ground},
    figures::{count, median_time, seconds},
    grpc::{Channel, block_on},
    keystead::{CHECK, Service},
    process::Place,
    report::{Goal, Section, Table},
};

/// With a snapshot of the most keys.
const MUST: Duration = Duration::from_secs(2);

/// How long an instance may take for whatever it is to reach.
const LIMIT: Duration = Duration::from_mins(1);

/// For how long an instance without snapshot and store is watched that it does not
/// serve, once it is alive.
const WATCHED: Duration = Duration::from_secs(2);

/// How often it is asked whether it serves by now: what is measured is so much too
/// long at most, and a little more.
const EVERY: Duration = Duration::from_millis(1);

/// How long after its start an instance was what.
struct Start {
    /// The service `liveness` is SERVING.
    live: Duration,
    /// A good key was answered with OK.
    answered: Option<Duration>,
    /// The service as a whole is SERVING.
    serving: Option<Duration>,
}

/// The part `start`.
pub(crate) fn measure(run: Run) -> Result<Section> {
    let (counts, times) =
        if run.quick { ([0, 10_000, 100_000], 1) } else { ([0, 100_000, 1_000_000], 3) };
    // One key is in the store and in every snapshot.
    let ground = Ground::set(Place::Anywhere, 1)?;
    let asking = ground.requests(0..1)[0].clone();
    let fill = |&keys: &u64| ground.fill(usize::from(keys > 0), keys);
    let snapshots = counts.iter().map(fill).collect::<Result<Vec<_>>>()?;

    let columns = ["keys in the snapshot", "store", "alive", "first key answered", "SERVING"];
    let mut table = Table::new("", &columns);
    let mut slowest = Duration::ZERO;
    for store in ["up", "down"] {
        if store == "down" {
            ground.postgres.end()?;
        }
        for snapshot in &snapshots {
            let could_serve = store == "up" || snapshot.keys > 0;
            let starts = (0..times).map(|_| start(&ground, snapshot, &asking, could_serve));
            let starts = starts.collect::<Result<Vec<_>>>()?;
            let middle =
                |of: fn(&Start) -> Option<Duration>| median_time(starts.iter().filter_map(of));
            let (answered, serving) = (middle(|it| it.answered), middle(|it| it.serving));
            let told = |time: Option<_>| time.map_or_else(|| "never".to_owned(), seconds);
            table.rows.push(vec![
                if snapshot.keys == 0 { "no snapshot".to_owned() } else { count(snapshot.keys) },
                store.to_owned(),
                told(middle(|it| Some(it.live))),
                told(answered),
                told(serving),
            ]);
            if Some(&snapshot.keys) == counts.last() {
                slowest = slowest.max(answered.max(serving).unwrap_or(LIMIT));
            }
        }
    }
    Ok(Section {
        title: "Start".to_owned(),
        about: format!(
            "From the moment at which the program is executed until the health service says SERVING \
             for `liveness` (*alive*), a key that is in the snapshot and in the store is answered with \
             OK, and the health service says SERVING for the whole; the median of {times}. PostgreSQL \
             is up, or was killed. The snapshot is in the page cache."
        ),
        tables: vec![table],
        goals: vec![Goal {
            what: format!("start to serving with a snapshot of {} keys", count(counts[2])),
            must: seconds(MUST),
            measured: seconds(slowest),
            reached: slowest <= MUST,
        }],
    })
}

fn start(ground: &Ground, snapshot: &Filled, asking: &Bytes, could_serve: bool) -> Result<Start> {
    let program = ground.program(Place::Anywhere, Some(snapshot), &[])?;
    let start = block_on(async {
        let began = Instant::now();
        let mut service = program.start()?;
        let live = until(began, || service.is_serving("liveness"));
        let answered = until(began, || is_answered(&service, asking));
        let serving = until(began, || service.is_serving(""));
        if could_serve {
            let all = async { tokio::join!(live, answered, serving) };
            let Ok((live, answered, serving)) = timeout(LIMIT, all).await else {
                service.process.check_alive(began)?;
                return Err("it does not serve in time".into());
            };
            if snapshot.keys > 0 {
                service.check_held(snapshot.keys)?;
            }
            return Ok(Start { live, answered: Some(answered), serving: Some(serving) });
        }
        let live = timeout(LIMIT, live).await?;
        let either = async {
            tokio::select! { it = answered => it, it = serving => it }
        };
        if timeout(WATCHED, either).await.is_ok() {
            return Err("it says that it serves, or lets a key in unseen".into());
        }
        Ok(Start { live, answered: None, serving: None })
    });
    start.map_err(|error| format!("a start with {} keys: {error}", snapshot.keys).into())
}

/// How long after `began` it is so.
async fn until<F: Future<Output = Result<bool>>>(
    began: Instant,
    is_so: impl Fn() -> F,
) -> Duration {
    // Nobody listens at first.
    while !is_so().await.unwrap_or(false) {
        sleep(EVERY).await;
    }
    began.elapsed()
}

async fn is_answered(service: &Service, asking: &Bytes) -> Result<bool> {
    let answer = Channel::connect(service.grpc).await?.call(CHECK, asking.clone()).await?;
    let code = Code::from(answer.status);
    let denied = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
    assert!(!denied, "a good key is denied");
    Ok(code == Code::Ok)
}
