//! The node's disk: the real store in a real folder, one job after the other, and a second account of what was acknowledged.

use distsoc_engine::domain::{BlobHash, BlobRef, Heart, NodeId, PostId, SignedPost};
use distsoc_engine::io::{
    BatchId, DiskUsage, Durability, Input, ReadId, ReadQuery, ReadResult, Restored, StorageTrouble,
    Write,
};
use distsoc_persistence::{Store, StoreConfig};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// No read of a node's.
const OWN_READ: ReadId = ReadId(u64::MAX);
const PAGE_BYTES: u64 = 4096;

/// What must be there by what was acknowledged.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) posts: BTreeMap<PostId, SignedPost>,
    pub(crate) pins: BTreeSet<PostId>,
    pub(crate) hearts: BTreeMap<(PostId, NodeId), Heart>,
    pub(crate) slices: BTreeMap<BlobHash, (BlobRef, BTreeSet<u32>)>,
    pub(crate) deletions: BTreeSet<(NodeId, PostId)>,
    /// Slices of batches that had no room for all: they are there, which only a start tells.
    pub(crate) untold: BTreeSet<(BlobHash, u32)>,
}

impl Account {
    fn take(&mut self, write: Write) {
        match write {
            Write::Post { post, .. } => drop(self.posts.insert(post.id(), *post)),
            Write::ForgetPost(id) => {
                self.posts.remove(&id);
                self.pins.remove(&id);
                self.hearts.retain(|(post, _), _| *post != id);
            }
            Write::Slice(slice) => {
                self.untold.remove(&(slice.blob().hash, slice.number()));
                let entry = self.slices.entry(slice.blob().hash);
                let (_, numbers) = entry.or_insert_with(|| (slice.blob(), BTreeSet::new()));
                numbers.insert(slice.number());
            }
            Write::ForgetBlob(hash) => {
                self.slices.remove(&hash);
                self.untold.retain(|(of, _)| *of != hash);
            }
            Write::Heart(heart) => drop(self.hearts.insert((heart.post, heart.person), heart)),
            Write::Deletion(deletion) => {
                self.deletions.insert((deletion.author, deletion.post));
            }
            Write::Pin { post, is_pinned } => {
                match is_pinned {
                    true => self.pins.insert(post),
                    false => self.pins.remove(&post),
                };
            }
            Write::ForgetAuthor(author) => self.deletions.retain(|(of, _)| *of != author),
            _ => {}
        }
    }

    /// A start finds what was acknowledged, no more and no less.
    pub(crate) fn check_restored(&self, restored: &Restored) {
        let files: Vec<PostId> = restored.files.iter().map(|file| file.id).collect();
        assert_eq!(files, self.posts.keys().copied().collect::<Vec<_>>());
        let pinned = restored.files.iter().filter(|file| file.is_pinned);
        let pinned: BTreeSet<PostId> = pinned.map(|file| file.id).collect();
        assert!(
            pinned.is_subset(&self.pins),
            "{pinned:?} of {:?}",
            self.pins
        );
        for blob in &restored.blobs {
            let there: BTreeSet<u32> = blob.slices.iter().cloned().flatten().collect();
            let known = self.slices.get(&blob.hash).map(|(_, slices)| slices);
            assert_eq!(Some(&there), known, "blob {}", blob.hash);
        }
        assert_eq!(restored.blobs.len(), self.slices.len(), "blobs");
        let hearts = restored.hearts.iter();
        let hearts: BTreeSet<_> = hearts
            .map(|(heart, _)| (heart.post, heart.person))
            .collect();
        assert_eq!(hearts, self.hearts.keys().copied().collect());
        let deletions: BTreeSet<_> = restored.deletions.iter().copied().collect();
        assert_eq!(deletions, self.deletions);
    }

