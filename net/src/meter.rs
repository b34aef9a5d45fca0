//! Byte accounting: every byte to layer and cause, both ways (PROTOCOL section 5), and who is at the other end of a
//! connection.

use crate::tls::id_of_spki;
use distsoc_engine::domain::NodeId;
use distsoc_engine::wire::{Code, Layer, name_of, spec};
use s2n_quic::provider::event::{ConnectionInfo, ConnectionMeta, Subscriber, events};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// UDP and IP headers of one datagram over IPv4.
const HEADERS_BYTES: u64 = 28;

/// One line of the accounting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrafficRow {
    /// Whose budget.
    pub layer: Layer,
    /// The packet's name, or `transport` for what QUIC, UDP and IP need beyond the packets.
    pub cause: &'static str,
    /// Bytes received since the start.
    pub in_bytes: u64,
    /// Bytes sent since the start.
    pub out_bytes: u64,
}

#[derive(Debug, Default)]
struct Both {
    received: AtomicU64,
    sent: AtomicU64,
}

/// Counters of one endpoint.
#[derive(Debug)]
pub(crate) struct Meter {
    packets: [Both; 256],
    datagrams: Both,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            packets: std::array::from_fn(|_| Both::default()),
            datagrams: Both::default(),
        }
    }
}

impl Meter {
    pub(crate) fn received(&self, code: Code, bytes: usize) {
        self.packets[usize::from(code)]
            .received
            .fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, code: Code, bytes: usize) {
        self.packets[usize::from(code)]
            .sent
            .fetch_add(bytes as u64, Relaxed);
    }

    /// Lines with anything in them, in the order of the codes, `transport` last.
    pub(crate) fn rows(&self) -> Vec<TrafficRow> {
        let mut rows = Vec::new();
        let (mut all_in, mut all_out) = (0, 0);
        for code in 0..=Code::MAX {
            let both = &self.packets[usize::from(code)];
            let (in_bytes, out_bytes) = (both.received.load(Relaxed), both.sent.load(Relaxed));
            if in_bytes + out_bytes == 0 {
                continue;
            }
            all_in += in_bytes;
            all_out += out_bytes;
            rows.push(TrafficRow {
                layer: spec(code).map_or(Layer::Connection, |spec| spec.layer),
                cause: name_of(code),
                in_bytes,
                out_bytes,
            });
        }
        rows.push(TrafficRow {
            layer: Layer::Connection,
            cause: "transport",
            in_bytes: self.datagrams.received.load(Relaxed).saturating_sub(all_in),
            out_bytes: self.datagrams.sent.load(Relaxed).saturating_sub(all_out),
        });
        rows
    }
}

/// What is known of one connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionFacts {
    /// The key its handshake proved.
    pub(crate) peer: Option<NodeId>,
    /// Smoothed round trip.
    pub(crate) rtt_us: AtomicU64,
    pub(crate) in_bytes: AtomicU64,
    pub(crate) out_bytes: AtomicU64,
}

/// Listens to s2n-quic.
pub(crate) struct Listener(pub(crate) Arc<Meter>);

impl Subscriber for Listener {
    type ConnectionContext = ConnectionFacts;

    fn create_connection_context(
        &mut self,
        _: &ConnectionMeta,
        _: &ConnectionInfo,
    ) -> ConnectionFacts {
        ConnectionFacts::default()
    }

    fn on_tls_exporter_ready(
        &mut self,
        facts: &mut ConnectionFacts,
        _: &ConnectionMeta,
        event: &events::TlsExporterReady<'_>,
    ) {
        let chain = event.session.peer_cert_chain_der().ok();
        facts.peer = chain.and_then(|chain| id_of_spki(chain.first()?));
    }

    fn on_recovery_metrics(
        &mut self,
        facts: &mut ConnectionFacts,
        _: &ConnectionMeta,
        event: &events::RecoveryMetrics<'_>,
    ) {
        facts
            .rtt_us
            .store(event.smoothed_rtt.as_micros() as u64, Relaxed);
    }

    fn on_datagram_sent(
        &mut self,
        facts: &mut ConnectionFacts,
        _: &ConnectionMeta,
        event: &events::DatagramSent,
    ) {
        let bytes = u64::from(event.len) + HEADERS_BYTES;
        self.0.datagrams.sent.fetch_add(bytes, Relaxed);
        facts.out_bytes.fetch_add(bytes, Relaxed);
    }

    fn on_datagram_received(
        &mut self,
        facts: &mut ConnectionFacts,
        _: &ConnectionMeta,
        event: &events::DatagramReceived,
    ) {
        let bytes = u64::from(event.len) + HEADERS_BYTES;
        self.0.datagrams.received.fetch_add(bytes, Relaxed);
        facts.in_bytes.fetch_add(bytes, Relaxed);
    }
}
