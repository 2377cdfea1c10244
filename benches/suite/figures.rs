//! Figures that were measured more than once, and as people read them.

use std::time::Duration;

/// The middle one, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let values = ascending(values);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

/// The quartiles, between which half of them are, as `0.91–0.94`.
pub(crate) fn middle_half(values: impl IntoIterator<Item = f64>) -> String {
    let values = ascending(values);
    let quarter = values.len() / 4;
    let rest = values.len().saturating_sub(quarter + 1);
    match (values.get(quarter), values.get(rest)) {
        (Some(low), Some(high)) => format!("{low:.2}–{high:.2}"),
        _ => "–".to_owned(),
    }
}

/// To a whole number, with a space between thousands: `215 000`.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A count, in the same way.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn count(number: u64) -> String {
    grouped(number as f64)
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// In seconds, to the hundredth, or to the millisecond below a second.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 { format!("{seconds:.3} s") } else { format!("{seconds:.2} s") }
}

/// The median; `None` of none.
pub(crate) fn median_time(times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut times = times.into_iter().map(|time| time.as_secs_f64()).peekable();
    times.peek()?;
    Some(Duration::from_secs_f64(median(times)))
}

fn ascending(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}
