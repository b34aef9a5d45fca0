//! Whoever speaks QUIC but not ours: another protocol, X.509 certificates, no key at all. Refused in the handshake, both
//! ways, while nodes go on connecting (PROTOCOL section 5).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    deprecated,
    reason = "the rustls provider takes a configuration only through its deprecated constructor"
)]

mod common;

use common::stranger::{certificate, client, loopback, quic_io};
use common::{PATIENCE, side};
use distsoc_engine::io::DialFailure;
use distsoc_net::runtime::{block_on, timeout};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use s2n_quic::Server;
use s2n_quic::client::Connect;
use s2n_quic::provider::tls;
use std::sync::Arc;

/// A server with an ordinary certificate.
fn server(alpn: &[u8]) -> Server {
    let (certificate, key) = certificate();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let _guard = quic_io().enter();
    Server::builder()
        .with_tls(tls::rustls::Server::from(config))
        .unwrap()
        .with_io(loopback())
        .unwrap()
        .start()
        .unwrap()
}

#[test]
fn clients_of_another_protocol_or_without_a_raw_key_never_get_in() {
    block_on(async {
        let (node, friend) = (side(1), side(2));
        for (alpn, raw_keys, with_certificate) in [
            (&b"h3"[..], true, false),
            (b"distsoc/2", true, false),
            (b"distsoc/2", true, true),
            (b"distsoc/2", false, true),
        ] {
            let client = client(alpn, raw_keys, with_certificate);
            let connect = Connect::new(node.endpoint.local_addr()).with_server_name("localhost");
            // A TLS 1.3 client may believe for a moment that it is in; its first stream tells it that it is not.
            let served = timeout(PATIENCE, async {
                let mut connection = client.connect(connect).await?;
                connection.accept().await.map(|_| ())
            });
            let what = format!("{alpn:?} raw {raw_keys} certificate {with_certificate}");
            assert!(served.await.expect("it ends").is_err(), "{what}");
            assert_eq!(node.endpoint.link_count(), 0, "{what}");
        }
        friend.dial(1, node.id, node.endpoint.local_addr());
        assert_eq!(node.up().await.1, friend.id, "the first that ever got in");
    });
}

#[test]
fn servers_of_another_protocol_or_with_certificates_are_no_nodes() {
    block_on(async {
        let (a, b) = (side(3), side(4));
        for alpn in [&b"h3"[..], b"distsoc/2"] {
            let server = server(alpn);
            a.dial(1, b.id, server.local_addr().unwrap());
            assert_eq!(a.failure().await, DialFailure::NoAnswer, "{alpn:?}");
        }
        a.dial(2, b.id, b.endpoint.local_addr());
        assert_eq!(a.up().await.1, b.id);
    });
}
