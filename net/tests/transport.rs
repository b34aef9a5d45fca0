//! Real QUIC on loopback between endpoints of one process: who gets in, and what becomes of what they send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_channel::Receiver;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{Address, NodeId};
use distsoc_engine::io::{
    DialFailure, DialId, DialTarget, DownCause, Effect, Input, LinkId, Origin, RequestFailure,
    RequestId, StreamToken,
};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{Code, GoodbyeReason, Packet, PacketBytes};
use distsoc_net::runtime::{block_on, timeout};
use distsoc_net::{Endpoint, EndpointConfig};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use zeroize::Zeroizing;

const PATIENCE: Duration = Duration::from_secs(30);

struct Side {
    endpoint: Endpoint,
    inputs: Receiver<Input>,
    id: NodeId,
}

fn side(number: u8) -> Side {
    let secret = Secret::from_seed(&[number; 32]);
    let config = EndpointConfig {
        secret_seed: Zeroizing::new([number; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        profile: NodeProfile::of(ProfileKind::Desktop),
        entropy: [number; 16],
    };
    let (endpoint, inputs) = Endpoint::start(config).unwrap();
    Side {
        endpoint,
        inputs,
        id: secret.node_id(),
    }
}

impl Side {
    /// The next input that the closure makes something of; others are passed over.
    async fn next<T>(&self, mut pick: impl FnMut(Input) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(found) = pick(self.inputs.recv().await.expect("the endpoint runs")) {
                    return found;
                }
            }
        });
        found.await.expect("it happens within 30 s")
    }

    fn dial(&self, number: u64, node: NodeId, at: SocketAddr) {
        let target = DialTarget::Addresses(vec![Address::new(at).unwrap()]);
        let dial = DialId(number);
        self.endpoint.perform(Effect::Dial { dial, node, target });
    }

    async fn failure(&self) -> DialFailure {
        let pick = |input| match input {
            Input::DialFailed { failure, .. } => Some(failure),
            _ => None,
        };
        self.next(pick).await
    }

    async fn up(&self) -> (LinkId, NodeId, SocketAddr, Origin) {
        let pick = |input| match input {
            Input::LinkUp {
                link,
                node,
                remote,
                origin,
            } => Some((link, node, remote, origin)),
            _ => None,
        };
        self.next(pick).await
    }

    async fn down(&self) -> DownCause {
        let pick = |input| match input {
            Input::LinkDown { cause, .. } => Some(cause),
            _ => None,
        };
        self.next(pick).await
    }

    async fn packet(&self) -> (Packet, Option<StreamToken>) {
        let pick = |input| match input {
            Input::Packet { packet, stream, .. } => Some((packet.into_inner(), stream)),
            _ => None,
        };
        self.next(pick).await
    }

    async fn refused(&self) -> (Code, Refusal) {
        let pick = |input| match input {
            Input::Refused { code, refusal, .. } => Some((code, refusal)),
            _ => None,
        };
        self.next(pick).await
    }

    async fn response(&self) -> Result<Packet, RequestFailure> {
        let pick = |input| match input {
            Input::Response { result, .. } => {
                Some(result.map(distsoc_engine::wire::Admitted::into_inner))
            }
            _ => None,
        };
        self.next(pick).await
    }

    fn send(&self, link: LinkId, bytes: impl Into<PacketBytes>) {
        let bytes = bytes.into();
        self.endpoint.perform(Effect::Send { link, bytes });
    }

    fn ask(&self, link: LinkId, bytes: PacketBytes) {
        self.endpoint.perform(Effect::Request {
            link,
            request: RequestId(1),
            bytes,
            timeout_ms: 20_000,
        });
    }
}

fn example(name: &str) -> Packet {
    Packet::examples()
        .into_iter()
        .find(|packet| packet.spec().name == name)
        .unwrap()
}

/// Two sides with a connection that a dialled.
async fn pair(a: u8, b: u8) -> (Side, LinkId, Side, LinkId) {
    let (a, b) = (side(a), side(b));
    a.dial(1, b.id, b.endpoint.local_addr());
    let (link_a, node_b, ..) = a.up().await;
    let (link_b, node_a, remote, origin) = b.up().await;
    assert_eq!(
        (node_a, node_b),
        (a.id, b.id),
        "the handshake proves both keys"
    );
    assert_eq!(origin, Origin::Accepted);
    if cfg!(target_os = "linux") {
        assert_eq!(
            remote,
            a.endpoint.local_addr(),
            "one port for dialling and accepting"
        );
    }
    (a, link_a, b, link_b)
}

