//! What a frame costs when nothing happens: the price of being awake.

use crate::measure::{Figure, interleaved};
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::{Secret, hash};
use distsoc_engine::domain::{Event, EventKind, NodeId, PostId, RecentPosts};
use distsoc_engine::io::{
    Effect, Input, LinkId, Origin, ReadQuery, ReadResult, Relationship, Restored, StoredFileRow,
    StoredList,
};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::{Expected, Hello, Packet, Purpose, admit};
use std::collections::BTreeMap;
use std::hint::black_box;

const FRAMES: usize = 2_000;

/// Authors that are followed, and posts of each that are stored.
const AUTHORS: u16 = 500;
const POSTS_OF_EACH: u16 = 20;

/// What a disk holds of so many authors, with their lists.
fn stored(authors: u16, now: Now) -> (Restored, BTreeMap<NodeId, StoredList>) {
    let (mut restored, mut lists) = (Restored::default(), BTreeMap::new());
    let now_s = (now.wall_ms / 1000) as u32;
    for author in 0..authors {
        let mut seed = [201; 32];
        seed[..2].copy_from_slice(&author.to_be_bytes());
        let secret = Secret::from_seed(&seed);
        let node = secret.node_id();
        let mut list = None;
        for post in 0..POSTS_OF_EACH {
            let number = [author.to_be_bytes(), post.to_be_bytes()].concat();
            let event = Event {
                id: PostId::from_bytes(hash(&number)),
                created_at_s: now_s - u32::from(post) * 3_600,
                kind: EventKind::Public,
            };
            list = Some(RecentPosts::append(
                list.as_ref(),
                event,
                7,
                now.wall_ms,
                &secret,
            ));
            restored.files.push(StoredFileRow {
                id: event.id,
                author: node,
                created_at_s: event.created_at_s,
                bytes: 300,
                blobs: Box::default(),
                is_pinned: false,
            });
        }
        let list = list.expect("there are posts");
        let relationship = Relationship {
            followed_since_ms: Some(1),
            ..Relationship::default()
        };
        restored.relationships.push((node, relationship));
        restored.authors.push((list.head().clone(), now.wall_ms));
        let stored = StoredList {
            head: list.head().clone(),
            list: list.list().clone(),
        };
        lists.insert(node, stored);
    }
    (restored, lists)
}

fn node(peers: u8, authors: u16) -> (Node, Now) {
    let now = Now {
        mono_ms: 1_000,
        wall_ms: 1_700_000_000_000,
    };
    let (restored, mut lists) = stored(authors, now);
    let config = NodeConfig {
        secret: Secret::from_seed(&[200; 32]),
        profile: NodeProfile::of(ProfileKind::Desktop),
        seed: [1; 32],
        anchors: Vec::new(),
        restored,
    };
    let mut node = Node::new(config, distsoc_systems::install);
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
    // Until everything is read that a start reads.
    let mut quiet = 0;
    while quiet < 10 {
        let outputs = node.tick(now, std::mem::take(&mut inputs));
        for effect in outputs.effects {
            if let Effect::Read {
                read,
                query: ReadQuery::RecentPosts(author),
            } = effect
            {
                let result = Ok(ReadResult::RecentPosts(lists.remove(&author)));
                inputs.push(Input::Read { read, result });
            }
        }
        quiet = if inputs.is_empty() { quiet + 1 } else { 0 };
    }
    (node, now)
}

/// Frames without inputs, with no peers, with 101, and with many authors and posts beside them.
pub(crate) fn idle_frames(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 15 } else { 101 };
    let ((mut alone, now), (mut connected, _)) = (node(0, 0), node(101, 0));
    let (mut keeping, _) = node(101, AUTHORS);
    let mut run_alone = || (0..FRAMES).for_each(|_| drop(black_box(alone.tick(now, []))));
    let mut run_connected = || (0..FRAMES).for_each(|_| drop(black_box(connected.tick(now, []))));
    let mut run_keeping = || (0..FRAMES).for_each(|_| drop(black_box(keeping.tick(now, []))));
    let runs: &mut [&mut dyn FnMut()] = &mut [&mut run_alone, &mut run_connected, &mut run_keeping];
    let samples = interleaved(rounds, FRAMES, runs);
    let names = [
        "idle frame, no peers",
        "idle frame, 101 peers",
        "idle frame, 101 peers, 10,000 posts of 500 authors",
    ];
    let figure = |(name, samples): (&str, Vec<f64>)| {
        let micros = samples.into_iter().map(|ns| ns / 1000.0).collect();
        Figure::of(name, "µs", micros).goal("≤ 5")
    };
    names.into_iter().zip(samples).map(figure).collect()
}
