//! Real QUIC on loopback between endpoints of one process: who gets in, and what becomes of what they send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use distsoc_engine::crypto::Secret;
use distsoc_engine::io::{
    DialFailure, DialId, DialTarget, DownCause, Effect, Input, RequestFailure,
};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{Code, GoodbyeReason};
use distsoc_net::runtime::block_on;
use std::net::UdpSocket;

mod common;

use common::{Side, example, pair, side};

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
            (vec![0x32, 1, 2], 0x32, Refusal::ReservedCode),
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
fn everything_sent_before_a_close_comes_before_the_end() {
    block_on(async {
        for round in 0..20 {
            let (a, link, b, link_b) = pair(13, 14).await;
            a.send(link, example("Hello").encode());
            for _ in 0..10 {
                a.send(link, example("PostNotification").encode());
            }
            if round % 2 == 1 {
                // The task that sends has come to its end before the close.
                distsoc_net::runtime::sleep(std::time::Duration::from_millis(round)).await;
            }
            a.send(link, example("Goodbye").encode());
            let reason = GoodbyeReason::Stopping;
            a.endpoint.perform(Effect::Close { link, reason });
            let mut came = Vec::new();
            b.next(|input| match input {
                Input::Packet { packet, .. } => {
                    came.push(packet.spec().name);
                    if packet.spec().name == "Goodbye" {
                        // As a node does.
                        let (link, reason) = (link_b, GoodbyeReason::Stopping);
                        b.endpoint.perform(Effect::Close { link, reason });
                    }
                    None
                }
                Input::LinkDown { .. } => Some(()),
                _ => None,
            })
            .await;
            assert_eq!((came.len(), came[11]), (12, "Goodbye"), "round {round}");
        }
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
fn whoever_has_stopped_accepts_nobody_and_gives_the_port_back() {
    block_on(async {
        let (a, _, b, _) = pair(5, 6).await;
        let place = b.endpoint.local_addr();
        b.endpoint.shutdown().await;
        a.down().await;
        a.dial(2, b.id, place);
        let failure = a.failure().await;
        assert!(
            matches!(failure, DialFailure::Refused | DialFailure::NoAnswer),
            "{failure:?}"
        );
        UdpSocket::bind(place).expect("the port is free");
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
