//! TLS to the database, with rustls.

use std::{path::Path, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresConfigError, error};

/// Verification of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verification {
    /// None: `sslmode` `prefer`, and `require` without `sslrootcert`.
    None,
    /// Chain up to a root: `verify-ca`.
    Chain(Roots),
    /// Chain and host name: `verify-full`.
    ChainAndName(Roots),
}

/// Trusted root certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those of the operating system.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// Creates a connector. Reads the roots now, so that errors surface at startup.
pub(super) fn connector(
    verification: &Verification,
) -> Result<MakeRustlsConnect, PostgresConfigError> {
    // Explicit, so that no process-wide default is needed.
    let provider = Arc::new(crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = match verification {
        Verification::None => Arc::new(Unverified(algorithms)),
        Verification::Chain(roots) => Arc::new(ChainOnly { roots: read(roots)?, algorithms }),
        Verification::ChainAndName(roots) => chain_and_name(read(roots)?, &provider)?,
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|reason| PostgresConfigError::Setup(reason.to_string()))?
        // "Dangerous" refers to the checks that `Unverified` and `ChainOnly` omit, as the
        // operator asked.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn chain_and_name(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, PostgresConfigError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|reason| PostgresConfigError::Setup(reason.to_string()))?;
    Ok(verifier)
}

fn read(roots: &Roots) -> Result<RootCertStore, PostgresConfigError> {
    match roots {
        Roots::System => system_roots(),
        Roots::File(path) => roots_in(path),
    }
}

fn system_roots() -> Result<RootCertStore, PostgresConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    Err(PostgresConfigError::NoSystemRoots(reasons.join("; ")))
}

fn roots_in(path: &Path) -> Result<RootCertStore, PostgresConfigError> {
    let refuse = |reason: String| PostgresConfigError::RootCert { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|e| refuse(error::io_reason(&e)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("it holds no certificate in PEM form".to_owned()));
    }
    Ok(roots)
}

/// Accepts any certificate.
///
/// Checks that the server holds the private key of its certificate, so that with SCRAM channel
/// binding nobody can relay another server's certificate.
///
/// Does not check issuer, name or expiry. The connection is safe from eavesdroppers, but not
/// from a man in the middle.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

/// Accepts a certificate with a chain up to a root.
///
/// Checks the chain, its dates, the server usage, and that the server holds the private key.
///
/// Does not check the name, so any server with a certificate of that authority is accepted; nor
/// revocation, for which the driver has no lists.
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_root_file_is_named_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").unwrap();
        for (path, reason) in [
            (directory.path().join("missing.pem"), "entity not found"),
            (empty, "no certificate in PEM form"),
        ] {
            let error = connector(&Verification::Chain(Roots::File(path.clone()))).err().unwrap();
            let shown = error.to_string();
            assert!(shown.contains(path.to_str().unwrap()) && shown.contains(reason), "{shown}");
        }
    }
}
