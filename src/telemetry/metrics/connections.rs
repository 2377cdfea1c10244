//! The instruments of connections.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter, MeterProvider},
};

use super::Metrics;

/// Why a connection to one of the listeners ended, or did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client closed it.
    Closed,
    /// It had reached its age.
    Age,
    /// The service stops.
    Drain,
    /// The client did not let go when it was asked to.
    DrainTimedOut,
    /// The client said nothing, or not HTTP.
    NoPreface,
    /// It broke, or did not keep to the protocol.
    Broken,
    /// More calls were given up at once than may be under way.
    Resets,
    /// Frames came that bring nothing, such as PING, more than any client needs.
    Flood,
    /// Its client did not take its answers.
    Unread,
    /// There was no place for it.
    Full,
    /// Its peer had more than its share, and few places were left.
    Share,
}

impl ConnectionEnd {
    const ALL: [Self; 11] = [
        Self::Closed,
        Self::Age,
        Self::Drain,
        Self::DrainTimedOut,
        Self::NoPreface,
        Self::Broken,
        Self::Resets,
        Self::Flood,
        Self::Unread,
        Self::Full,
        Self::Share,
    ];

    /// As the label has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Age => "age",
            Self::Drain => "drain",
            Self::DrainTimedOut => "drain_timed_out",
            Self::NoPreface => "no_preface",
            Self::Broken => "broken",
            Self::Resets => "resets",
            Self::Flood => "flood",
            Self::Unread => "unread",
            Self::Full => "full",
            Self::Share => "share",
        }
    }
}

/// Those that ended, each at 0 from the start.
pub(super) fn ended(meter: &Meter) -> Counter<u64> {
    let ended = meter
        .u64_counter("keystead_connections_ended")
        .with_description("Connections that ended or were refused, on all listeners, by why.")
        .build();
    for why in ConnectionEnd::ALL {
        ended.add(0, &[KeyValue::new("why", why.as_str())]);
    }
    ended
}

impl Metrics {
    /// Counts a connection that has ended or was refused.
    pub fn connection_ended(&self, why: ConnectionEnd) {
        self.connections_ended.add(1, &[KeyValue::new("why", why.as_str())]);
    }

    /// Shows how many bytes connections hold, read whenever the metrics are.
    pub fn observe_connection_bytes(&self, held: impl Fn() -> usize + Send + Sync + 'static) {
        self.provider
            .meter("keystead")
            .u64_observable_gauge("keystead_connection_held_bytes")
            .with_description(
                "Bytes of requests that wait for their rest and of answers that were not taken.",
            )
            .with_callback(move |gauge| gauge.observe(held() as u64, &[]))
            .build();
    }
}
