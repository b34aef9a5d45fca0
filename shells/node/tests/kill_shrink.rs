//! kill −9 while a node comes down to a lowered budget (PROTOCOL section 7, quota): what went is counted once, however often the node
//! starts, so what was pinned stays, and as much as the budget holds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use distsoc_api::Client;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    BlobHash, BlobRef, Content, Cut, Event, EventKind, PostBody, PostId, PostText, PublicContent,
    RecentPosts, SignedPost,
};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{
    BatchId, Durability, Input, Relationship, Restored, StoredFileRow, Write,
};
use distsoc_engine::limits;
use distsoc_engine::wire::codec::Bounded;
use distsoc_net::runtime::block_on;
use distsoc_persistence::{Store, StoreConfig, secret};
use harness::{PATIENCE, Running, eventually};
use serde_json::{Value, json as value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often it is done from the start.
const ROUNDS: usize = 12;
const BUDGET: u64 = 200_000_000;
/// The least that a person can set: more than half of the blobs have to go.
const LOWER: u64 = 64_000_000;
const POSTS: u64 = 110;
const BLOB_BYTES_MIN: u64 = 200_000;
const BLOB_BYTES_MAX: u64 = 2_000_000;
const OWN_SEED: [u8; 32] = [41; 32];

/// In memory where the system has a folder there: a killed process loses nothing that it had written, wherever that is.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.unwrap()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap();
    let bytes = entries.map(|entry| {
        let entry = entry.unwrap();
        // A copy may take its place in between.
        match entry.metadata() {
            Ok(file) if file.is_dir() => bytes_below(&entry.path()),
            Ok(file) => file.len(),
            Err(_) => 0,
        }
    });
    bytes.sum()
}

fn open(dir: &Path, deliver: impl Fn(Input) + Send + Clone + 'static) -> (Store, Restored) {
    let config = StoreConfig {
        dir: dir.into(),
        own: Secret::from_seed(&OWN_SEED).node_id(),
        budget_bytes: BUDGET,
    };
    Store::open(config, deliver).unwrap()
}

/// The folder of somebody who follows an author and has all of the author's posts, three of them pinned: these are given back, and how
/// many bytes the blobs take.
fn fill(dir: &Path, entropy: &mut Entropy) -> (Vec<PostId>, u64) {
    secret::create(dir, &OWN_SEED).unwrap();
    let (told, tell) = channel();
    let (store, _) = open(dir, move |input| drop(told.send(input)));
    store.set_budget(BUDGET);
    let mut batch = 0;
    let mut persist = |writes: Vec<Write>| {
        batch += 1;
        store.persist(BatchId(batch), writes, Durability::Durable);
        loop {
            match tell.recv_timeout(PATIENCE).unwrap() {
                Input::Persisted(id) if id == BatchId(batch) => return,
                Input::PersistFailed(_, trouble) => panic!("{trouble}"),
                _ => {}
            }
        }
    };
    let author = Secret::from_seed(&[42; 32]);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now_ms = now_ms.as_millis() as u64;
    let (mut list, mut ids) = (None, Vec::new());
    for number in 0..POSTS {
        let length = BLOB_BYTES_MIN + entropy.below(BLOB_BYTES_MAX - BLOB_BYTES_MIN);
        let mut bytes: Vec<u8> = (0..length).map(|place| (place / 17) as u8).collect();
        bytes[..32].copy_from_slice(&entropy.bytes32());
        let cut = Cut::new(&bytes).unwrap();
        let body = PostBody {
            author: author.node_id(),
            created_at_ms: now_ms - (POSTS - number) * 60_000,
            content: Content::Public(PublicContent {
                text: PostText::new(&format!("number {number}")).unwrap(),
                parent: None,
                descriptions: Bounded::default(),
            }),
            blobs: Bounded::new(vec![cut.blob()]).unwrap(),
        };
        let post = SignedPost::sign(body, &author).unwrap();
        persist(cut.slices().map(Write::Slice).collect());
        let event = Event {
            id: post.id(),
            created_at_s: (post.body().created_at_ms / 1000) as u32,
            kind: EventKind::Public,
        };
        let made_s = (now_ms / 1000) as u32;
        list = Some(RecentPosts::append(
            list.as_ref(),
            event,
            made_s,
            now_ms,
            &author,
        ));
        ids.push(post.id());
        persist(vec![Write::Post {
            post: Box::new(post),
            arrived_ms: now_ms,
        }]);
    }
    let list = list.unwrap();
    let pinned: Vec<PostId> = [3, 40, 77].map(|place: usize| ids[place]).to_vec();
    let mut writes = vec![
        Write::RecentPosts {
            head: list.head().clone(),
            list: list.list().clone(),
        },
        Write::Relationship {
            node: author.node_id(),
            relationship: Some(Relationship {
                followed_since_ms: Some(now_ms),
                ..Relationship::default()
            }),
        },
    ];
    writes.extend(pinned.iter().map(|post| Write::Pin {
        post: *post,
        is_pinned: true,
    }));
    persist(writes);
    store.close();
    drop(store);
    let (store, restored) = open(dir, |_| {});
    store.close();
    (pinned, restored.usage.blob_bytes)
}

