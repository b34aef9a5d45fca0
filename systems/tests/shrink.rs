//! A node that starts over its budget, as one does that was killed while it came down to a lower one (PROTOCOL section 7, quota): what
//! goes is what lacks room, and once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod table;

use distsoc_engine::clock::Now;
use distsoc_engine::domain::{BlobHash, BlobRef, Cut, PostId, SLICE_BYTES};
use distsoc_engine::io::{
    BatchId, DiskUsage, Effect, Input, Outputs, Relationship, Restored, StoredBlob, StoredFileRow,
    Write,
};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use table::secret;

const LENGTH: u64 = 4 * SLICE_BYTES as u64;
const FILES: u8 = 100;
const WALL_MS: u64 = 1_800_000_000_000;

fn blob(number: u8, kind: u8) -> BlobRef {
    let mut hash = [number; 32];
    hash[0] = kind;
    BlobRef {
        hash: BlobHash::from_bytes(hash),
        length: LENGTH,
    }
}

fn stored(blob: BlobRef) -> StoredBlob {
    let like_it = vec![7; LENGTH as usize];
    let last = Cut::new(&like_it).unwrap().slices().last().unwrap();
    StoredBlob {
        hash: blob.hash,
        slices: std::iter::once(0..blob.slices()).collect(),
        last_bytes: last.bytes().len() as u32,
    }
}

fn usage(files: u64) -> DiskUsage {
    let bytes = |files| files * blob(0, 0).disk_bytes();
    DiskUsage {
        budget_bytes: 1 << 30,
        row_bytes: 1_000,
        row_room_bytes: 1 << 20,
        blob_bytes: bytes(files),
        blob_room_bytes: bytes(u64::from(FILES)),
        is_shrinking: true,
        ..DiskUsage::default()
    }
}

/// A node that follows somebody of whom it has a hundred files, and so many blobs more that no file names.
fn start(orphans: u8, usage: DiskUsage) -> Node {
    let author = secret(2).node_id();
    let file = |number: u8| StoredFileRow {
        id: PostId::from_bytes([number; 32]),
        author,
        created_at_s: (WALL_MS / 1000) as u32 - 60,
        bytes: 100,
        blobs: vec![blob(number, 1)].into(),
        is_pinned: false,
    };
    let named = (0..FILES).map(|number| stored(blob(number, 1)));
    let others = (0..orphans).map(|number| stored(blob(number, 2)));
    let followed = Relationship {
        followed_since_ms: Some(1),
        ..Relationship::default()
    };
    let restored = Restored {
        relationships: vec![(author, followed)],
        files: (0..FILES).map(file).collect(),
        blobs: named.chain(others).collect(),
        usage,
        ..Restored::default()
    };
    let config = NodeConfig {
        secret: secret(1),
        profile: NodeProfile::of(ProfileKind::Desktop),
        seed: [1; 32],
        anchors: Vec::new(),
        restored,
    };
    Node::new(config, distsoc_systems::install)
}

fn tick(node: &mut Node, mono_ms: u64, inputs: Vec<Input>) -> Outputs {
    let now = Now {
        mono_ms,
        wall_ms: WALL_MS + mono_ms,
    };
    node.tick(now, inputs)
}

/// What goes: the batch, its posts and its blobs.
fn going(outputs: &Outputs) -> Option<(BatchId, usize, usize)> {
    outputs.effects.iter().find_map(|effect| {
        let Effect::Persist { batch, writes, .. } = effect else {
            return None;
        };
        let count = |is_it: fn(&Write) -> bool| writes.iter().filter(|write| is_it(write)).count();
        let posts = count(|write| matches!(write, Write::ForgetPost(_)));
        let blobs = count(|write| matches!(write, Write::ForgetBlob(_)));
        (posts + blobs > 0).then_some((*batch, posts, blobs))
    })
}

#[test]
fn what_no_file_names_goes_first_and_nothing_for_its_room() {
    let mut node = start(30, usage(110));
    let (batch, posts, blobs) = going(&tick(&mut node, 1_000, Vec::new())).unwrap();
    assert_eq!((posts, blobs), (0, 30));
    let ends = vec![Input::Persisted(batch), Input::Disk(usage(80))];
    assert_eq!(going(&tick(&mut node, 1_010, ends)), None);
    assert_eq!(going(&tick(&mut node, 20_000, Vec::new())), None);
}

#[test]
fn what_the_disk_said_before_it_let_go_makes_nothing_more_go() {
    let mut node = start(0, usage(100));
    let (batch, posts, blobs) = going(&tick(&mut node, 1_000, Vec::new())).unwrap();
    assert_eq!((posts, blobs), (10, 10));
    // A file was written anew meanwhile.
    let before = DiskUsage {
        file_bytes: 5,
        ..usage(100)
    };
    let ends = vec![Input::Disk(before), Input::Persisted(batch)];
    assert_eq!(going(&tick(&mut node, 1_010, ends)), None);
    let told = vec![Input::Disk(usage(90))];
    assert_eq!(going(&tick(&mut node, 1_020, told)), None);
    assert_eq!(going(&tick(&mut node, 20_000, Vec::new())), None);
}
