//! Connection metrics.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter, MeterProvider},
};

use super::Metrics;

/// Why a connection to a listener ended or was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client closed it.
    Closed,
    /// It reached its maximum age.
    Age,
    /// The service is shutting down.
    Drain,
    /// The client did not close it within the drain time-out.
    DrainTimedOut,
    /// The client sent nothing, or something other than HTTP.
    NoPreface,
    /// It broke, or violated the protocol.
    Broken,
    /// The client reset more calls at once than may be in flight.
    Resets,
    /// The client sent more overhead frames, such as PING, than any client needs.
    Flood,
    /// The client did not read its responses.
    Unread,
    /// The connection limit was reached.
    Full,
    /// Its peer exceeded its share, and few connections were left.
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

    /// The value of the label `why`.
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

/// Counter of ended connections, with every reason at 0 from the start.
pub(super) fn ended(meter: &Meter) -> Counter<u64> {
    let ended = meter
        .u64_counter("keystead_connections_ended")
        .with_description("Connections that ended or were refused, on all listeners, by reason.")
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

    /// Exports the number of bytes that connections hold, read at every scrape.
    pub fn observe_connection_bytes(&self, held: impl Fn() -> usize + Send + Sync + 'static) {
        self.provider
            .meter("keystead")
            .u64_observable_gauge("keystead_connection_held_bytes")
            .with_description(
                "Bytes of incomplete requests and of responses that clients have not read.",
            )
            .with_callback(move |gauge| gauge.observe(held() as u64, &[]))
            .build();
    }
}
