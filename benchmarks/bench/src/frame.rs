//! What a frame costs when nothing happens: the price of being awake.

use crate::measure::{Figure, interleaved};
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::Secret;
use distsoc_engine::io::{Input, LinkId, Origin, Restored};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::{Expected, Hello, Packet, Purpose, admit};
use std::hint::black_box;

const FRAMES: usize = 2_000;

fn node(peers: u8) -> (Node, Now) {
    let config = NodeConfig {
        secret: Secret::from_seed(&[200; 32]),
        profile: NodeProfile::of(ProfileKind::Desktop),
        seed: [1; 32],
        anchors: Vec::new(),
        restored: Restored::default(),
    };
    let mut node = Node::new(config, distsoc_systems::install);
    let now = Now {
        mono_ms: 1_000,
        wall_ms: 1_700_000_000_000,
    };
    let hello = Packet::from(Hello::new(
        ProfileKind::Desktop,
        Purpose::Social,
        false,
        false,
        None,
        None,
    ))
    .encode();
    let mut inputs = vec![Input::OwnAddresses(vec![([127, 0, 0, 1], 4000).into()])];
    for number in 0..peers {
        let link = LinkId(u64::from(number));
        inputs.push(Input::LinkUp {
            link,
            node: Secret::from_seed(&[number; 32]).node_id(),
            remote: ([127, 0, 0, 1], 5000 + u16::from(number)).into(),
            origin: Origin::Accepted,
        });
        inputs.push(Input::Packet {
            link,
            stream: None,
            packet: admit(&hello, Expected::Notification).expect("a Hello of this version"),
        });
    }
    node.tick(now, inputs);
    for _ in 0..10 {
        node.tick(now, []);
    }
    (node, now)
}

/// Frames without inputs, with no peers and with 101.
pub(crate) fn idle_frames(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 15 } else { 101 };
    let ((mut alone, now), (mut connected, _)) = (node(0), node(101));
    let mut run_alone = || (0..FRAMES).for_each(|_| drop(black_box(alone.tick(now, []))));
    let mut run_connected = || (0..FRAMES).for_each(|_| drop(black_box(connected.tick(now, []))));
    let samples = interleaved(rounds, FRAMES, &mut [&mut run_alone, &mut run_connected]);
    let names = ["idle frame, no peers", "idle frame, 101 peers"];
    let figure = |(name, samples): (&str, Vec<f64>)| {
        let micros = samples.into_iter().map(|ns| ns / 1000.0).collect();
        Figure::of(name, "µs", micros).goal("≤ 5")
    };
    names.into_iter().zip(samples).map(figure).collect()
}