#[test]
fn wrong_ids_dead_ports_and_other_protocols_are_reported_as_such() {
    block_on(async {
        let (a, b) = (side(1), side(2));
        a.dial(
            1,
            Secret::from_seed(&[9; 32]).node_id(),
            b.endpoint.local_addr(),
        );
        assert_eq!(a.failure().await, DialFailure::WrongId);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        a.dial(2, b.id, silent.local_addr().unwrap());
        assert_eq!(a.failure().await, DialFailure::NoAnswer);
        let closed = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        a.dial(3, b.id, closed);
        assert_eq!(a.failure().await, DialFailure::NoAnswer);
        let dial = DialId(4);
        let target = DialTarget::Host {
            name: "no-such-host.invalid".into(),
            port: 4000,
        };
        let node = b.id;
        a.endpoint.perform(Effect::Dial { dial, node, target });
        assert_eq!(a.failure().await, DialFailure::NoSuchHost);
        a.dial(5, b.id, b.endpoint.local_addr());
        assert_eq!(a.up().await.1, b.id, "and the right one still gets through");
    });
}

#[test]
fn notifications_keep_their_order_and_come_before_an_early_request() {
    block_on(async {
        let (a, link, b, _) = pair(3, 4).await;
        a.ask(link, example("BootstrapSampleRequest").encode());
        a.send(link, example("Hello").encode());
        let (first, _) = b.packet().await;
        assert_eq!(first.spec().name, "Hello", "Hello is not overtaken");
        let (second, stream) = b.packet().await;
        assert_eq!(second.spec().name, "BootstrapSampleRequest");
        let stream = stream.expect("a request has a place for its answer");
        let bytes = Some(example("BootstrapSampleResponse").encode());
        b.endpoint.perform(Effect::Respond { stream, bytes });
        assert_eq!(a.response().await, Ok(example("BootstrapSampleResponse")));

        a.ask(link, example("PullSyncRequest").encode());
        let (_, stream) = b.packet().await;
        let (stream, bytes) = (stream.unwrap(), None);
        b.endpoint.perform(Effect::Respond { stream, bytes });
        assert_eq!(a.response().await, Err(RequestFailure::NoResponse));
    });
}

#[test]
fn what_must_be_refused_is_and_the_connection_goes_on() {
    block_on(async {
        let (a, link, b, _) = pair(5, 6).await;
        let profile = example("ProfileUpdate").encode();
        let mut forged = profile.to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let mut long = profile.to_vec();
        long.push(0);
        let mut oversized = profile.to_vec();
        oversized.resize(example("ProfileUpdate").spec().bytes_max + 1, 0);
        let cases: [(Vec<u8>, Code, Refusal); 7] = [
            (vec![0xee, 1, 2], 0xee, Refusal::UnknownCode),
            (vec![0x01, 1, 2], 0x01, Refusal::ReservedCode),
            (
                example("PullSyncRequest").encode().to_vec(),
                0x40,
                Refusal::WrongDirection,
            ),
            (profile[..40].to_vec(), 0x50, Refusal::Malformed),
            (forged, 0x50, Refusal::BadSignature),
            (long, 0x50, Refusal::NotCanonical),
            (oversized, 0x50, Refusal::TooLarge),
        ];
        for (bytes, code, refusal) in cases {
            a.send(link, bytes);
            assert_eq!(b.refused().await, (code, refusal));
        }
        a.send(link, profile);
        assert_eq!(b.packet().await.0, example("ProfileUpdate"));
    });
}

#[test]
fn more_than_the_rate_is_dropped_and_counted() {
    block_on(async {
        let (a, link, b, _) = pair(7, 8).await;
        let burst = example("ProfileUpdate").spec().burst;
        for _ in 0..burst + 5 {
            a.send(link, example("ProfileUpdate").encode());
        }
        let (mut taken, mut refused) = (0, 0);
        while taken + refused < burst + 5 {
            let pick = |input| match input {
                Input::Packet { .. } => Some(true),
                Input::Refused { refusal, .. } => {
                    assert_eq!(refusal, Refusal::RateExceeded);
                    Some(false)
                }
                _ => None,
            };
            match b.next(pick).await {
                true => taken += 1,
                false => refused += 1,
            }
        }
        assert!(
            taken >= burst && refused >= 1,
            "{taken} taken, {refused} refused"
        );
    });
}

