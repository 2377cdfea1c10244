//! The program, ended in every way, and started again from its snapshot.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use keystead::{config::Config, key::Action, store::StoreUrl};
use serde_json::Value;
use tokio::task::yield_now;

use crate::{
    harness::{
        DEADLINE,
        admin::Admin,
        app::{channel_to, check_over, presenting},
        backend::{Backend, Server as Database},
        eventually,
        keys::{Key, Keys},
        keystead::{Keystead, Server},
    },
    outranked::Restored,
};

const UNAUTHENTICATED: i32 = 10;
const UNAVAILABLE: i32 = 12;

/// Enough that a snapshot takes a while to write, and few enough to be made soon.
const MANY: usize = 1_000;

/// Number of kills during a snapshot.
const KILLS: usize = 5;

/// A program with a snapshot that it writes so often, and its keys.
struct Site {
    keystead: Keystead,
    config: Config,
}

impl Site {
    /// On its own store.
    fn embedded(every: &str) -> Self {
        let keystead = Keystead::new();
        let mut config = Config::default();
        config.store.url = StoreUrl::Sqlite { path: keystead.path("keystead.db") };
        Self::with(keystead, config, every, "cache.fresh_for = \"1h\"")
    }

    /// On a server that may go away.
    fn on(database: &Database, every: &str) -> Self {
        Self::beside(database, every, "cache.fresh_for = \"1h\"")
    }

    fn beside(database: &Database, every: &str, more: &str) -> Self {
        let config = database.config();
        let (url, secret) = (database.postgres.url(), config.keys.secret_file.clone().unwrap());
        let secret = secret.to_str().unwrap();
        let text = format!("store.url = {url:?}\nkeys.secret_file = {secret:?}\n{more}");
        Self::with(Keystead::new(), config, every, &text)
    }

    fn with(keystead: Keystead, config: Config, every: &str, more: &str) -> Self {
        let text = format!(
            "{more}\ndrain.delay = \"0s\"\n\
             [snapshot]\npath = \"warm\"\nevery = {every:?}"
        );
        Self { keystead: keystead.configured_by("keystead.toml", text), config }
    }

    fn file(&self, more: &str) -> PathBuf {
        self.keystead.path(format!("warm{more}"))
    }

    async fn keys(&self) -> Keys {
        Keys::open(&self.config).await
    }

    /// The exit code of a check of a key, and the reason for a refusal.
    async fn check(&self, server: &Server, key: &Key) -> (i32, String) {
        let args = ["check", &key.text, "--json", "--server", &server.url()];
        let ran = self.keystead.run(args).await;
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        (ran.code.unwrap(), said["reason"].as_str().unwrap_or_default().to_owned())
    }

    async fn is_valid(&self, server: &Server, key: &Key) -> bool {
        self.check(server, key).await == (0, String::new())
    }

    /// Brings keys into memory, and waits for the first snapshot: none is written before
    /// the feed has spoken, not even at the stop.
    async fn warm_up(&self, server: &Server, keys: &[Key]) {
        let (channel, _) = channel_to(server.grpc).await;
        let checks = stream::iter(keys).map(|key| {
            let channel = channel.clone();
            async move {
                eventually("it is answered", async || {
                    check_over(channel.clone(), presenting(&key.text)).await.ok()
                })
                .await
            }
        });
        checks.buffer_unordered(50).collect::<Vec<_>>().await;
        eventually("there is a snapshot", async || (length(self.file("")) > 0).then_some(())).await;
    }

    /// Runs a process that keeps these keys in its snapshot, to its end.
    async fn leave_a_snapshot_of(&self, keys: &[Key]) {
        let server = self.keystead.serve(&[]).await;
        self.warm_up(&server, keys).await;
        assert!(server.stop().await.success());
    }

    async fn until(&self, server: &Server, key: &Key, code: i32, reason: &str) {
        eventually("it is answered so", async || {
            (self.check(server, key).await == (code, reason.to_owned())).then_some(())
        })
        .await;
    }
}

async fn killed(mut server: Server) {
    server.signal("KILL").await;
    server.ended().await;
}

/// The line of the log that says what came of the snapshot.
fn told(server: &Server) -> Value {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut told = lines.filter(|line| {
        line["message"].as_str().is_some_and(|message| message.contains("the snapshot"))
    });
    told.next().unwrap_or_else(|| panic!("nothing is said of the snapshot: {log}"))
}

fn length(path: PathBuf) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

