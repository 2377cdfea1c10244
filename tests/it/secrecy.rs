//! A key in the clear is printed once and is nowhere else, and neither is a
//! secret: run as the program, with everything logged that can be.

use std::{collections::BTreeSet, fs, path::Path};

use keystead::{
    config::Config,
    key::{Action, Environment, Prefix},
    store::StoreUrl,
    transport::pb::{
        CheckRequest, ExplainRequest, authz_client::AuthzClient,
        diagnostics_client::DiagnosticsClient,
    },
};
use serde_json::Value;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use crate::harness::{
    admin::Admin,
    backend::{Backend, Server as PostgresServer},
    eventually,
    ext_authz::Ask,
    http::{get, send},
    keys::{Key, Keys, of_acme},
    keystead::{Keystead, Server},
};

/// So many characters of a secret in a row are a leak. Of the 190 random bits
/// of a key that is 71: nothing has them by chance.
const WINDOW: usize = 12;

/// The random digits of a key, and its tag.
const RANDOM: std::ops::Range<usize> = 8..40;

/// Every piece of [`WINDOW`] characters of the texts that nobody may find.
struct Secrets(BTreeSet<Vec<u8>>);

impl Secrets {
    fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// The random part of a key, and its tag with the end of it. The prefix and
    /// the last four digits may be displayed.
    fn key(&mut self, text: &str) {
        self.text(&text[RANDOM]);
        self.text(&text[RANDOM.start..text.len() - 4]);
    }

    fn text(&mut self, text: &str) {
        assert!(text.len() >= WINDOW, "{text}");
        self.0.extend(text.as_bytes().windows(WINDOW).map(<[u8]>::to_vec));
    }

    /// A secret of a secret file, in any writing of it.
    fn secret(&mut self, hex: &str) {
        self.text(hex);
        self.text(&hex.to_ascii_uppercase());
        let bytes = hex::decode(hex).unwrap();
        self.0.extend(bytes.windows(WINDOW).map(<[u8]>::to_vec));
    }

    /// Where a piece of a secret is.
    fn found_in(&self, content: &[u8]) -> Option<usize> {
        content.windows(WINDOW).position(|window| self.0.contains(window))
    }

    /// Panics when a piece of a secret is in there.
    fn are_not_in(&self, what: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        assert!(!content.is_empty(), "{what} is empty, which proves nothing");
        if let Some(position) = self.found_in(content) {
            let near = &content[position.saturating_sub(200)..(position + 100).min(content.len())];
            panic!("{what} holds a secret: …{}…", String::from_utf8_lossy(near));
        }
    }

    fn are_not_in_files(&self, folder: &Path, but: &[&str]) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                self.are_not_in_files(&path, but);
            } else if path.is_file() && !but.contains(&name) {
                let content = fs::read(&path).unwrap();
                if !content.is_empty() {
                    self.are_not_in(&path.display().to_string(), content);
                }
            }
        }
    }
}

/// Everything, also of those of whom less is logged unless they are named.
const FILTER: &str = "trace,tokio_postgres=trace,refinery_core=trace";

/// Has everything logged that any crate would, and every surface opened.
fn trace(folder: &Keystead, more: &str) {
    let settings = format!(
        "[log]\nformat = \"json\"\nfilter = \"{FILTER}\"\n\
         [listen]\ncontrol = \"127.0.0.1:0\"\n{more}"
    );
    folder.write("keystead.toml", settings);
}

async fn serve(folder: &Keystead) -> Server {
    folder.serve(&["--config", "keystead.toml"]).await
}

async fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(server.url()).unwrap().connect().await.unwrap()
}

/// Sends the key where it belongs, and where a client may put it by mistake.
async fn ask(channel: &Channel, text: &str, secrets: &Secrets) -> Result<(), Status> {
    let mut request = Request::new(CheckRequest {
        api_key: text.to_owned(),
        required_scopes: vec!["read".to_owned()],
        ..CheckRequest::default()
    });
    let metadata = request.metadata_mut();
    metadata.insert("authorization", format!("Bearer {text}").parse().unwrap());
    metadata.insert("x-api-key", text.parse().unwrap());
    let outcome = AuthzClient::new(channel.clone()).check(request).await;
    let everywhere = Ask::bearer(text)
        .header("x-api-key", text)
        .header("cookie", format!("key={text}"))
        .path(format!("/orders?key={text}"));
    for ask in [everywhere.clone(), everywhere.raw()] {
        let verdict = ask.send(channel.clone()).await.unwrap();
        secrets.are_not_in("an answer to Envoy", format!("{verdict:?}"));
    }
    match outcome {
        Ok(answer) => {
            secrets.are_not_in("an answer", format!("{answer:?}"));
            Ok(())
        }
        Err(status) => {
            secrets.are_not_in("a refusal", format!("{status:?}"));
            secrets.are_not_in("its details", status.details());
            Err(status)
        }
    }
}

