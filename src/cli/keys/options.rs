//! Values on the command line of several subcommands.

use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;

use crate::{
    cli::Failure,
    key::{Environment, KeyId},
    manage::environment_of,
};

/// `--env`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum EnvironmentOption {
    /// A key for real work.
    Live,
    /// A key for trying things out. The service treats both alike.
    Test,
}

impl From<EnvironmentOption> for Environment {
    fn from(option: EnvironmentOption) -> Self {
        match option {
            EnvironmentOption::Live => Self::Live,
            EnvironmentOption::Test => Self::Test,
        }
    }
}

/// Reads a length of time, `0s` included.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a length of time such as 90d, 24h or 30m"))
}

/// Reads a length of time that is not nothing.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime.is_zero() {
        return Err("the key would never be valid; write a time such as 90d".to_owned());
    }
    Ok(lifetime)
}

/// Reads a point in time.
pub(super) fn instant(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write an RFC 3339 time such as 2027-01-31T12:00:00Z".to_owned())
}

/// The end of a time that begins now.
pub(super) fn after(now: Timestamp, time: Duration, flag: &str) -> Result<Timestamp, Failure> {
    now.checked_add(time).map_err(|_| {
        let time = humantime::format_duration(time);
        Failure::new(format!("{flag} {time} ends past the year 9999; choose a shorter time"))
    })
}

/// Reads the id of a key. A key that was given in its place is not repeated in
/// the message.
pub(super) fn key_id(text: &str) -> Result<KeyId, Failure> {
    if environment_of(text).is_some() {
        return Err(Failure::new(
            "that is a key, not the id of one (key_…); `keystead keys list` shows the id beside \
             the last four digits of the key",
        ));
    }
    Ok(text.parse::<KeyId>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_unit() {
        assert_eq!(duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(lifetime("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(lifetime("0s").unwrap_err().contains("never be valid"));
        for bad in ["", "90", "x", "-1d"] {
            assert!(duration(bad).unwrap_err().contains("such as 90d"), "{bad}");
        }
    }

    #[test]
    fn an_instant_has_an_offset() {
        assert!(instant("2027-01-31T12:00:00Z").is_ok());
        assert!(instant("2027-01-31T12:00:00+02:00").is_ok());
        for bad in ["2027-01-31", "2027-01-31T12:00:00", "tomorrow"] {
            assert!(instant(bad).unwrap_err().contains("RFC 3339"), "{bad}");
        }
    }

    #[test]
    fn a_time_past_the_end_of_the_calendar_is_refused() {
        let now = Timestamp::UNIX_EPOCH;
        assert!(after(now, Duration::from_hours(24), "--grace").is_ok());
        let error = after(now, Duration::from_hours(24 * 366 * 9000), "--grace").unwrap_err();
        assert!(error.message.starts_with("--grace ") && error.message.contains("9999"));
    }

    #[test]
    fn a_key_in_place_of_an_id_is_never_repeated() {
        for key in ["ks_live_0123456789", "acme_test_x", "ks_live_"] {
            let error = key_id(key).unwrap_err().message;
            assert!(error.contains("not the id of one") && !error.contains(key), "{error}");
        }
        for id in ["key_0123456789", "17", "a_b_live", "live_key", "key_live"] {
            assert!(key_id(id).is_ok(), "{id}");
        }
    }
}