/// What a node says of its disk; `None` where it cannot be asked.
fn is_shrinking(dir: &Path) -> Option<bool> {
    let client = block_on(Client::open(dir)).ok()?;
    let storage = block_on(client.call("storage", Value::Null)).ok()?;
    let is_set = storage["budget_bytes"] == LOWER;
    is_set.then(|| storage["is_shrinking"] == true)
}

/// Asks for the lower budget, and does not wait for the answer.
fn lower(dir: &Path) {
    let client = block_on(Client::open(dir)).unwrap();
    let set = move || block_on(client.call("storage_set", value!({"budget_bytes": LOWER})));
    // The node may be killed before it has answered.
    std::thread::spawn(move || drop(set()));
}

/// An instant, not a deadline: whatever has happened by then is right. At times one after the call, else one of the shrinking itself:
/// once the folder is smaller than this.
fn wait_for_an_instant(dir: &Path, entropy: &mut Entropy) {
    if entropy.below(2) == 0 {
        // The random instant of the kill, at which nothing need have happened: no condition says when it is.
        std::thread::park_timeout(Duration::from_millis(entropy.below(120)));
        return;
    }
    let level = LOWER + entropy.below(bytes_below(dir).saturating_sub(LOWER).max(1));
    eventually("it shrinks", || {
        bytes_below(dir) < level || is_shrinking(dir) == Some(false)
    });
}

/// What must be true of a folder that has come down to its budget.
fn check(dir: &Path, pinned: &[PostId], blob_bytes_before: u64, case: &str) {
    let (store, restored) = open(dir, |_| {});
    let usage = restored.usage;
    assert!(!usage.is_shrinking, "{case}: {usage:?}");
    let bytes = bytes_below(dir);
    assert!(bytes <= LOWER, "{case}: {bytes} bytes");
    let files: BTreeMap<PostId, &StoredFileRow> =
        restored.files.iter().map(|file| (file.id, file)).collect();
    for post in pinned {
        let file = files
            .get(post)
            .unwrap_or_else(|| panic!("{case}: a pin went"));
        assert!(file.is_pinned, "{case}");
    }
    let mut named = BTreeSet::<BlobHash>::new();
    for blob in restored.files.iter().flat_map(|file| file.blobs.iter()) {
        let BlobRef { hash, length } = *blob;
        let whole = store.view().blob_part(*blob, 0..length).unwrap();
        assert!(whole.is_some(), "{case}: a file without its blob");
        named.insert(hash);
    }
    let stored: BTreeSet<BlobHash> = restored.blobs.iter().map(|blob| blob.hash).collect();
    assert_eq!(stored, named, "{case}: what no file names has gone");
    // It ends at the first file past the mark. What goes is counted without the rest of the last page of each slice, which is free too:
    // less than a twelfth.
    let mark = usage.blob_room_bytes / 100 * limits::EVICTION_ENDS_PERCENT;
    let least = mark - (blob_bytes_before - mark) / 12 - BLOB_BYTES_MAX * 9 / 8;
    assert!(
        usage.blob_bytes >= least,
        "{case}: {} bytes are kept of {mark}",
        usage.blob_bytes
    );
    store.close();
}

#[test]
fn a_node_that_is_killed_while_it_shrinks_evicts_once() {
    let seed = std::env::var("DISTSOC_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1u8);
    let mut entropy = Entropy::from_seed([seed; 32]);
    let before = folder();
    let (pinned, blob_bytes) = fill(before.path(), &mut entropy);
    for round in 0..ROUNDS {
        let case = format!("round {round}, DISTSOC_SEED={seed}");
        let dir = folder();
        copy(before.path(), dir.path());
        let mut node = Running::node(dir.path());
        for _ in 0..=entropy.below(3) {
            lower(dir.path());
            wait_for_an_instant(dir.path(), &mut entropy);
            node.kill();
            node = Running::node(dir.path());
        }
        lower(dir.path());
        eventually("it has the budget", || {
            is_shrinking(dir.path()) == Some(false)
        });
        assert_eq!(node.interrupt("-TERM"), Some(0), "{case}");
        check(dir.path(), &pinned, blob_bytes, &case);
    }
}
