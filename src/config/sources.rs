//! The sources of settings.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    Problem, environment, file,
    settings::{Raw, Setting, Settings},
};

/// The sources of a configuration: a file, the environment and flags, each optional.
/// Has no `Debug`, as a value may be a secret.
#[derive(Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    overrides: Vec<(String, String)>,
}

/// What was read from the sources.
pub(super) struct Reading {
    /// Every value that is valid on its own, in order of increasing precedence.
    pub(super) given: Vec<Given>,
    /// All problems.
    pub(super) problems: Vec<Problem>,
    /// The settings whose values are not fully known.
    pub(super) doubtful: Doubtful,
}

/// One value.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) value: Raw,
}

/// The settings whose values are unknown, because a source that sets them, or may set
/// them, could not be read.
#[derive(Debug, Default)]
pub(super) struct Doubtful {
    /// All of them.
    pub(super) all: bool,
    /// Some of them.
    pub(super) keys: BTreeSet<&'static str>,
}

impl Sources {
    /// Adds a TOML file.
    #[must_use]
    pub fn with_file(mut self, path: impl AsRef<Path>) -> Self {
        self.file = Some(path.as_ref().to_owned());
        self
    }

    /// Adds environment variables; those that do not begin with `KEYSTEAD_` are
    /// ignored.
    #[must_use]
    pub fn with_environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.environment.extend(variables.filter(|(name, _)| environment::is_ours(name)));
        self
    }

    /// Adds the environment of this process.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn with_process_environment(self) -> Self {
        self.with_environment(std::env::vars_os())
    }

    /// Adds a value that was given as a flag, by its dotted key, for example `store.url`.
    /// The last value of a key wins.
    #[must_use]
    pub fn with_override(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.overrides.push((key.into(), value.into()));
        self
    }

    pub(super) fn read(&self) -> Reading {
        let mut reading = Reading::new();
        if let Some(path) = &self.file {
            file::read(path, &mut reading);
        }
        environment::read(&self.environment, &mut reading);
        self.read_overrides(&mut reading);
        reading
    }

    fn read_overrides(&self, reading: &mut Reading) {
        const ORIGIN: &str = "command line";
        for (key, text) in &self.overrides {
            match Settings::all().get(key) {
                Some(setting) => reading.value(setting, setting.read(text), ORIGIN),
                None => reading.unknown(key, ORIGIN),
            }
        }
    }
}

impl Reading {
    const fn new() -> Self {
        let doubtful = Doubtful { all: false, keys: BTreeSet::new() };
        Self { given: Vec::new(), problems: Vec::new(), doubtful }
    }

    /// Takes a value if it is valid.
    pub(super) fn value(&mut self, setting: &'static Setting, value: Raw, origin: &str) {
        match setting.validate(&value) {
            Ok(()) => self.given.push(Given { setting, value }),
            Err(what) => self.wrong(setting, Problem::at(origin, what)),
        }
    }

    /// Records that the value of a setting cannot be used.
    pub(super) fn wrong(&mut self, setting: &'static Setting, problem: Problem) {
        self.doubtful.keys.insert(&setting.key);
        self.problems.push(problem);
    }

    /// Records that there is no setting of that name.
    pub(super) fn unknown(&mut self, key: &str, origin: &str) {
        let nearest = Settings::all().nearest(key);
        let hint = nearest.map(|near| format!("; did you mean `{}`?", near.key));
        let what = format!("`{key}` is no setting{}", hint.unwrap_or_default());
        self.problems.push(Problem::at(origin, what));
    }
}
