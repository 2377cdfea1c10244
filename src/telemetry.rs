//! Logging and the metrics of every tier.

mod log;
mod metrics;

pub use log::{Log, LogConfig, LogError, LogFormat, init_log, log_lines_dropped};
pub use metrics::{
    CacheResult, ConnectionEnd, Exposition, InFlight, Metrics, MetricsError, SnapshotLoad,
    SurfaceMetrics,
};
