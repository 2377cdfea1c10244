//! Tests that need another process: the test program runs itself again.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// The user and group that own nothing, on every Linux and macOS of today.
const PROBE_DIGEST: u32 = 65534;

/// The file that [`again`] passed to this process; `None` in the test run
/// itself.
pub(super) fn passed_path() -> Option<PathBuf> {
    env::args_os().skip(1).last().map(PathBuf::from).filter(|last| last.is_absolute())
}

/// A command that reruns one test in its own process and passes it a
/// path. The test harness takes the path for the name of another test, of which
/// there is none.
fn again(program: &Path, test: &str, path: &Path) -> Command {
    assert!(path.is_absolute());
    let mut command = Command::new(program);
    command.args(["--exact", "--nocapture", test]).arg(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts one test again.
pub(super) fn start_again(test: &str, path: &Path) -> Child {
    again(&env::current_exe().unwrap(), test, path).spawn().unwrap()
}

/// Waits until a test that was started again has passed.
pub(super) fn passes(child: Child) {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}\n{complained}");
}

/// Whether rights do not bind this process.
pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs one test again as a user without rights, and waits until it has passed.
/// `directory` must be open to everybody; the program is copied there, since
/// its own directory may be closed.
pub(super) fn passes_as_nobody(test: &str, directory: &Path) {
    let program = directory.join("test-program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    passes(again(&program, test, directory).uid(PROBE_DIGEST).gid(PROBE_DIGEST).spawn().unwrap());
}
