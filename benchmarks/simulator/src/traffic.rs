//! Bytes on the wire by layer and cause (PROTOCOL section 3), with what QUIC, UDP and IP add. The constants are
//! estimates from the formats over IPv4; a stream's own bytes are exact, the rest is this model.

use distsoc_engine::wire::{self, Code, Layer};

/// IPv4 20, UDP 8, QUIC short header 1 + connection id 16 + packet number 2, AEAD tag 16.
pub const DATAGRAM_BYTES: u64 = 63;
/// Stream data in one datagram at the smallest path MTU that QUIC allows (1200 bytes of UDP payload).
pub const DATAGRAM_PAYLOAD_BYTES: u64 = 1_150;
/// Type, stream id, offset and length of a stream frame.
pub const STREAM_FRAME_BYTES: u64 = 8;
/// An ACK frame in a datagram of its own; one for every second datagram.
pub const ACK_BYTES: u64 = DATAGRAM_BYTES + 6;
/// What the dialler sends for a handshake: padded Initial, its acknowledgement, Finished with its raw public key.
pub const HANDSHAKE_DIALLER_BYTES: u64 = 2 * 1_228 + 420;
/// What the acceptor sends: padded Initial with the server flight, HANDSHAKE_DONE.
pub const HANDSHAKE_ACCEPTOR_BYTES: u64 = 2 * 1_228 + 160;
/// A PING and its acknowledgement, each in a datagram of its own.
pub const PING_BYTES: u64 = DATAGRAM_BYTES + 1 + ACK_BYTES;
/// Initial datagrams that a dial into nothing sends before it gives up, with doubling pauses over 4 s.
pub const DEAD_DIAL_BYTES: u64 = 4 * 1_228;

/// Bytes of a stream beyond its own, sent by its sender.
#[must_use]
pub fn overhead_bytes(stream_bytes: u64) -> u64 {
    datagrams(stream_bytes) * (DATAGRAM_BYTES + STREAM_FRAME_BYTES)
}

/// Datagrams that a stream of this size takes.
#[must_use]
pub fn datagrams(stream_bytes: u64) -> u64 {
    stream_bytes.div_ceil(DATAGRAM_PAYLOAD_BYTES).max(1)
}

/// What a cause cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How many.
    pub count: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl Cost {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Counts of the whole swarm. Every byte is counted once, where it is sent.
#[derive(Clone, Debug)]
pub struct Traffic {
    packets: Vec<Cost>,
    /// Handshakes, those into nothing included.
    pub handshakes: Cost,
    /// Keep-alive and pings with their acknowledgements.
    pub keep_alive: Cost,
    /// Headers, frames and acknowledgements around streams.
    pub overhead: Cost,
    /// Streams sent again for loss, in datagrams.
    pub retransmitted: Cost,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            packets: vec![Cost::default(); 256],
            handshakes: Cost::default(),
            keep_alive: Cost::default(),
            overhead: Cost::default(),
            retransmitted: Cost::default(),
        }
    }
}

impl Traffic {
    /// A stream is sent; returns all the bytes it takes.
    pub fn stream(&mut self, bytes: &[u8]) -> u64 {
        let own = bytes.len() as u64;
        let around = overhead_bytes(own) + datagrams(own).div_ceil(2) * ACK_BYTES;
        if let Some(code) = bytes.first() {
            self.packets[usize::from(*code)].add(own);
        }
        self.overhead.add(around);
        own + around
    }

    /// Datagrams are sent again.
    pub fn again(&mut self, datagrams: u64) {
        self.retransmitted.count += datagrams;
        self.retransmitted.bytes += datagrams * (DATAGRAM_BYTES + DATAGRAM_PAYLOAD_BYTES);
    }

    /// A handshake was completed, or ran into nothing.
    pub fn handshake(&mut self, completed: bool) {
        self.handshakes.add(match completed {
            true => HANDSHAKE_DIALLER_BYTES + HANDSHAKE_ACCEPTOR_BYTES,
            false => DEAD_DIAL_BYTES,
        });
    }

    /// So many pings were sent and answered.
    pub fn pings(&mut self, count: u64) {
        self.keep_alive.count += count;
        self.keep_alive.bytes += count * PING_BYTES;
    }

    /// By layer and cause, in a fixed order, without causes that cost nothing.
    #[must_use]
    pub fn table(&self) -> Vec<(Layer, &'static str, Cost)> {
        let packets = self.packets.iter().enumerate().filter_map(|(code, cost)| {
            let spec = wire::spec(code as Code)?;
            Some((spec.layer, spec.name, *cost))
        });
        let mut table: Vec<_> = [
            (Layer::Connection, "handshakes", self.handshakes),
            (Layer::Connection, "keep-alive", self.keep_alive),
            (
                Layer::Connection,
                "headers and acknowledgements",
                self.overhead,
            ),
            (Layer::Connection, "sent again", self.retransmitted),
        ]
        .into_iter()
        .chain(packets)
        .filter(|(_, _, cost)| cost.count > 0)
        .collect();
        table.sort_by_key(|(layer, _, _)| *layer);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_cost_their_bytes_and_what_is_around_them() {
        let mut traffic = Traffic::default();
        let hello = [0; 100];
        assert_eq!(
            traffic.stream(&hello),
            100 + DATAGRAM_BYTES + STREAM_FRAME_BYTES + ACK_BYTES
        );
        assert_eq!(datagrams(0), 1);
        assert_eq!(datagrams(DATAGRAM_PAYLOAD_BYTES + 1), 2);
        let table = traffic.table();
        assert_eq!(table.len(), 2);
        assert_eq!(
            table[1],
            (
                Layer::Connection,
                "Hello",
                Cost {
                    count: 1,
                    bytes: 100
                }
            )
        );
    }
}