    /// Bytes that the slices take, in whole pages.
    fn blob_bytes(&self) -> u64 {
        let slices = self.slices.values();
        let pages = slices.flat_map(|(blob, numbers)| {
            numbers
                .iter()
                .map(|slice| (blob.slice_bytes(*slice) as u64 + 16).div_ceil(PAGE_BYTES))
        });
        pages.sum::<u64>() * PAGE_BYTES
    }
}

pub(crate) struct Disk {
    store: Store,
    receive: Receiver<Input>,
    /// What it said of itself while something else was waited for.
    overheard: Cell<Option<DiskUsage>>,
    pub(crate) account: Account,
    /// As it was told last.
    pub(crate) usage: DiskUsage,
    /// Batches that it does not take, and why.
    pub(crate) refusing: (u8, StorageTrouble),
    /// Batches that it had no room for.
    pub(crate) refused: usize,
}

/// Bytes of every file of a folder, by their lengths and by what they take of the disk.
fn bytes_below(dir: &Path) -> (u64, u64) {
    let (mut length, mut taken) = (0, 0);
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        // A copy may take its place in between.
        let Ok(file) = entry.metadata() else { continue };
        let (one, other) = match file.is_dir() {
            true => bytes_below(&entry.path()),
            false => (file.len(), file.blocks() * 512),
        };
        (length, taken) = (length + one, taken + other);
    }
    (length, taken)
}

impl Disk {
    pub(crate) fn open(dir: &Path, own: NodeId, budget_bytes: u64) -> (Self, Restored) {
        let (send, receive) = channel();
        let config = StoreConfig {
            dir: dir.into(),
            own,
            budget_bytes,
        };
        let opened = Store::open(config, move |input| drop(send.send(input)));
        let (store, restored) = opened.unwrap();
        let disk = Self {
            store,
            receive,
            overheard: Cell::new(None),
            account: Account::default(),
            usage: restored.usage,
            refusing: (0, StorageTrouble::Full),
            refused: 0,
        };
        (disk, restored)
    }

    pub(crate) fn close(self) -> Account {
        self.store.close();
        self.account
    }

    fn next(&self) -> Input {
        self.receive.recv_timeout(PATIENCE).expect("an answer")
    }

    /// What the disk says of itself after a job, where that has changed.
    fn told(&mut self) -> Option<Input> {
        // Whatever came before this read was answered before it.
        self.store.read(
            OWN_READ,
            ReadQuery::RecentPosts(NodeId::from_bytes([0; 32])),
        );
        let mut last = self.overheard.take();
        loop {
            match self.next() {
                Input::Read { read: OWN_READ, .. } => break,
                Input::Disk(usage) => last = Some(usage),
                other => panic!("nobody asked for {other:?}"),
            }
        }
        self.usage = last?;
        last.map(Input::Disk)
    }

    /// A batch, and what the node hears of it.
    pub(crate) fn persist(&mut self, batch: BatchId, writes: Vec<Write>) -> Vec<Input> {
        if self.refusing.0 > 0 {
            self.refusing.0 -= 1;
            return vec![Input::PersistFailed(batch, self.refusing.1)];
        }
        self.store
            .persist(batch, writes.clone(), Durability::Durable);
        let ended = loop {
            match self.next() {
                Input::Disk(usage) => self.overheard.set(Some(usage)),
                end => break end,
            }
        };
        match &ended {
            Input::Persisted(id) if *id == batch => {
                writes
                    .into_iter()
                    .for_each(|write| self.account.take(write));
            }
            Input::PersistFailed(id, trouble) if *id == batch && trouble.lacks_room() => {
                self.refused += 1;
                for write in writes {
                    self.look_for(write);
                }
            }
            other => panic!("not the end of {batch:?}: {other:?}"),
        }
        let mut heard = vec![ended];
        heard.extend(self.told());
        heard
    }

