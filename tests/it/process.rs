//! What the process is to others on its machine: the signals that it takes, and the
//! memory that it shows nobody.

use std::{fs, os::unix::fs::MetadataExt};

use crate::harness::{admin::Admin, eventually, keystead::Keystead};

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
