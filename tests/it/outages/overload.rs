//! Three times of what the store can answer, and then no more than usual.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{interval, sleep},
};
use tonic::{Code, Status, transport::Channel};

use super::{RECOVERY, site::Site};
use crate::harness::{
    app::{Service, check_over, presenting},
    beside,
    keys::Key,
    proxy::Conduct,
    refusal::Refusal,
};

/// Each way takes so long, so that a query takes twice that.
const WAY: Duration = Duration::from_millis(40);

/// Permits of the store, which looks up one key a query.
const PERMITS: u32 = 2;

/// What the store can answer a second, at best.
const CAPACITY: u32 = 1000 * PERMITS / 80;

/// Duration of the load at three times the capacity.
const OVERLOAD: Duration = Duration::from_secs(30);

/// Load per second afterwards.
const USUAL: u32 = CAPACITY / 2;

/// Attempts of a refused caller.
const ATTEMPTS: usize = 3;

/// A check of a key that nobody has checked: when, and how it ended.
type End = (Instant, Code);

/// Asks about one new key after the other, whether the last was answered or not.
struct Callers {
    service: Service,
    keys: std::vec::IntoIter<Key>,
    ends: Arc<watch::Sender<Vec<End>>>,
}

impl Callers {
    async fn come(&mut self, a_second: u32, lasts: Duration) {
        let mut ticks = interval(Duration::from_secs(1) / a_second);
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            ticks.tick().await;
            let key = self.keys.next().expect("there are enough keys");
            let (channel, ends) = (self.service.channel(), Arc::clone(&self.ends));
            beside(insist(channel, key, ends));
        }
    }

    /// How many ended within a second from then on, and how many of them well.
    fn second(&self, from: Instant) -> (usize, usize) {
        let ends = self.ends.borrow();
        let within = |at: &Instant| (from..from + Duration::from_secs(1)).contains(at);
        let ours = || ends.iter().filter(|(at, _)| within(at));
        (ours().count(), ours().filter(|(_, code)| *code == Code::Ok).count())
    }
}

/// Retries after the delay it is given, up to [`ATTEMPTS`] times: what makes an
/// overload feed itself.
async fn insist(channel: Channel, key: Key, ends: Arc<watch::Sender<Vec<End>>>) {
    for _ in 0..ATTEMPTS {
        let at = Instant::now();
        let outcome = check_over(channel.clone(), presenting(&key.text)).await;
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        ends.send_modify(|ends| ends.push((at, code)));
        let Some(delay) = outcome.err().and_then(|status| Refusal::of(&status).retry_after) else {
            return;
        };
        sleep(delay).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overload_ends_with_the_load_and_has_no_lasting_effect() {
    let mut site = Site::new(Duration::from_millis(400)).await;
    site.config.store.guard.max_in_flight = NonZeroUsize::new(PERMITS as usize).unwrap();
    site.config.fill.batch_max = NonZeroUsize::MIN;
    let overload = 3 * CAPACITY * u32::try_from(OVERLOAD.as_secs() + 1).unwrap();
    let usual = USUAL * u32::try_from(RECOVERY.as_secs() + 2).unwrap();
    let keys = site.keys((overload + usual) as usize).await;
    let service = Service::ready(&site.config).await;
    site.proxy.set(Conduct::Delay(WAY));
    let ends = Arc::new(watch::channel(Vec::new()).0);
    let mut callers = Callers { service, keys: keys.into_iter(), ends };

    let began = Instant::now();
    callers.come(3 * CAPACITY, OVERLOAD).await;
    let goodput: Vec<_> =
        (1..29).map(|s| callers.second(began + Duration::from_secs(s)).1).collect();
    println!("answered in each second of overload, of {CAPACITY} that can be: {goodput:?}");
    let eased = Instant::now();
    callers.come(USUAL, RECOVERY).await;
    let seconds: Vec<_> = (0..9).map(|s| callers.second(eased + Duration::from_secs(s))).collect();
    println!("all and answered in each second after it: {seconds:?}");

    let all: usize = goodput.iter().sum();
    let could = CAPACITY as usize * goodput.len();
    assert!(all > could / 4, "{all} of {could} that the store could have answered: {goodput:?}");
    for (_, code) in callers.ends.borrow().iter() {
        assert!(matches!(code, Code::Ok | Code::Unavailable), "{code:?}");
    }
    let well = |(all, ok): &(usize, usize)| *all > 0 && all == ok;
    assert!(seconds.iter().any(well), "{seconds:?}");
    assert!(well(seconds.last().unwrap()), "it does not last: {seconds:?}");
}