#[tokio::test]
async fn a_restart_during_an_outage_serves_warm_keys_and_no_key_that_was_revoked_before() {
    let mut database = Database::start().await;
    let site = Site::on(&database, "1h");
    let keys = site.keys().await;
    let all = keys.create_many(4).await;
    let (seen, unseen) = all.split_at(3);

    site.leave_a_snapshot_of(seen).await;

    // The next one learns of a revocation, and dies without another snapshot.
    let server = site.keystead.serve(&[]).await;
    assert_eq!(told(&server)["entries"], 3);
    let before = length(site.file(".changes"));
    keys.act(&seen[0], Action::Revoke).await;
    eventually("the revocation is on disk", async || {
        (length(site.file(".changes")) > before).then_some(())
    })
    .await;
    drop(keys);
    killed(server).await;
    database.postgres.kill();

    for restart in 0..3 {
        let server = site.keystead.serve(&[]).await;
        assert_eq!(told(&server)["entries"], 2, "{restart}");
        // With what it has it is of use, store or not.
        Admin(server.admin).until_ready().await;
        assert_eq!(site.keystead.run(["health", "--server", &server.url()]).await.code, Some(0));
        assert_eq!(Admin(server.admin).status().await["state"], "degraded");
        for key in &seen[1..] {
            assert!(site.is_valid(&server, key).await, "{restart}");
        }
        for key in [&seen[0], &unseen[0]] {
            assert_eq!(site.check(&server, key).await.0, UNAVAILABLE, "{restart}");
        }
        if restart == 1 {
            assert!(server.stop().await.success());
        } else {
            killed(server).await;
        }
    }

    // Without what it had it is alive, and of no use.
    fs::remove_file(site.file("")).unwrap();
    let server = site.keystead.serve(&[]).await;
    eventually("the outage is noticed", async || {
        (Admin(server.admin).status().await["tiers"]["store"]["state"] == "down").then_some(())
    })
    .await;
    for (service, code) in [("", 1), ("keystead.v1.Authz", 1), ("liveness", 0)] {
        let asked = ["health", "--server", &server.url(), "--service", service];
        let ran = site.keystead.run(asked).await;
        assert_eq!(ran.code == Some(0), code == 0, "{service:?}: {ran}");
    }
    assert_eq!(site.check(&server, &seen[1]).await.0, UNAVAILABLE);
    killed(server).await;

    database.postgres.start().await;
    let server = site.keystead.serve(&[]).await;
    site.until(&server, &seen[0], UNAUTHENTICATED, "KEY_REVOKED").await;
    for key in &all[1..] {
        site.until(&server, key, 0, "").await;
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_while_the_service_is_down_is_refused_when_the_store_is_there() {
    let database = Database::start().await;
    let site = Site::on(&database, "1h");
    let keys = site.keys().await;
    let all = keys.create_many(2).await;
    site.leave_a_snapshot_of(&all).await;
    keys.act(&all[0], Action::Revoke).await;

    let server = site.keystead.serve(&[]).await;
    assert_eq!(told(&server)["entries"], 2);
    site.until(&server, &all[0], UNAUTHENTICATED, "KEY_REVOKED").await;
    assert!(site.is_valid(&server, &all[1]).await);
}

#[tokio::test]
async fn an_older_dump_and_a_restart_during_an_outage_revive_no_revoked_key() {
    let mut database = Database::start().await;
    let site = Site::on(&database, "1h");
    let keys = site.keys().await;
    let all = keys.create_many(2).await;
    let server = site.keystead.serve(&[]).await;
    site.warm_up(&server, &all).await;
    database.sql(Database::SAVE).await;
    keys.act(&all[0], Action::Revoke).await;
    site.until(&server, &all[0], UNAUTHENTICATED, "KEY_REVOKED").await;
    database.sql(Database::LOAD).await;
    eventually("its row is outranked", async || {
        let _ = site.check(&server, &all[0]).await;
        let outranked = Admin(server.admin).metric("keystead_rows_outranked_total").await;
        (outranked > 0.5).then_some(())
    })
    .await;
    drop(keys);
    database.postgres.kill();
    assert!(server.stop().await.success());

    let revoked = (UNAUTHENTICATED, "KEY_REVOKED".to_owned());
    let server = site.keystead.serve(&[]).await;
    Admin(server.admin).until_ready().await;
    assert_eq!(site.check(&server, &all[0]).await, revoked, "in the outage");
    assert!(site.is_valid(&server, &all[1]).await);
    database.postgres.start().await;
    eventually("the store is up", async || {
        (Admin(server.admin).status().await["tiers"]["store"]["state"] == "up").then_some(())
    })
    .await;
    assert_eq!(site.check(&server, &all[0]).await, revoked, "beside the older rows");
    killed(server).await;
    let server = site.keystead.serve(&[]).await;
    Admin(server.admin).until_ready().await;
    for _ in 0..20 {
        assert_eq!(site.check(&server, &all[0]).await, revoked, "after another restart");
    }
    assert!(site.is_valid(&server, &all[1]).await);
}

#[tokio::test]
async fn ends_of_keys_learned_only_from_rows_outlive_a_crash_and_an_outage() {
    let mut database = Database::start().await;
    let site = Site::beside(
        &database,
        "1h",
        "store.relation = \"keystead.api_keys\"\ncache.fresh_for = \"200ms\"\n\
         suspect.confirm_for = \"1s\"",
    );
    let keys = site.keys().await;
    let all = keys.create_many(4).await;
    site.leave_a_snapshot_of(&all).await;

    let server = site.keystead.serve(&[]).await;
    assert_eq!(told(&server)["entries"], 4);
    keys.act(&all[0], Action::Revoke).await;
    keys.act(&all[1], Action::Disable).await;
    let gone = keys.record(&all[2]).await.id;
    database.sql(&format!("DELETE FROM keystead.api_keys WHERE id = '{gone}'")).await;
    site.until(&server, &all[0], UNAUTHENTICATED, "KEY_REVOKED").await;
    site.until(&server, &all[1], UNAUTHENTICATED, "KEY_DISABLED").await;
    site.until(&server, &all[2], UNAUTHENTICATED, "KEY_UNKNOWN").await;
    drop(keys);
    database.postgres.kill();
    killed(server).await;

    let server = site.keystead.serve(&[]).await;
    assert_eq!(told(&server)["entries"], 1);
    for key in &all[..3] {
        assert_eq!(site.check(&server, key).await.0, UNAVAILABLE);
    }
    assert!(site.is_valid(&server, &all[3]).await);
    killed(server).await;
}

#[tokio::test]
async fn files_of_two_moments_revive_no_revoked_key() {
    let mut database = Database::start().await;
    let site = Site::on(&database, "1h");
    let keys = site.keys().await;
    let all = keys.create_many(2).await;
    site.leave_a_snapshot_of(&all).await;
    let names = ["", ".changes", ".end"];
    let read = || names.map(|name| fs::read(site.file(name)).unwrap());
    let before = read();

    let server = site.keystead.serve(&[]).await;
    keys.act(&all[0], Action::Revoke).await;
    eventually("the revocation is on disk", async || {
        (fs::read(site.file(".end")).unwrap() != before[2]).then_some(())
    })
    .await;
    killed(server).await;
    let noted = read();
    let server = site.keystead.serve(&[]).await;
    assert_eq!(told(&server)["entries"], 1);
    assert!(server.stop().await.success());
    let after = read();
    drop(keys);
    database.postgres.kill();

    let mut zeroed = noted[1].clone();
    zeroed[before[1].len()..].fill(0);
    let mut damaged = noted[1].clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (nth, files) in [
        [&before[0], &after[1], &after[2]],
        [&before[0], &before[1], &after[2]],
        [&noted[0], &before[1], &noted[2]],
        [&noted[0], &zeroed, &noted[2]],
        [&noted[0], &damaged, &noted[2]],
    ]
    .into_iter()
    .enumerate()
    {
        names.iter().zip(files).for_each(|(name, it)| fs::write(site.file(name), it).unwrap());
        let server = site.keystead.serve(&[]).await;
        let line = told(&server);
        assert!(line["reason"].as_str().is_some_and(|it| it.contains("changes")), "{nth}: {line}");
        assert_eq!(site.check(&server, &all[0]).await.0, UNAVAILABLE, "{nth}");
        killed(server).await;
    }
}

#[tokio::test]
async fn a_program_that_is_killed_while_it_writes_leaves_the_last_whole_snapshot() {
    let site = Site::embedded("100ms");
    let keys = site.keys().await.create_many(MANY).await;
    site.leave_a_snapshot_of(&keys).await;

    let began = Instant::now();
    let mut half_written = 0;
    while half_written < KILLS {
        assert!(began.elapsed() < 2 * DEADLINE, "killed over {half_written} snapshots only");
        let server = site.keystead.serve(&[]).await;
        assert_eq!(told(&server)["message"], "read the snapshot", "{}", server.log());
        assert_eq!(told(&server)["entries"], MANY);
        assert!(!site.file(".new").exists(), "what was left is removed");
        while !site.file(".new").exists() {
            yield_now().await;
        }
        killed(server).await;
        half_written += usize::from(site.file(".new").exists());
    }
    let server = site.keystead.serve(&[]).await;
    assert!(site.is_valid(&server, &keys[0]).await);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_trusted_is_named_in_the_log_and_the_service_starts() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::embedded("1h");
    let keys = site.keys().await.create_many(1).await;
    site.leave_a_snapshot_of(&keys).await;
    let mode = |file: &str| fs::metadata(site.file(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode(".changes")), (0o600, 0o600));

    fs::set_permissions(site.file(""), fs::Permissions::from_mode(0o644)).unwrap();
    let server = site.keystead.serve(&[]).await;
    let line = told(&server);
    assert_eq!((&line["level"], &line["path"]), (&"WARN".into(), &"warm".into()), "{line}");
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("mode 644") && reason.contains("chmod 600"), "{reason}");
    let refused = r#"keystead_snapshot_loads_total{result="refused"}"#;
    assert!(Admin(server.admin).metric(refused).await > 0.0);
    assert!(site.is_valid(&server, &keys[0]).await);
    assert!(server.stop().await.success());

    let server = site.keystead.serve(&[]).await;
    assert_eq!(told(&server)["message"], "read the snapshot", "it was written anew");
    assert!(
        Duration::from_secs_f64(Admin(server.admin).metric("keystead_snapshot_age_seconds").await)
            < DEADLINE
    );
}
