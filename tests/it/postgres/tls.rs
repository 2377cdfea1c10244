//! TLS, as `sslmode` requires.

use keystead::store::{Lookups, StoreErrorKind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::NamedTempFile;

use super::{digest, store};
use crate::harness::postgres::{PASSWORD, Postgres, Setup};

/// An authority, and its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server with a certificate for `localhost`.
    async fn server(&self) -> Postgres {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Postgres::with(Setup {
            settings: vec![
                ("ssl", "on".to_owned()),
                ("ssl_cert_file", "tls.crt".to_owned()),
                ("ssl_key_file", "tls.key".to_owned()),
            ],
            files: vec![("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())],
        })
        .await
    }

    fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }
}

/// How connecting to `host` ends: with TLS or without, or not at all.
async fn connect(postgres: &Postgres, host: &str, options: &str) -> Result<bool, StoreErrorKind> {
    let port = postgres.port();
    let url = format!("postgres://keystead:{PASSWORD}@{host}:{port}/keystead?{options}");
    let store = store(&url);
    let error = store.find(&[digest(1)]).await.unwrap_err();
    // The server reports the missing migration: we are connected.
    if error.kind() != StoreErrorKind::Schema {
        return Err(error.kind());
    }
    let used = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                WHERE application_name = 'keystead'";
    Ok(postgres.value(used).await == "t")
}

#[tokio::test]
async fn certificate_is_checked_as_sslmode_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let postgres = authority.server().await;
    let ours = format!("sslrootcert={}", authority.path());
    let theirs = format!("sslrootcert={}", other.path());
    let unreachable = Err(StoreErrorKind::Unreachable);
    for (host, options, expected) in [
        ("localhost", format!("sslmode=verify-full&{ours}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-full&{ours}"), unreachable),
        ("localhost", format!("sslmode=verify-full&{theirs}"), unreachable),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned(), unreachable),
        ("127.0.0.1", format!("sslmode=verify-ca&{ours}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&{theirs}"), unreachable),
        ("127.0.0.1", "sslmode=require".to_owned(), Ok(true)),
        ("127.0.0.1", format!("sslmode=require&{ours}"), Ok(true)),
        ("127.0.0.1", format!("sslmode=require&{theirs}"), unreachable),
        ("127.0.0.1", format!("sslmode=prefer&{theirs}"), Ok(true)),
        ("127.0.0.1", String::new(), Ok(true)),
        ("127.0.0.1", "sslmode=disable".to_owned(), Ok(false)),
    ] {
        let ended = connect(&postgres, host, &options).await;
        assert_eq!(ended, expected, "{host} {options}");
        postgres.sql(TERMINATE).await;
    }
}

/// So that the next connection is the only one.
const TERMINATE: &str = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                         WHERE application_name = 'keystead'";

#[tokio::test]
async fn server_without_tls_is_taken_by_prefer_alone() {
    let postgres = Postgres::start_new().await;
    assert_eq!(connect(&postgres, "127.0.0.1", "sslmode=prefer").await, Ok(false));
    postgres.sql(TERMINATE).await;
    for mode in ["require", "verify-full&sslrootcert=system"] {
        let ended = connect(&postgres, "127.0.0.1", &format!("sslmode={mode}")).await;
        assert_eq!(ended, Err(StoreErrorKind::Unreachable), "{mode}");
    }
}

#[tokio::test]
async fn unix_socket_needs_no_tls_whatever_sslmode_says() {
    let postgres = Postgres::start_new().await;
    let url = format!(
        "postgres:///keystead?host={}&port={}&user=keystead&sslmode=verify-full",
        postgres.home().display(),
        postgres.port()
    );
    let error = store(&url).find(&[digest(1)]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Schema);
}
