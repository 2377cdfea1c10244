//! What the process is to others on its machine: the signals that it takes, the
//! memory that it shows nobody, and the files that nobody else may read.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::harness::{
    admin::Admin,
    eventually,
    keystead::{Keystead, Ran},
};

const CREATE: [&str; 4] = ["keys", "create", "--principal", "acme"];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Panics unless a command was refused for a file that others may use, with what to
/// run.
#[track_caller]
fn is_refused(ran: Ran, path: &Path, mode: u32, remedy: &str) {
    let error = ran.failed(1);
    let path = path.file_name().unwrap().to_str().unwrap();
    for words in [&format!("others may use it (mode {mode:o})"), remedy, path] {
        assert!(error.contains(words), "{words} is not in {error}");
    }
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[tokio::test]
async fn signal_that_means_nothing_here_ends_nothing_and_is_logged() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let ignored = ["HUP", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "XFSZ"];
    server.signal("PIPE").await;
    for name in ignored {
        server.signal(name).await;
        eventually("it is logged", async || {
            server.log().contains(&format!(r#""signal":"SIG{name}""#)).then_some(())
        })
        .await;
        assert_eq!(Admin(server.admin).get("/livez").await.status, 200, "{name}");
    }
    assert!(server.stop().await.success());
}

#[tokio::test]
async fn quit_drains_without_a_delay() {
    let keystead = Keystead::new();
    let mut server = keystead.serve(&[]).await;
    server.signal("QUIT").await;
    assert!(server.ended().await.success(), "{}", server.log());
    assert!(server.log().contains("stopping on SIGQUIT"));
}

/// The kernel gives what shows the memory of a process to root when it must not be
/// dumped: then there is no core dump either.
#[tokio::test]
async fn memory_is_shown_to_root_alone() {
    let keystead = Keystead::new().run_by_nobody();
    let server = keystead.serve(&[]).await;
    let process = format!("/proc/{}", server.pid());
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert_ne!(user.split_whitespace().next(), Some("0"), "root may look at everything");
    assert_eq!(fs::metadata(format!("{process}/mem")).unwrap().uid(), 0);
    assert!(server.stop().await.success());
}

#[tokio::test]
async fn file_that_others_may_read_is_refused_until_its_mode_is_mended() {
    let keystead = Keystead::new();
    keystead.run(CREATE).await.ok();
    // SQLite keeps two files beside the database for as long as it is open.
    let server = keystead.serve(&[]).await;
    for name in ["keystead.secret", "keystead.db", "keystead.db-wal", "keystead.db-shm"] {
        let path = keystead.path(name);
        for mode in [0o644, 0o604, 0o602, 0o666] {
            set_mode(&path, mode);
            is_refused(keystead.run(CREATE).await, &path, mode, "run `chmod 600 ");
            let again = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
            is_refused(keystead.run(again).await, &path, mode, "run `chmod 600 ");
        }
        // To the group of this process, as Kubernetes gives what is on a volume.
        for mode in [0o600, 0o640, 0o660] {
            set_mode(&path, mode);
            keystead.run(CREATE).await.ok();
        }
    }
    assert!(server.stop().await.success());
}

#[tokio::test]
async fn secret_file_may_be_a_link_to_what_the_group_may_read_and_nobody_else() {
    let config = "keys.secret_file = \"mounted\"\n";
    let keystead = Keystead::new().configured_by("keystead.toml", config);
    let secret = keystead.run(["keys", "new-secret"]).await.ok();
    let path = keystead.write("secret", secret);
    symlink(&path, keystead.path("mounted")).unwrap();
    for mode in [0o400, 0o600, 0o440, 0o640] {
        set_mode(&path, mode);
        keystead.run(CREATE).await.ok();
    }
    for mode in [0o444, 0o644, 0o660, 0o620] {
        set_mode(&path, mode);
        is_refused(keystead.run(CREATE).await, &keystead.path("mounted"), mode, "chmod 600 ");
    }
}

#[tokio::test]
async fn new_secret_is_closed_to_others_whatever_the_umask_says() {
    let keystead = Keystead::new();
    for (before, after) in [(0o644, 0o600), (0o640, 0o640), (0o600, 0o600)] {
        let path: PathBuf = keystead.write("secret", "");
        set_mode(&path, before);
        let mut command = keystead.command(["keys", "new-secret"]);
        command.stdin(Stdio::null()).stdout(File::create(&path).unwrap());
        assert!(command.status().await.unwrap().success());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, after);
        assert_eq!(fs::read_to_string(&path).unwrap().len(), 65);
    }
}
