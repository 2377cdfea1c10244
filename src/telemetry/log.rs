//! Logging to stderr: pretty on a terminal, JSON lines otherwise.
//!
//! A dedicated thread writes the log. `tracing-appender` has one too, but does not count failed
//! writes, and prints to stdout when nobody reads stderr at shutdown.

mod limit;
mod queue;

use std::{
    fmt,
    io::{self, IsTerminal},
    sync::OnceLock,
    thread,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    limit::{INTERVAL, LINES_PER_INTERVAL, Limit},
    queue::{Queue, QueueWriter},
};

/// How long shutdown waits for the reader of the log.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// Which events are logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Format of log lines: `auto` is `pretty` on a terminal and `json` otherwise.
    pub format: LogFormat,
    /// Which events are logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or directives
    /// such as `info,keystead=debug`. Each log statement may write ten lines in ten seconds;
    /// further ones are counted, unless the filter includes `trace`.
    #[schemars(title = "a level such as `info`, or directives such as `info,keystead=debug`")]
    pub filter: String,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Human-readable lines.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.filter` cannot be parsed.
    #[error("log.filter is no filter: {0}; write a level such as `info`, or `info,keystead=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An item in `log.filter` that is not a level.
    #[error(
        "log.filter has `{0}`, which is no level; write error, warn, info, debug, trace or off, or \
         `{0}=debug` for a part of the program"
    )]
    NoLevel(String),
    /// The writer thread cannot be started.
    #[error("cannot start the thread that writes the log: {0}; is the limit of processes too low?")]
    Thread(io::Error),
    /// Logging is set up already.
    #[error("the log is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Crates whose logs are reduced unless the filter names them: they log each step of a
/// migration, the parameters of each statement, and each connection that an outage ends.
const QUIET: &str = "refinery_core=warn,tokio_postgres=error,deadpool=error";

impl LogConfig {
    /// Parses the filter.
    pub fn parsed_filter(&self) -> Result<EnvFilter, LogError> {
        // `EnvFilter` would take a lone word that is not a level for the name of a crate, and log
        // nothing.
        let mut words = self.filter.split(',').map(str::trim).filter(|word| !word.is_empty());
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        let is_level = |word: &str| levels.iter().any(|level| level.eq_ignore_ascii_case(word));
        if let Some(word) = words.find(|word| !word.contains(['=', '[']) && !is_level(word)) {
            return Err(LogError::NoLevel(word.to_owned()));
        }
        let filter = format!("{QUIET},{}", self.filter);
        Ok(EnvFilter::builder().parse(filter)?)
    }
}

/// The log of this process, once it is set up.
static LOG: OnceLock<Shared> = OnceLock::new();

struct Shared {
    queue: Queue,
    limit: Limit,
}

/// Number of log lines dropped so far: nobody read them in time, or writing failed.
#[must_use]
pub fn log_lines_dropped() -> u64 {
    LOG.get().map_or(0, |log| log.queue.dropped())
}

/// A handle to the log, for lines that are not events.
#[derive(Clone, Copy)]
pub struct Log(&'static Shared);

impl Log {
    /// Appends a line. `text` has no trailing newline.
    pub fn line(self, text: impl fmt::Display) {
        self.0.queue.push(format!("{text}\n").as_bytes());
    }

    /// Waits until all lines have been written, for at most one second. Blocks the thread.
    pub fn flush(self) {
        self.0.queue.flush(FLUSH_LIMIT);
    }
}

/// Sets up the log of this process. May succeed only once.
///
/// From then on, no caller that logs waits for the reader of stderr.
pub fn init_log(config: &LogConfig) -> Result<Log, LogError> {
    let filter = config.parsed_filter()?;
    // A `trace` filter asks for everything: no rate limit.
    let all = filter.max_level_hint() == Some(LevelFilter::TRACE);
    let lines_per_interval = if all { u64::MAX } else { LINES_PER_INTERVAL };
    let log = LOG
        .get_or_init(|| Shared { queue: Queue::default(), limit: Limit::new(lines_per_interval) });
    let terminal = io::stderr().is_terminal();
    let pretty = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| QueueWriter(&log.queue))
        // Internal errors would go to stderr and block until its reader takes them.
        .log_internal_errors(false);
    if pretty {
        builder.with_ansi(terminal).with_target(false).finish().with(&log.limit).try_init()?;
    } else {
        let builder = builder.json().flatten_event(true).with_current_span(false);
        builder.finish().with(&log.limit).try_init()?;
    }
    thread::Builder::new().name("log".to_owned()).spawn(|| write(log)).map_err(LogError::Thread)?;
    Ok(Log(log))
}

/// Writes the log for as long as the process lives.
fn write(Shared { queue, limit }: &Shared) -> ! {
    // Not locked between writes: a panic message must not wait for this thread.
    let mut out = io::stderr();
    let (mut batch, mut reported, mut written) = (Vec::new(), 0, true);
    loop {
        queue.take(&mut batch, INTERVAL);
        // The queue has room now. While writing fails, this line would itself be dropped, for ever.
        let lines = queue.dropped() - reported;
        if written && lines > 0 {
            reported += lines;
            tracing::warn!(lines, "log lines were dropped: nobody read them, or writing failed");
        }
        limit.report();
        written = queue.write(&mut out, &batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Result<EnvFilter, LogError> {
        LogConfig { filter: text.to_owned(), ..LogConfig::default() }.parsed_filter()
    }

    #[test]
    fn filter_item_that_is_not_a_level_is_rejected_and_does_not_silence_the_log() {
        for bad in ["warning", "keystead", "info,verbose"] {
            assert!(matches!(filter(bad), Err(LogError::NoLevel(_))), "{bad}");
        }
        for good in ["", "info", "WARN", "info,keystead=debug", "keystead[task]=trace,off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
    }
}
