//! TLS to the database, by rustls.

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

/// What is checked of the server's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verification {
    /// Nothing: `sslmode` `prefer`, and `require` without `sslrootcert`.
    None,
    /// That one of the roots vouches for it: `verify-ca`.
    Chain(Roots),
    /// That, and that it is made out to the host that was asked for:
    /// `verify-full`.
    ChainAndName(Roots),
}

/// The certificates that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those that the operating system trusts.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// A connector that checks what `verification` says. Reads the roots now, so
/// that what is wrong with them is told at the start.
pub(super) fn connector(
    verification: &Verification,
) -> Result<MakeRustlsConnect, PostgresConfigError> {
    // Named, so that no default of the process has to be installed.
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
        // Called dangerous for what `Unverified` and `ChainOnly` leave out, which
        // is what the operator asked for.
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

/// Takes any certificate.
///
/// Checked: that the server holds the key of the certificate that it shows. So
/// that where SCRAM binds itself to the channel, nobody can pass on somebody
/// else's certificate.
///
/// Not checked: who made the certificate, for whom, and whether it has expired.
/// The connection is safe from listeners and not from somebody in between.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

/// Takes a certificate that one of the roots vouches for.
///
/// Checked: the chain up to a root, its dates, that it may be used for a server,
/// and that the server holds the certificate's key.
///
/// Not checked: the name in it, so that any server with a certificate of that
/// authority is taken; and revocation, for which the driver has no lists.
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
    fn a_root_file_that_cannot_be_used_is_named_with_the_reason() {
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
