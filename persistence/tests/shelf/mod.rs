//! A data folder and what is put into it, for the tests of this folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses some of it")]

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    BlobRef, Content, Cut, NodeId, PostBody, PostText, PublicContent, SignedPost, Slice, Verified,
};
use distsoc_engine::io::{
    BatchId, DiskUsage, Durability, Input, Relationship, Restored, StorageTrouble, Write,
};
use distsoc_engine::wire::codec::Bounded;
use distsoc_persistence::{Fault, Store, StoreConfig};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn own() -> Secret {
    Secret::from_seed(&[1; 32])
}

pub(crate) fn open(dir: &Path) -> Result<(Store, Restored, Receiver<Input>), Fault> {
    open_with(dir, 1 << 30)
}

pub(crate) fn open_with(
    dir: &Path,
    budget_bytes: u64,
) -> Result<(Store, Restored, Receiver<Input>), Fault> {
    let (send, receive) = channel();
    let config = StoreConfig {
        dir: dir.into(),
        own: own().node_id(),
        budget_bytes,
    };
    let (store, restored) = Store::open(config, move |input| drop(send.send(input)))?;
    Ok((store, restored, receive))
}

pub(crate) fn post(author: &Secret, text: &str, created_at_ms: u64) -> SignedPost {
    let body = PostBody {
        author: author.node_id(),
        created_at_ms,
        content: Content::Public(PublicContent {
            text: PostText::new(text).unwrap(),
            parent: None,
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::default(),
    };
    SignedPost::sign(body, author).unwrap()
}

pub(crate) fn write_post(post: &SignedPost) -> Write {
    Write::Post {
        post: Box::new(post.clone()),
        arrived_ms: 9,
    }
}

pub(crate) fn follow(node: NodeId) -> Write {
    Write::Relationship {
        node,
        relationship: Some(Relationship {
            followed_since_ms: Some(5),
            ..Relationship::default()
        }),
    }
}

pub(crate) fn persist(
    store: &Store,
    receive: &Receiver<Input>,
    batch: u64,
    writes: Vec<Write>,
) -> Result<(), StorageTrouble> {
    store.persist(BatchId(batch), writes, Durability::Durable);
    loop {
        match receive.recv_timeout(PATIENCE).unwrap() {
            Input::Persisted(id) if id == BatchId(batch) => return Ok(()),
            Input::PersistFailed(id, trouble) if id == BatchId(batch) => return Err(trouble),
            _ => {}
        }
    }
}

/// Names the folder of a test program that was started as a child of itself.
const CHILD_DIR: &str = "DISTSOC_TEST_CHILD_DIR";

/// The folder to work on, where this process is the child of a test.
pub(crate) fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD_DIR).map(Into::into)
}

/// Starts this test program again, to run one test as the child on a folder.
pub(crate) fn start_child(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Bytes of every file of a folder, one below the other.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        // A copy may take its place in between.
        let Ok(file) = entry.metadata() else { continue };
        bytes += match file.is_dir() {
            true => bytes_below(&entry.path()),
            false => file.len(),
        };
    }
    bytes
}

/// Bytes of a blob that no other seed has.
pub(crate) fn blob_bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|place| (place / 13) as u8).collect();
    for (place, byte) in bytes.iter_mut().zip(seed.to_le_bytes()) {
        *place = byte;
    }
    bytes
}

/// Its slices, in order.
pub(crate) fn slices(bytes: &[u8]) -> Vec<Verified<Slice>> {
    Cut::new(bytes).unwrap().slices().collect()
}

/// A batch of them.
pub(crate) fn write_slices(slices: &[Verified<Slice>]) -> Vec<Write> {
    slices.iter().cloned().map(Write::Slice).collect()
}

/// A post that names blobs.
pub(crate) fn post_with(author: &Secret, text: &str, blobs: &[BlobRef]) -> SignedPost {
    let body = PostBody {
        author: author.node_id(),
        created_at_ms: 1_000,
        content: Content::Public(PublicContent {
            text: PostText::new(text).unwrap(),
            parent: None,
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::new(blobs.to_vec()).unwrap(),
    };
    SignedPost::sign(body, author).unwrap()
}

/// Waits until the disk has said something that this takes.
pub(crate) fn usage_where(
    receive: &Receiver<Input>,
    is_it: impl Fn(&DiskUsage) -> bool,
) -> DiskUsage {
    loop {
        match receive.recv_timeout(PATIENCE).unwrap() {
            Input::Disk(usage) if is_it(&usage) => return usage,
            _ => {}
        }
    }
}
