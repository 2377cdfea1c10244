//! The data directory that every server's is copied from.

use std::{
    env,
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use super::{
    super::process::{run, unprivileged},
    PASSWORD, find_binary,
};

/// Makes the data directory if no test has yet, this run or an earlier one.
pub(super) fn path() -> PathBuf {
    static PATH: LazyLock<PathBuf> = LazyLock::new(|| {
        // Data of one version is of no use to another.
        let version = Command::new(binary("postgres")).arg("--version").output().unwrap().stdout;
        let version = String::from_utf8(version).unwrap();
        let version = version.split_whitespace().nth(2).expect("postgres (PostgreSQL) VERSION …");
        // Not under target/: the user who runs the server may have no way to a
        // checkout of ours, as below /root. Each user has a
        // separate directory.
        let user = fs::metadata(env!("CARGO_TARGET_TMPDIR")).unwrap().uid();
        let directory = env::temp_dir().join(format!("keystead-tests-{user}-postgres-{version}"));
        fs::create_dir_all(&directory).unwrap();
        // The user who runs the server makes the data in here.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        // Another process may be running tests too.
        let lock = File::create(directory.join("lock")).unwrap();
        lock.lock().unwrap();
        let data = directory.join("data");
        if !data.exists() {
            make(&directory.join("unfinished"), &data);
        }
        data
    });
    PATH.clone()
}

/// Makes a data directory, which appears when it is whole.
pub(super) fn make(unfinished: &Path, data: &Path) {
    let _ = fs::remove_dir_all(unfinished);
    run(unprivileged(&binary("initdb"))
        .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
        .args(["--encoding=UTF8", "--locale=C.UTF-8", "--wal-segsize=1", "--no-sync"])
        .arg("--pgdata")
        .arg(unfinished));
    // With -j, a command ends at a semicolon and an empty line. The database
    // `postgres` becomes ours, so that there is not one more to copy.
    let commands = format!(
        "CREATE ROLE keystead LOGIN PASSWORD '{PASSWORD}';\n\n\
         ALTER DATABASE postgres RENAME TO keystead;\n\n\
         ALTER DATABASE keystead OWNER TO keystead;\n\n"
    );
    let mut single = unprivileged(&binary("postgres"))
        .args(["--single", "-j", "-c", "fsync=off", "-D"])
        .arg(unfinished)
        .arg("template1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    single.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(single.wait().unwrap().success(), "the template could not be set up");
    fs::rename(unfinished, data).unwrap();
}

/// A program of the PostgreSQL server.
pub(super) fn binary(name: &str) -> PathBuf {
    static DIRECTORIES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let mut directories = Vec::new();
        if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
            directories.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
        }
        // Where Debian keeps them, one directory a version.
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        directories.extend(versions.filter_map(|entry| Some(entry.ok()?.path().join("bin"))));
        directories
    });
    find_binary(name, &DIRECTORIES, "install it with `apt-get install postgresql`")
}
