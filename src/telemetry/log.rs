//! The log: for people on a terminal, JSON lines otherwise, always on stderr.

use std::io::{self, IsTerminal};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look: `auto` is `pretty` on a terminal and `json` otherwise.
    pub format: LogFormat,
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or
    /// directives such as `info,keystead=debug`.
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

/// Sets the log of this process up. Once.
pub fn init_log(config: &LogConfig) -> Result<(), LogError> {
    let filter = config.parsed_filter()?;
    let terminal = io::stderr().is_terminal();
    let pretty = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if pretty {
        builder.with_ansi(terminal).with_target(false).finish().try_init()?;
    } else {
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()?;
    }
    Ok(())
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
