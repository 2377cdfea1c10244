//! Whatever a file and the environment hold, reading them gives a configuration
//! or says what is wrong; and shows no password.
//!
//! The input is cut at zero bytes: first the file, then names and values of
//! variables by turns.

#![no_main]

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{fd::IntoRawFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process,
    sync::LazyLock,
};

use keystead::config::{Config, Sources};
use libfuzzer_sys::fuzz_target;

/// Long enough that no fuzzer writes it into a message by chance.
const PASSWORD: &str = "correct-horse-battery";

static GIVEN: LazyLock<PathBuf> = LazyLock::new(file_without_a_name);
static PRINTED: LazyLock<PathBuf> = LazyLock::new(file_without_a_name);

fuzz_target!(|input: &[u8]| {
    let mut parts = input.split(|byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let parts: Vec<&[u8]> = parts.collect();

    let variables = parts.chunks_exact(2).map(|pair| {
        let name = [b"KEYSTEAD_", pair[0]].concat();
        (OsStr::from_bytes(&name).to_owned(), OsStr::from_bytes(pair[1]))
    });
    let url = format!("postgres://keystead:{PASSWORD}@db/keystead");
    let sources = reading(&GIVEN, file).with_environment(variables);
    for sources in [sources.clone(), sources.with_override("store.url", url)] {
        match Config::load(&sources) {
            Ok(config) => reads_back(&config),
            Err(errors) => {
                let said = format!("{errors} {errors:?}");
                assert!(!said.contains(PASSWORD), "a password is shown");
                assert!(!said.contains("report this as a bug"), "{said}");
            }
        }
    }
});

/// What is printed as the configuration in force is one, and says the same.
fn reads_back(config: &Config) {
    let printed = config.to_toml().expect("a configuration that was read can be written");
    assert!(!printed.contains(PASSWORD), "a password is shown");
    let again = Config::load(&reading(&PRINTED, printed.as_bytes()));
    let again = again.unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(again.to_toml().as_deref(), Ok(printed.as_str()));
}

fn reading(path: &Path, text: &[u8]) -> Sources {
    fs::write(path, text).expect("a file in memory can be written");
    Sources::default().with_file(path)
}

/// In memory, and gone with the process, however that ends.
fn file_without_a_name() -> PathBuf {
    let name = Path::new("/dev/shm").join(format!("keystead-fuzz-{}", process::id()));
    let file = File::create(&name).expect("Linux has a folder in memory");
    fs::remove_file(name).expect("it was just made");
    PathBuf::from(format!("/proc/self/fd/{}", file.into_raw_fd()))
}
