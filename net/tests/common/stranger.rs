//! Clients that speak QUIC but not ours.

use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use s2n_quic::Client;
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::{io, tls};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// A stranger whose handshake is not answered gives up after this.
const GIVES_UP: Duration = Duration::from_secs(2);

/// A handle of tokio for strangers that speak QUIC by themselves.
pub(crate) fn quic_io() -> tokio::runtime::Handle {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    let start = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    RUNTIME.get_or_init(start).handle().clone()
}

/// Believes every server.
#[derive(Debug)]
struct Credulous {
    raw_keys: bool,
}

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ED25519,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw_keys
    }
}

pub(crate) fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    (made.cert.der().clone(), key)
}

/// A client that believes every server, with an X.509 certificate or nothing.
pub(crate) fn client(alpn: &[u8], raw_keys: bool, with_certificate: bool) -> Client {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous { raw_keys }));
    let mut config = match with_certificate {
        true => {
            let (certificate, key) = certificate();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
        false => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let _guard = quic_io().enter();
    Client::builder()
        .with_tls(tls::rustls::Client::from(config))
        .unwrap()
        .with_io(loopback())
        .unwrap()
        .with_limits(Limits::new().with_max_handshake_duration(GIVES_UP).unwrap())
        .unwrap()
        .start()
        .unwrap()
}

pub(crate) fn loopback() -> io::Default {
    io::Default::builder()
        .with_receive_address(SocketAddr::from(([127, 0, 0, 1], 0)))
        .unwrap()
        .build()
        .unwrap()
}
