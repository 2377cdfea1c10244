//! Figures as people read them.

use std::time::Duration;

use crate::statistics::{grouped, median};

/// With a space between thousands.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn count(number: u64) -> String {
    grouped(number as f64)
}

/// In seconds, to the hundredth, or to the millisecond below a second.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{seconds:.3} s") } else { format!("{seconds:.2} s") }
}

/// The middle one, or the mean of the two in the middle. `None` without any.
pub(crate) fn median_time(times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut times = times.into_iter().map(|time| time.as_secs_f64()).peekable();
    times.peek()?;
    Some(Duration::from_secs_f64(median(times)))
}