    /// Of a batch of slices that had no room, some may be there.
    fn look_for(&mut self, write: Write) {
        let Write::Slice(slice) = &write else { return };
        let key = (slice.blob().hash, slice.number());
        let known = self.account.slices.get(&key.0);
        let is_known = known.is_some_and(|(_, numbers)| numbers.contains(&key.1));
        if !is_known && self.slice(&key.0, key.1).is_some() {
            self.account.take(write);
            self.account.untold.insert(key);
        }
    }

    fn slice(&self, hash: &BlobHash, number: u32) -> Option<Vec<u8>> {
        let query = ReadQuery::Slices {
            blob: *hash,
            first: number,
            count: 1,
        };
        match self.look(OWN_READ, query) {
            Input::Read {
                result: Ok(ReadResult::Slices(slices)),
                ..
            } => slices.first().map(|slice| slice.to_vec()),
            other => panic!("no slices: {other:?}"),
        }
    }

    fn look(&self, read: ReadId, query: ReadQuery) -> Input {
        self.store.read(read, query);
        loop {
            match self.next() {
                Input::Disk(usage) => self.overheard.set(Some(usage)),
                answer => return answer,
            }
        }
    }

    pub(crate) fn read(&self, read: ReadId, query: ReadQuery) -> Input {
        self.look(read, query)
    }

    pub(crate) fn set_budget(&mut self, bytes: u64) -> Vec<Input> {
        self.store.set_budget(bytes);
        loop {
            if let Input::Disk(usage) = self.next()
                && usage.budget_bytes == bytes
            {
                self.usage = usage;
                break;
            }
        }
        self.told();
        vec![Input::Disk(self.usage)]
    }

    /// The folder keeps to the budget; while it shrinks, it does not grow.
    pub(crate) fn check_budget(&mut self, dir: &Path) {
        let (length, taken) = bytes_below(dir);
        let bytes = length.max(taken);
        if self.usage.is_shrinking {
            return;
        }
        let all = self.usage.budget_bytes;
        assert!(
            bytes <= all,
            "{length} bytes, {taken} of the disk, of {all}: {:?}",
            self.usage
        );
    }

    /// Where what is in use fits, the files come down to the budget.
    pub(crate) fn await_shrunk(&mut self) -> Option<Input> {
        let usage = self.usage;
        let fits = usage.row_bytes + 200_000 < usage.row_room_bytes
            && usage.blob_bytes * 100 <= usage.blob_room_bytes * 93;
        if !usage.is_shrinking || !fits {
            return None;
        }
        loop {
            if let Input::Disk(usage) = self.next() {
                self.usage = usage;
                if !usage.is_shrinking {
                    return Some(Input::Disk(usage));
                }
            }
        }
    }

    /// What lies here is what was acknowledged, no more and no less; `ever`: every post that there ever was.
    pub(crate) fn check_content<'a>(&self, ever: impl Iterator<Item = &'a PostId>) {
        let view = self.store.view();
        for id in ever {
            let there = view.post(*id).unwrap().map(|entry| entry.body);
            let expected = self.account.posts.get(id).map(SignedPost::body);
            assert_eq!(there.as_ref(), expected, "post {id}");
        }
        let bytes = self.account.blob_bytes();
        assert_eq!(self.usage.blob_bytes, bytes, "bytes of slices on the disk");
    }

    /// Every slice that was acknowledged is there and is what it should be.
    pub(crate) fn check_slices(&self, mut proved: impl FnMut(&BlobHash, u32) -> Vec<u8>) {
        for (hash, (_, numbers)) in &self.account.slices {
            for number in numbers {
                let found = self.slice(hash, *number);
                let expected = Some(proved(hash, *number));
                assert!(found == expected, "slice {number} of {hash}");
            }
        }
    }

    /// All bytes of a blob, if they are here.
    pub(crate) fn blob(&self, blob: BlobRef) -> Option<Vec<u8>> {
        self.store.view().blob_part(blob, 0..blob.length).unwrap()
    }
}
