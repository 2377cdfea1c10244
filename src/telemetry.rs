//! What operators see: every instrument in one file, and the log.

mod log;
mod metrics;

pub use log::{LogConfig, LogError, LogFormat, init_log};
pub use metrics::{
    CacheResult, ConnectionEnd, Exposition, InFlight, Metrics, MetricsError, SnapshotLoad,
    SurfaceMetrics,
};
