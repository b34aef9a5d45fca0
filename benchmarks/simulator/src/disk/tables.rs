//! What is durable on a disk, and how many pages it takes: a row takes whole pages of [`PAGE_BYTES`], alone.
//!
//! As a store that copies what it changes, a batch needs room for what it writes beside what is there; forgetting needs none.

use distsoc_engine::domain::{
    BlobHash, Deletion, EventList, Heart, NodeId, PostBytes, PostId, Profile, RecentPostsHead,
};
use distsoc_engine::io::{
    DiskUsage, GoodPeer, MapRow, Relationship, StorageTrouble, StoredFileRow, Write,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// What a row needs beside the bytes of what is in it: key, head, signature, and the numbers in it.
const ROW_BYTES: usize = 256;

/// A post with what its row says beside its bytes.
#[derive(Clone, Debug)]
pub struct PostRow {
    /// Without the bytes.
    pub file: StoredFileRow,
    /// The bytes.
    pub bytes: PostBytes,
}

/// An author's list.
#[derive(Clone, Debug)]
pub(super) struct ListRow {
    pub(super) head: RecentPostsHead,
    pub(super) list: EventList,
}

fn pages(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(PAGE_BYTES)
}

/// Something that takes room: bytes beside [`ROW_BYTES`].
pub(super) trait Row {
    fn bytes(&self) -> usize;
}

macro_rules! rows {
    ($($row:ty: $bytes:expr;)*) => {$(
        impl Row for $row {
            fn bytes(&self) -> usize {
                let bytes: fn(&Self) -> usize = $bytes;
                bytes(self)
            }
        }
    )*};
}

rows! {
    PostRow: |row| row.bytes.body.len();
    ListRow: |row| row.list.as_bytes().len();
    Profile: |_| 4096;
    MapRow: |row| row.bytes.len();
    u64: |_| 0;
    Relationship: |_| 256;
    GoodPeer: |_| 256;
    Heart: |_| 0;
    Deletion: |_| 0;
    Box<[RecentPostsHead; 2]>: |_| 512;
    (): |()| 0;
    Arc<[u8]>: |slice| slice.len();
}

/// Rows by their keys, with the pages they take.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    pages: u64,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            pages: 0,
        }
    }
}

impl<K, V> std::ops::Deref for Table<K, V> {
    type Target = BTreeMap<K, V>;
    fn deref(&self) -> &BTreeMap<K, V> {
        &self.rows
    }
}

impl<K: Ord, V: Row> Table<K, V> {
    fn insert(&mut self, key: K, row: V) {
        self.pages += pages(ROW_BYTES + row.bytes());
        if let Some(earlier) = self.rows.insert(key, row) {
            self.pages -= pages(ROW_BYTES + earlier.bytes());
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(row) = self.rows.remove(key) {
            self.pages -= pages(ROW_BYTES + row.bytes());
        }
    }

    fn remove_where(&mut self, mut goes: impl FnMut(&K) -> bool) {
        let pages_left = &mut self.pages;
        self.rows.retain(|key, row| {
            let stays = !goes(key);
            if !stays {
                *pages_left -= pages(ROW_BYTES + row.bytes());
            }
            stays
        });
    }
}

/// The pages that a write takes among the rows: none for a slice.
fn pages_of(write: &Write) -> u64 {
    let bytes = match write {
        Write::Post { post, .. } => post.bytes().body.len(),
        Write::RecentPosts { list, .. } => list.as_bytes().len(),
        Write::Profile(profile) => profile.bytes(),
        Write::MapRow(row) => row.bytes(),
        Write::Relationship {
            relationship: Some(relationship),
            ..
        } => relationship.bytes(),
        Write::GoodPeer(peer) => peer.bytes(),
        Write::Equivocation(heads) => heads.bytes(),
        Write::Checked { .. }
        | Write::Heart(_)
        | Write::Deletion(_)
        | Write::Pin {
            is_pinned: true, ..
        } => 0,
        _ => return 0,
    };
    pages(ROW_BYTES + bytes)
}

/// What is durable.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) posts: Table<PostId, PostRow>,
    pub(super) lists: Table<NodeId, ListRow>,
    pub(super) checked_ms: Table<NodeId, u64>,
    pub(super) profiles: Table<NodeId, Profile>,
    pub(super) relationships: Table<NodeId, Relationship>,
    pub(super) good_peers: Table<NodeId, GoodPeer>,
    pub(super) map: Table<(u32, u32), MapRow>,
    /// By whom they were given.
    pub(super) hearts: Table<(PostId, NodeId), Heart>,
    /// By the author.
    pub(super) deletions: Table<(PostId, NodeId), Deletion>,
    pub(super) equivocations: Table<NodeId, Box<[RecentPostsHead; 2]>>,
    pub(super) pins: Table<PostId, ()>,
    pub(super) slices: Table<(BlobHash, u32), Arc<[u8]>>,
    /// Bytes that everything may take.
    pub(super) budget_bytes: u64,
    /// The budget was lowered below what is there, which is not gone yet.
    pub(super) is_shrinking: bool,
}

