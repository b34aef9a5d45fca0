//! A flood from one loopback address. It has a process of its own, so that memory can be told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::stranger::{client, quic_io};
use common::{PATIENCE, Side, example, pair};
use distsoc_engine::io::{Effect, Input, LinkId};
use distsoc_net::runtime::block_on;
use s2n_quic::client::Connect;
use std::net::UdpSocket;

/// Handshakes of one flood.
const FLOOD: usize = 20_000;
/// Real first datagrams among them, each sent several times.
const REAL: usize = 400;

/// Garbage datagrams, and handshakes begun and never ended. Others are served, what was dropped is counted, and a second
/// flood needs no more memory than the first did.
#[test]
fn a_flood_of_handshakes_is_dropped_counted_and_nobody_else_notices() {
    block_on(async {
        let (a, link, b, _) = pair(15, 16).await;
        a.send(link, example("Hello").encode());
        b.packet().await;
        let initials = capture_initials();
        flood(&initials, &a, link, &b).await;
        let before = resident_bytes();
        flood(&initials, &a, link, &b).await;
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 16 << 20, "grew by {grown} bytes");
    });
}

async fn flood(initials: &[Vec<u8>], a: &Side, link: LinkId, b: &Side) {
    let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
    let victim = b.endpoint.local_addr();
    let mut served = 0;
    for number in 0..FLOOD {
        let mut datagram = initials[number % initials.len()].clone();
        match number % 4 {
            // Garbage: a long header with another version.
            0 => datagram[1..5].copy_from_slice(&(number as u32).to_be_bytes()),
            // Each under another destination connection id, as a flood from many would be.
            1 => datagram[6..14].copy_from_slice(&(number as u64).to_be_bytes()),
            _ => {}
        }
        attacker.send_to(&datagram, victim).unwrap();
        if number % 1000 == 0 {
            a.ask(link, example("PullSyncRequest").encode());
            let (_, stream) = b.packet().await;
            let (stream, bytes) = (stream.unwrap(), Some(example("PullSyncResponse").encode()));
            b.endpoint.perform(Effect::Respond { stream, bytes });
            let response = a.response().await;
            assert!(response.is_ok(), "served in the middle of a flood");
            served += 1;
        }
    }
    assert_eq!(served, 20);
    let dropped = b.next(|input| match input {
        Input::HandshakesDropped { count } => Some(count),
        _ => None,
    });
    assert!(dropped.await > 0);
}

/// First datagrams of real handshakes, caught by a socket that never answers.
fn capture_initials() -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").unwrap();
    sink.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = client(b"distsoc/2", true, false);
    let _guard = quic_io().enter();
    let mut caught = Vec::new();
    while caught.len() < REAL {
        let connect = Connect::new(sink.local_addr().unwrap()).with_server_name("localhost");
        let attempt = quic_io().spawn(client.connect(connect));
        let mut buffer = [0; 2048];
        let (length, _) = sink.recv_from(&mut buffer).unwrap();
        caught.push(buffer[..length].to_vec());
        attempt.abort();
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
