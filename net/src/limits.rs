//! Bounds of the transport, each with its unit in the name.

use distsoc_engine::limits::REQUEST_TIMEOUT_MS;

/// A handshake that takes longer has failed, so that a dead port is given up within 5 s.
pub const HANDSHAKE_MS_MAX: u64 = 4_000;
/// PROTOCOL section 5: above this many handshakes in flight, whoever dials proves its address first (Retry).
pub const HANDSHAKES_BEFORE_RETRY: usize = 64;
/// Handshakes in flight on one endpoint, whoever begins them.
pub const HANDSHAKES_MAX: usize = 512;
/// PROTOCOL section 5: handshakes a second from one IPv4 address (IPv6 /56).
pub const HANDSHAKES_PER_SECOND_MAX: u32 = 10;
/// PROTOCOL section 5: handshakes in flight from one address; counted over [`HANDSHAKE_MS_MAX`], which bounds them.
pub const HANDSHAKES_PER_ADDRESS_MAX: u32 = 32;
/// The same two in the development scope, where many nodes share an address.
pub const LOCAL_HANDSHAKES_PER_SECOND_MAX: u32 = 256;
/// See [`LOCAL_HANDSHAKES_PER_SECOND_MAX`].
pub const LOCAL_HANDSHAKES_PER_ADDRESS_MAX: u32 = 512;
/// Addresses whose handshakes are counted.
pub const ADDRESSES_COUNTED_MAX: usize = 8_192;

/// Inputs that wait for the node: past it, QUIC's flow control makes peers wait.
pub const INPUTS_MAX: usize = 256;
/// Packets that wait to be sent on one connection: past it, the connection is closed.
pub const PACKETS_WAITING_MAX: usize = 2_048;
/// Bytes that wait to be sent on one connection.
pub const BYTES_WAITING_MAX: usize = 8 * 1024 * 1024;
/// Streams on one connection that a peer may have open, each way of opening.
pub const STREAMS_UNI_MAX: u64 = 16;
/// See [`STREAMS_UNI_MAX`].
pub const STREAMS_BIDI_MAX: u64 = 8;
/// Bytes of one stream in flight.
pub const STREAM_WINDOW_BYTES: u64 = 128 * 1024;
/// Bytes of one response to a request of ours in flight: of a wrong one, this much comes after its first wrong byte.
pub const RESPONSE_WINDOW_BYTES: u64 = 256 * 1024;
/// Bytes of one connection in flight.
pub const CONNECTION_WINDOW_BYTES: u64 = 512 * 1024;
/// Bytes of one stream that the transport takes before some of them are acknowledged.
pub const SEND_BUFFER_BYTES: u32 = 256 * 1024;
/// Bytes handed to the transport at once.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of responses with slices on their way, over all connections: past it, and past a connection's share, who asks waits.
pub const SLICE_RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of all other responses on their way: past it who asks for a large one (posts and lists) waits, and a small one is dropped. Slices
/// take none of it: many who want pictures keep nobody from what is new.
pub const RESPONSE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long what asks for a large one waits, at most: half of what whoever asked waits for the first of it.
pub const ROOM_WAIT_MS_MAX: u64 = REQUEST_TIMEOUT_MS / 2;
/// A stream on which nothing moves for this long is given up.
pub const STREAM_STALL_MS_MAX: u64 = REQUEST_TIMEOUT_MS;
/// How long a connection that closes may take to deliver what was sent before.
pub const CLOSE_FLUSH_MS_MAX: u64 = 1_000;
/// How long a connection that closes then waits for the peer to close it, having read what was sent.
pub const CLOSE_LINGER_MS_MAX: u64 = 3_000;
/// How long an endpoint that stops waits for the last packets to be sent, and then, at most, for its port to be free.
pub const LAST_PACKETS_MS: u64 = 50;
/// See [`LAST_PACKETS_MS`].
pub const PORT_FREE_MS_MAX: u64 = 1_000;
/// Packets on one connection whose acknowledgement a close waits for; the newest ones.
pub const UNACKNOWLEDGED_MAX: usize = 64;
/// Own addresses are looked at again after this.
pub const ADDRESS_POLL_MS: u64 = 2_000;
/// Dropped handshakes are reported at most this often.
pub const DROPPED_REPORT_MS: u64 = 250;
/// The receive buffer asked of the system: bursts of handshakes do not fit the default.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The ring of received datagrams of each of the two sockets, inside the process; s2n-quic's own default is 8 MiB, all of
/// which comes into memory as datagrams go round.
pub const RECEIVE_RING_BYTES: usize = 1024 * 1024;