impl Tables {
    /// How full it is.
    pub(super) fn usage(&self) -> DiskUsage {
        let row_pages = self.posts.pages
            + self.lists.pages
            + self.checked_ms.pages
            + self.profiles.pages
            + self.relationships.pages
            + self.good_peers.pages
            + self.map.pages
            + self.hearts.pages
            + self.deletions.pages
            + self.equivocations.pages
            + self.pins.pages;
        let (row_bytes, blob_bytes) = (row_pages * PAGE_BYTES, self.slices.pages * PAGE_BYTES);
        let row_room_bytes = self.budget_bytes / 4;
        DiskUsage {
            budget_bytes: self.budget_bytes,
            file_bytes: row_bytes + blob_bytes,
            row_bytes,
            row_room_bytes,
            blob_bytes,
            blob_room_bytes: self.budget_bytes - row_room_bytes,
            is_shrinking: self.is_shrinking,
        }
    }

    /// Keeps to another budget from now on.
    pub(super) fn keep_to(&mut self, budget_bytes: u64) {
        self.budget_bytes = budget_bytes;
        self.is_shrinking = true;
        self.note_shrunk();
    }

    fn note_shrunk(&mut self) {
        let usage = self.usage();
        self.is_shrinking &=
            usage.row_bytes > usage.row_room_bytes || usage.blob_bytes > usage.blob_room_bytes;
    }

    /// Stores a batch wholly or not at all; of slices as many as there is room for.
    ///
    /// # Errors
    /// [`StorageTrouble::Budget`] where a share of the budget would be passed.
    pub(super) fn apply(&mut self, writes: Vec<Write>) -> Result<(), StorageTrouble> {
        let new_bytes = writes.iter().map(pages_of).sum::<u64>() * PAGE_BYTES;
        let usage = self.usage();
        if new_bytes > 0 && usage.row_bytes + new_bytes > usage.row_room_bytes {
            return Err(StorageTrouble::Budget);
        }
        for write in writes {
            self.store(write)?;
        }
        self.note_shrunk();
        Ok(())
    }

    fn store(&mut self, write: Write) -> Result<(), StorageTrouble> {
        match write {
            Write::Post { post, .. } => {
                let file = StoredFileRow::of(&post);
                let bytes = post.bytes().clone();
                self.posts.insert(post.id(), PostRow { file, bytes });
            }
            Write::RecentPosts { head, list } => {
                self.lists.insert(head.author, ListRow { head, list });
            }
            Write::Checked {
                author,
                checked_at_ms,
            } => self.checked_ms.insert(author, checked_at_ms),
            Write::Profile(profile) => self.profiles.insert(profile.author, profile),
            Write::Relationship { node, relationship } => match relationship {
                Some(relationship) => self.relationships.insert(node, relationship),
                None => self.relationships.remove(&node),
            },
            Write::GoodPeer(peer) => self.good_peers.insert(peer.node, peer),
            Write::ForgetPeer(node) => self.good_peers.remove(&node),
            Write::ForgetPost(id) => {
                self.posts.remove(&id);
                self.pins.remove(&id);
                self.hearts.remove_where(|(post, _)| *post == id);
            }
            Write::Slice(slice) => {
                let key = (slice.blob().hash, slice.number());
                let usage = self.usage();
                let bytes = pages(ROW_BYTES + slice.bytes().len()) * PAGE_BYTES;
                let is_there = self.slices.contains_key(&key);
                if !is_there && usage.blob_bytes + bytes > usage.blob_room_bytes {
                    return Err(StorageTrouble::Budget);
                }
                self.slices.insert(key, slice.bytes().clone());
            }
            Write::ForgetBlob(blob) => self.slices.remove_where(|(of, _)| *of == blob),
            Write::Heart(heart) => {
                let key = (heart.post, heart.person);
                self.hearts.insert(key, heart);
            }
            Write::Deletion(deletion) => {
                let key = (deletion.post, deletion.author);
                self.deletions.insert(key, deletion);
            }
            Write::Pin { post, is_pinned } => match is_pinned {
                true => self.pins.insert(post, ()),
                false => self.pins.remove(&post),
            },
            Write::Equivocation(heads) => self.equivocations.insert(heads[0].author, heads),
            Write::ForgetAuthor(author) => {
                self.equivocations.remove(&author);
                self.lists.remove(&author);
                self.checked_ms.remove(&author);
                self.profiles.remove(&author);
                self.deletions.remove_where(|(_, of)| *of == author);
            }
            Write::MapRow(row) => self.map.insert((row.generation, row.chunk), row),
            Write::MapOnly { generation } => self.map.remove_where(|key| key.0 != generation),
        }
        Ok(())
    }
}
