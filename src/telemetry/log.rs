//! The log: for people on a terminal, JSON lines otherwise, always on stderr.
//!
//! A thread of its own writes it. `tracing-appender` has one too, but counts no
//! failed write, and prints to stdout when nobody reads at the end.

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
    queue::{Entrance, Queue},
};

/// How long the end of the process waits for the reader of the log.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look: `auto` is `pretty` on a terminal and `json` otherwise.
    pub format: LogFormat,
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or
    /// directives such as `info,keystead=debug`. Of each kind of line ten are
    /// logged in ten seconds, and the others counted, unless `trace` is among them.
    #[schemars(title = "a level such as `info`, or directives such as `info,keystead=debug`")]
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
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
    /// `log.filter` cannot be read.
    #[error("log.filter is no filter: {0}; write a level such as `info`, or `info,keystead=debug`")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A word in `log.filter` that is no level.
    #[error(
        "log.filter has `{0}`, which is no level; write error, warn, info, debug, trace or off, or `{0}=debug` for a part of the program"
    )]
    NoLevel(String),
    /// Nobody would write it.
    #[error("cannot start the thread that writes the log: {0}; is the limit of processes too low?")]
    Thread(io::Error),
    /// There is a log already.
    #[error("the log is set up already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Crates whose logs are kept short, unless the filter names them: each step of
/// a migration, the parameters of each statement, and each connection that an
/// outage ends.
const QUIET: &str = "refinery_core=warn,tokio_postgres=error,deadpool=error";

impl LogConfig {
    /// The filter, or why it cannot be read.
    pub fn parsed_filter(&self) -> Result<EnvFilter, LogError> {
        // A lone word that is no level would be taken for the name of a crate,
        // and nothing would be logged.
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

/// How many lines of the log were dropped so far: nobody read them in time, or they
/// could not be written.
#[must_use]
pub fn log_lines_dropped() -> u64 {
    LOG.get().map_or(0, |log| log.queue.dropped())
}

/// The log, for what goes there without being an event.
#[derive(Clone, Copy)]
pub struct Log(&'static Shared);

impl Log {
    /// Adds a line, which has no end of its own.
    pub fn line(self, text: impl fmt::Display) {
        self.0.queue.push(format!("{text}\n").as_bytes());
    }

    /// Waits until all lines have been written, for a second at most. Blocks the
    /// thread.
    pub fn flush(self) {
        self.0.queue.flush(FLUSH_LIMIT);
    }
}

/// Sets the log of this process up. Once.
///
/// From then on nobody who logs waits for whoever reads stderr.
pub fn init_log(config: &LogConfig) -> Result<Log, LogError> {
    let filter = config.parsed_filter()?;
    // Who asks for everything gets everything.
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
        .with_writer(|| Entrance(&log.queue))
        // It would print them to stderr, waiting for its reader.
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

/// Writes what is logged, for as long as the process lives.
fn write(Shared { queue, limit }: &Shared) -> ! {
    // Not locked in between: a panic that is told there must not wait for us.
    let mut out = io::stderr();
    let (mut batch, mut told, mut written) = (Vec::new(), 0, true);
    loop {
        queue.take(&mut batch, INTERVAL);
        // There is room now. While nothing can be written, this would go on for ever.
        let lines = queue.dropped() - told;
        if written && lines > 0 {
            told += lines;
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
    fn a_word_that_is_no_level_is_refused_and_does_not_silence_the_log() {
        for bad in ["warning", "keystead", "info,verbose"] {
            assert!(matches!(filter(bad), Err(LogError::NoLevel(_))), "{bad}");
        }
        for good in ["", "info", "WARN", "info,keystead=debug", "keystead[task]=trace,off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
    }
}