/// Checks as a proxy a request with the key in every source.
async fn ask_by_proxy(server: &Server, text: &str, secrets: &Secrets) -> u16 {
    let (bearer, target) = (format!("Bearer {text}"), format!("/x?api_key={text}"));
    let headers = [("authorization", bearer.as_str()), ("x-forwarded-uri", &target)];
    let answer = send(server.admin, get("/auth?scopes=read", &headers)).await;
    secrets.are_not_in("an answer to a proxy", format!("{answer:?}"));
    answer.status
}

/// Has keys explained, which shows more than any other answer does.
async fn explain(server: &Server, caller: &str, texts: &[&str], secrets: &Secrets) {
    let log = server.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let serving = lines.find(|line| line["message"] == "serving").unwrap();
    let url = format!("http://{}", serving["control"].as_str().unwrap());
    let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    for text in texts {
        let api_key = (*text).to_owned();
        let check = Some(CheckRequest { api_key, ..CheckRequest::default() });
        let mut request = Request::new(ExplainRequest { check });
        let value = format!("Bearer {caller}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        let answer = DiagnosticsClient::new(channel.clone()).explain(request).await.unwrap();
        secrets.are_not_in("an explanation", format!("{answer:?}"));
    }
}

/// Checks every kind of key, and reads all that an operator can.
async fn use_all(server: &Server, keys: &Keys, secrets: &mut Secrets) {
    let mut rights = of_acme();
    rights.scopes = vec!["read".to_owned()];
    let valid = keys.create(rights).await;
    let lacking = keys.create(of_acme()).await;
    let mut rights = of_acme();
    rights.scopes = vec!["keystead.admin".to_owned()];
    let admin = keys.create(rights).await;
    let revoked = keys.create(of_acme()).await;
    keys.act(&revoked, Action::Revoke).await;
    let imported = keys.import("legacy-0123456789abcdefghijklmnop", of_acme()).await;
    let unknown = keys.draw();
    let unknown =
        Key { id: unknown.id, text: unknown.key.expose().to_owned(), digest: unknown.digest };
    let forged: String =
        valid.text.char_indices().map(|(at, c)| if at == 20 { other(c) } else { c }).collect();
    for key in [&valid, &lacking, &admin, &revoked, &unknown] {
        secrets.key(&key.text);
    }
    secrets.text(&forged[RANDOM]);
    secrets.text(&imported.text);

    let channel = channel(server).await;
    for _ in 0..3 {
        ask(&channel, &valid.text, secrets).await.unwrap();
        for (text, code) in [
            (&lacking.text, Code::PermissionDenied),
            (&imported.text, Code::PermissionDenied),
            (&revoked.text, Code::Unauthenticated),
            (&unknown.text, Code::Unauthenticated),
            (&forged, Code::Unauthenticated),
        ] {
            assert_eq!(ask(&channel, text, secrets).await.unwrap_err().code(), code);
            let status = if code == Code::PermissionDenied { 403 } else { 401 };
            assert_eq!(ask_by_proxy(server, text, secrets).await, status);
        }
        assert_eq!(ask_by_proxy(server, &valid.text, secrets).await, 200);
    }
    let texts = [&valid.text, &imported.text, &revoked.text, &unknown.text, &forged];
    explain(server, &admin.text, &texts.map(String::as_str), secrets).await;
    let admin = Admin(server.admin);
    for path in ["/metrics", "/status", "/readyz"] {
        secrets.are_not_in(path, admin.get(path).await.body);
    }
    secrets.are_not_in("the page", admin.get_accepting("/status", "text/html").await.body);
}

fn other(digit: char) -> char {
    if digit == '0' { '1' } else { '0' }
}

/// The log is as full as was asked for, and holds no secret.
async fn log_holds_none(server: &Server, secrets: &Secrets) {
    for target in ["h2::", "keystead::"] {
        eventually(&format!("{target} has logged"), async || {
            server.log().contains(&format!(r#""target":"{target}"#)).then_some(())
        })
        .await;
    }
    let log = server.log();
    assert!(log.contains(r#""level":"TRACE""#));
    secrets.are_not_in("the log", log);
}

#[tokio::test]
async fn embedded_service_shows_a_key_once_and_no_secret_ever() {
    let folder = Keystead::new();
    trace(&folder, "");
    let server = serve(&folder).await;
    let mut secrets = Secrets::new();
    let first = eventually("the first key is printed", async || {
        let printed = server.stdout();
        let key = printed.split_whitespace().find(|word| word.starts_with("ks_live_"));
        key.map(str::to_owned)
    })
    .await;
    secrets.key(&first);
    secrets.secret(fs::read_to_string(folder.path("keystead.secret")).unwrap().trim());

    let mut config = Config::default();
    config.store.url = StoreUrl::Sqlite { path: folder.path("keystead.db") };
    let keys = Keys::open(&config).await;
    use_all(&server, &keys, &mut secrets).await;
    ask(&channel(&server).await, &first, &secrets).await.unwrap();
    log_holds_none(&server, &secrets).await;

    // The database while it is open, with its log beside it.
    let but = ["serve.stdout", "keystead.secret"];
    assert!(fs::metadata(folder.path("keystead.db-wal")).unwrap().len() > 0);
    secrets.are_not_in_files(&folder.path(""), &but);
    let printed = server.stdout();
    assert!(server.stop().await.success());
    secrets.are_not_in_files(&folder.path(""), &but);

    // Once means once: what was printed begins with the key, and nothing was
    // printed later.
    assert_eq!(printed.lines().filter(|line| line.trim() == first).count(), 1);
    assert_eq!(fs::read_to_string(folder.path("serve.stdout")).unwrap(), printed);
    let again = serve(&folder).await;
    assert_eq!(again.stdout(), "", "a store with a key gets no other");
    assert!(again.stop().await.success());
}

#[tokio::test]
async fn service_on_postgresql_leaves_no_secret_with_the_server() {
    let backend = PostgresServer::start().await;
    for statement in ["ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"] {
        backend.postgres.sql(statement).await;
    }
    let config = backend.config();
    let secret_file = config.keys.secret_file.clone().unwrap();
    let folder = Keystead::new();
    let settings = format!(
        "[store]\nurl = \"{}\"\n[keys]\nsecret_file = \"{}\"\n",
        backend.postgres.url(),
        secret_file.display()
    );
    trace(&folder, &settings);
    let mut secrets = Secrets::new();
    secrets.secret(fs::read_to_string(&secret_file).unwrap().trim());
    secrets.text(crate::harness::postgres::PASSWORD);

    let server = serve(&folder).await;
    let keys = Keys::open(&config).await;
    use_all(&server, &keys, &mut secrets).await;
    log_holds_none(&server, &secrets).await;
    assert!(server.log().contains(r#""target":"tokio_postgres::"#));
    assert_eq!(server.stdout(), "");
    assert!(server.stop().await.success());
    // Tables, write-ahead log and the server's own log of all statements.
    backend.postgres.sql("CHECKPOINT").await;
    secrets.are_not_in_files(backend.postgres.home(), &[]);
}

#[test]
fn a_leak_of_a_part_of_a_key_would_be_found() {
    let secret = keystead::key::Secret::generate().unwrap();
    let ring = keystead::key::KeyRing::parse(&secret, Prefix::default(), true).unwrap();
    let key = ring.mint(Environment::Live).unwrap().key;
    let text = key.expose();
    assert_eq!((text.len(), &text[..RANDOM.start]), (48, "ks_live_"));
    let mut secrets = Secrets::new();
    secrets.key(text);
    secrets.secret(&secret);
    for leak in [text, &text[8..20], &text[30..42], &secret, &secret[50..]] {
        let line = format!("noise {leak} noise");
        assert!(secrets.found_in(line.as_bytes()).is_some(), "{line}");
    }
    // What may be displayed is the prefix and the end of the tag.
    assert_eq!(key.hint(), format!("ks_live_…{}", &text[44..]));
    assert_eq!(secrets.found_in(key.hint().as_bytes()), None);
}