#[test]
fn closing_delivers_what_was_sent_before_and_says_why() {
    block_on(async {
        let (a, link, b, _) = pair(9, 10).await;
        a.send(link, example("Hello").encode());
        a.send(link, example("Goodbye").encode());
        let reason = GoodbyeReason::Full;
        a.endpoint.perform(Effect::Close { link, reason });
        assert_eq!(b.packet().await.0.spec().name, "Hello");
        assert_eq!(b.packet().await.0.spec().name, "Goodbye");
        assert_eq!(
            b.down().await,
            DownCause::ClosedByPeer(Some(GoodbyeReason::Full))
        );
        assert_eq!(a.down().await, DownCause::ClosedByUs);
        a.ask(link, example("PullSyncRequest").encode());
        assert_eq!(a.response().await, Err(RequestFailure::LinkDown));
    });
}

#[test]
fn a_peer_that_goes_is_noticed_and_can_come_back() {
    block_on(async {
        let (a, _, b, _) = pair(11, 12).await;
        b.endpoint.shutdown().await;
        assert!(matches!(a.down().await, DownCause::ClosedByPeer(_)));
        drop(b);
        let again = side(12);
        a.dial(2, again.id, again.endpoint.local_addr());
        assert_eq!(a.up().await.1, again.id);
    });
}

#[test]
fn every_pair_of_twelve_connects_both_ways_at_once() {
    block_on(async {
        let sides: Vec<Side> = (100..112).map(side).collect();
        for (number, from) in sides.iter().enumerate() {
            for to in sides.iter().filter(|to| to.id != from.id) {
                from.dial(number as u64, to.id, to.endpoint.local_addr());
            }
        }
        for side in &sides {
            for _ in 0..2 * (sides.len() - 1) {
                side.up().await;
            }
        }
    });
}

#[test]
fn bytes_are_accounted_to_their_cause() {
    block_on(async {
        let (a, link, b, _) = pair(13, 14).await;
        let hello = example("Hello").encode();
        a.send(link, hello.clone());
        b.packet().await;
        let row = |side: &Side, cause: &str| {
            side.endpoint
                .traffic()
                .into_iter()
                .find(|row| row.cause == cause)
                .unwrap()
        };
        assert_eq!(row(&a, "Hello").out_bytes, hello.len() as u64);
        assert_eq!(row(&b, "Hello").in_bytes, hello.len() as u64);
        assert!(
            row(&a, "transport").out_bytes > 1_200 && row(&b, "transport").in_bytes > 1_200,
            "handshakes cost too"
        );
    });
}

/// A flood from one loopback address: garbage datagrams, and handshakes begun and never ended. Others are served, memory stays
/// flat, what was dropped is counted.
#[test]
fn a_flood_of_handshakes_is_dropped_counted_and_nobody_else_notices() {
    block_on(async {
        let (a, link, b, _) = pair(15, 16).await;
        a.send(link, example("Hello").encode());
        b.packet().await;
        let initials = capture_initials(b.id).await;
        let before = resident_bytes();
        let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
        let victim = b.endpoint.local_addr();
        let mut served = 0;
        for number in 0..20_000usize {
            let mut datagram = initials[number % initials.len()].clone();
            if number % 4 == 0 {
                // Garbage: a long header with another version and a broken length.
                datagram[1..5].copy_from_slice(&(number as u32).to_be_bytes());
            } else {
                // Each under another destination connection id, as a flood from many would be: each is an attempt of its own.
                datagram[6..14].copy_from_slice(&(number as u64).to_be_bytes());
            }
            attacker.send_to(&datagram, victim).unwrap();
            if number % 1000 == 0 {
                a.ask(link, example("PullSyncRequest").encode());
                let (_, stream) = b.packet().await;
                let (stream, bytes) = (stream.unwrap(), Some(example("PullSyncResponse").encode()));
                b.endpoint.perform(Effect::Respond { stream, bytes });
                assert!(
                    a.response().await.is_ok(),
                    "served in the middle of a flood"
                );
                served += 1;
            }
        }
        assert_eq!(served, 20);
        let dropped = b.next(|input| match input {
            Input::HandshakesDropped { count } => Some(count),
            _ => None,
        });
        assert!(dropped.await > 0);
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 96 << 20, "grew by {grown} bytes");
    });
}

/// First datagrams of real handshakes, caught by a socket that never answers.
async fn capture_initials(node: NodeId) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    sink.set_read_timeout(Some(PATIENCE)).unwrap();
    let dialler = side(77);
    let mut caught = Vec::new();
    for round in 0..1 {
        for number in 0..16 {
            dialler.dial(round * 16 + number, node, sink.local_addr().unwrap());
        }
        for _ in 0..16 {
            let mut buffer = [0; 2048];
            let (length, _) = sink.recv_from(&mut buffer).unwrap();
            caught.push(buffer[..length].to_vec());
        }
        for _ in 0..16 {
            assert_eq!(dialler.failure().await, DialFailure::NoAnswer);
        }
    }
    caught
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    pages * 4096
}
