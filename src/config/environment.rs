//! The environment: `KEYSTEAD_` and the key in upper case, `__` between levels.

use std::ffi::{OsStr, OsString};

use super::{
    Problem,
    settings::{Setting, Settings},
    sources::Reading,
};

const PREFIX: &str = "KEYSTEAD_";

/// Names the configuration file; the command line reads it.
const FILE_VARIABLE: &str = "KEYSTEAD_CONFIG";

/// Whether a variable has our prefix.
pub(super) fn is_ours(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

/// Reads variables that have our prefix.
pub(super) fn read(variables: &[(OsString, OsString)], reading: &mut Reading) {
    // The order of variables is arbitrary; that of messages should not be.
    let mut variables: Vec<_> = variables.iter().collect();
    variables.sort();
    for (name, value) in variables {
        let name = name.to_string_lossy();
        let setting = Settings::all().iter().find(|setting| setting.variable() == name);
        if let Some(setting) = setting {
            set(setting, &name, value, reading);
        } else if name != FILE_VARIABLE && !is_from_kubernetes(&name, &value.to_string_lossy()) {
            reading.problems.push(unknown(&name));
        }
    }
}

fn set(setting: &'static Setting, name: &str, value: &OsStr, reading: &mut Reading) {
    match value.to_str() {
        // Falling back to the default would hide, say, a missing URL.
        Some("") => {
            let what = format!("`{}` is empty; unset it or give it a value", setting.key);
            reading.wrong(setting, Problem::at(name, what));
        }
        Some(text) => reading.value(setting, setting.read(text), name),
        None => {
            let what = format!("`{}` is not UTF-8; write {}", setting.key, setting.expected());
            reading.wrong(setting, Problem::at(name, what));
        }
    }
}

fn unknown(name: &str) -> Problem {
    let key = name.strip_prefix(PREFIX).unwrap_or(name);
    let key = key.to_ascii_lowercase().replace("__", ".");
    // The most frequent mistake is one underscore instead of two.
    let settings = Settings::all();
    let slip = settings.iter().find(|s| s.key.replace('.', "_") == key.replace('.', "_"));
    let nearest = slip.or_else(|| settings.nearest(&key));
    let hint = nearest.map(|near| format!("; did you mean {}?", near.variable()));
    Problem::new(format!("{name} is no setting{}", hint.unwrap_or_default()))
}

/// Whether Kubernetes has set the variable.
///
/// Kubernetes describes every Service of the namespace to every container, in the form
/// of Docker links. A Service `keystead`, or one whose name begins with `keystead-`,
/// therefore sets variables with our prefix:
///
/// ```text
/// KEYSTEAD_SERVICE_HOST=10.0.0.11
/// KEYSTEAD_SERVICE_PORT=50051
/// KEYSTEAD_SERVICE_PORT_GRPC=50051
/// KEYSTEAD_PORT=tcp://10.0.0.11:50051
/// KEYSTEAD_PORT_50051_TCP=tcp://10.0.0.11:50051
/// KEYSTEAD_PORT_50051_TCP_PROTO=tcp      and _PORT, _ADDR
/// ```
///
/// A name that ends in `_PORT` may also be a mistake of the operator, such as
/// `KEYSTEAD_LISTEN_PORT=50051`; only Kubernetes writes a URL there.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name == "KEYSTEAD_PORT"
        || (name.ends_with("_PORT") && value.starts_with("tcp://"))
        || name.match_indices("_PORT_").any(|(at, port)| is_port(&name[at + port.len()..]))
}

/// Whether `rest` can follow `_PORT_` in the variables of one port.
fn is_port(rest: &str) -> bool {
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    name.len() < rest.len() && ["_TCP", "_TCP_PROTO", "_TCP_PORT", "_TCP_ADDR"].contains(&name)
}
