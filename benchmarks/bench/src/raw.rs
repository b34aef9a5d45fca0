//! The floor of sending: bytes in one stream of s2n-quic, as it comes, on the thread on which distsoc's own connections are
//! driven.

use bytes::Bytes;
use distsoc_net::runtime::{quic_io, spawn};
use s2n_quic::client::Connect;
use s2n_quic::provider::io::tokio::Provider;
use s2n_quic::{Client, Server};
use std::net::SocketAddr;

/// Bytes handed over at once.
const PIECE_BYTES: usize = 64 * 1024;
const NAME: &str = "localhost";

/// Somebody who sends the same bytes to whoever opens a stream, and whoever asks them.
pub(crate) struct RawStream {
    client: Client,
    server: SocketAddr,
}

fn io() -> Provider {
    let provider = Provider::builder()
        .with_handle(quic_io())
        .with_receive_address(([127, 0, 0, 1], 0).into());
    provider
        .and_then(s2n_quic::provider::io::tokio::Builder::build)
        .expect("a socket on loopback")
}

async fn serve(mut server: Server, content: Bytes) {
    while let Some(mut connection) = server.accept().await {
        let content = content.clone();
        spawn(async move {
            while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
                // Where it were dropped, the asker would hear that nobody reads.
                let (_asked, mut send) = stream.split();
                let mut rest = content.clone();
                while !rest.is_empty() {
                    let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                    if send.send(piece).await.is_err() {
                        return;
                    }
                }
                let _ = send.finish();
            }
        });
    }
}

impl RawStream {
    /// Both ends; the sender has these bytes.
    pub(crate) fn of(content: Vec<u8>) -> Self {
        let certified = rcgen::generate_simple_self_signed(vec![NAME.into()]).expect("a key");
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let server = Server::builder()
            .with_tls((certificate.as_str(), key.as_str()))
            .expect("a certificate")
            .with_io(io())
            .expect("a socket")
            .start()
            .expect("a server");
        let client = Client::builder()
            .with_tls(certificate.as_str())
            .expect("a certificate")
            .with_io(io())
            .expect("a socket")
            .start()
            .expect("a client");
        let address = server.local_addr().expect("an address");
        spawn(serve(server, content.into()));
        Self {
            client,
            server: address,
        }
    }

    /// All bytes over a connection of their own; how many came.
    pub(crate) async fn fetch(&self) -> usize {
        let connect = Connect::new(self.server).with_server_name(NAME);
        let mut connection = self.client.connect(connect).await.expect("a handshake");
        let stream = connection.open_bidirectional_stream().await;
        let mut stream = stream.expect("a stream");
        stream.send(Bytes::from_static(&[1])).await.expect("a byte");
        let mut came = 0;
        while let Some(piece) = stream.receive().await.expect("bytes") {
            came += piece.len();
        }
        came
    }
}
