//! TLS 1.3 with raw public keys both ways (RFC 7250): the handshake proves NodeIds and nothing else. No X.509, no tickets,
//! no resumption, no 0-RTT, no server name on the wire (PROTOCOL sections 4 and 5).

use distsoc_engine::crypto::PublicKey;
use distsoc_engine::domain::NodeId;
use distsoc_engine::wire::ALPN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerIncompatible, ServerConfig, SignatureScheme,
};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// DER before the 32 bytes of an ed25519 seed (RFC 8410, PKCS #8).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];
/// DER before the 32 bytes of an ed25519 public key (RFC 8410, SubjectPublicKeyInfo).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The server name by which a dial pins the id: base32, since 64 hex digits do not fit a DNS label. It never leaves
/// this machine.
pub(crate) fn server_name(id: &NodeId) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let (mut bits, mut held, mut name) = (0u32, 0, String::with_capacity(54));
    for byte in id.as_bytes() {
        bits = bits << 8 | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            name.push(char::from(ALPHABET[(bits >> held & 31) as usize]));
        }
    }
    name.push(char::from(ALPHABET[(bits << (5 - held) & 31) as usize]));
    name.push_str(".n");
    name
}

/// The id in a SubjectPublicKeyInfo, if it is an ed25519 one whose key is usable.
pub(crate) fn id_of_spki(der: &[u8]) -> Option<NodeId> {
    let key: [u8; 32] = der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    let id = NodeId::from_bytes(key);
    PublicKey::check(id).ok().map(|_| id)
}

/// The own key for TLS, and the dials that met somebody else.
#[derive(Clone)]
pub(crate) struct TlsIdentity {
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
    strangers: Strangers,
}

/// Server names under which another key answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers(Arc<Mutex<BTreeSet<String>>>);

impl Strangers {
    fn met(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out by the dial that failed; dials in flight are bounded.
        names.insert(name.to_owned());
    }

    /// Whether a dial under this name met another key.
    pub(crate) fn take(&self, name: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name)
    }
}

impl TlsIdentity {
    pub(crate) fn new(seed: &[u8; 32]) -> Result<Self, Error> {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let der = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], &seed[..]].concat());
        let key = aws_lc_rs::sign::any_eddsa_type(&der)?;
        let spki = key
            .public_key()
            .ok_or_else(|| Error::General("the key has no public half".into()))?;
        let entity = CertificateDer::from(spki.to_vec());
        Ok(Self {
            key: Arc::new(CertifiedKey::new(vec![entity], key)),
            provider: Arc::new(provider),
            strangers: Strangers::default(),
        })
    }

    pub(crate) fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::new(Verifier {
            algorithms: self.provider.signature_verification_algorithms,
            strangers: self.strangers.clone(),
        })
    }

    pub(crate) fn server(&self) -> Result<ServerConfig, Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.verifier())
            .with_cert_resolver(Arc::new(OwnKey(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }

    pub(crate) fn client(&self) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier())
            .with_client_cert_resolver(Arc::new(OwnKey(self.key.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

#[derive(Debug)]
struct OwnKey(Arc<CertifiedKey>);

impl rustls::server::ResolvesServerCert for OwnKey {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

impl rustls::client::ResolvesClientCert for OwnKey {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    strangers: Strangers,
}

impl Verifier {
    fn id(&self, entity: &CertificateDer<'_>) -> Result<NodeId, Error> {
        id_of_spki(entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
    }

    fn verify(
        &self,
        message: &[u8],
        entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(entity.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

const ONLY_TLS13: Error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let id = self.id(entity)?;
        if name.to_str() == server_name(&id) {
            return Ok(ServerCertVerified::assertion());
        }
        self.strangers.met(&name.to_str());
        Err(Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(ONLY_TLS13)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, entity, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Any usable key may come; that the peer holds it is proved by its CertificateVerify.
        self.id(entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(ONLY_TLS13)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        entity: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, entity, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_are_labels_and_tell_ids_apart(a in any::<[u8; 32]>(), b in any::<[u8; 32]>()) {
            let (name_a, name_b) = (server_name(&NodeId::from_bytes(a)), server_name(&NodeId::from_bytes(b)));
            prop_assert!(ServerName::try_from(name_a.clone()).is_ok());
            prop_assert_eq!(a == b, name_a == name_b);
        }

        #[test]
        fn no_der_makes_the_parser_panic(der in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = id_of_spki(&der);
            let _ = id_of_spki(&[&SPKI_PREFIX[..], &der].concat());
        }
    }

    #[test]
    fn unusable_keys_are_no_ids() {
        assert!(id_of_spki(&[&SPKI_PREFIX[..], &[0; 32]].concat()).is_none());
        let id = distsoc_engine::crypto::Secret::from_seed(&[1; 32]).node_id();
        assert_eq!(
            id_of_spki(&[&SPKI_PREFIX[..], id.as_bytes()].concat()),
            Some(id)
        );
    }
}
