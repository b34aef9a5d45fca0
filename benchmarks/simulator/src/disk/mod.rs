//! One node's disk in memory: batches become durable in order, after a while, each wholly or not at all; a power cut takes
//! what was not durable yet. Rows are those of PROTOCOL section 12 as far as the engine writes them.
//!
//! What always holds: an acknowledged batch is there after every crash; a batch that failed never shows, but for slices; no
//! write takes it past its budget, a quarter of which is for rows and the rest for blobs.

mod reads;
mod tables;

pub use tables::{PAGE_BYTES, PostRow};

use distsoc_engine::domain::{BlobHash, BlobRef, EventList, HeartBody, NodeId, PostId};
use distsoc_engine::io::{
    BatchId, DiskUsage, GoodPeer, Restored, StorageTrouble, StoredBlob, StoredFileRow, StoredList,
    Write,
};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use std::collections::{BTreeSet, VecDeque};
use tables::Tables;

#[derive(Debug)]
enum Work {
    Batch(BatchId, Vec<Write>),
    Budget(u64),
}

#[derive(Debug)]
struct Pending {
    work: Work,
    ready_us: u64,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    tables: Tables,
    pending: VecDeque<Pending>,
    /// What the node was told last of how full it is.
    told: Option<DiskUsage>,
    /// Blobs of posts that their authors took back.
    taken_back: BTreeSet<BlobHash>,
    /// While set, no batch is taken.
    pub trouble: Option<StorageTrouble>,
    /// How many times slower than usual.
    pub slowness: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new(NodeProfile::of(ProfileKind::default()).file_budget_bytes)
    }
}

impl Disk {
    /// An empty one.
    #[must_use]
    pub fn new(budget_bytes: u64) -> Self {
        let tables = Tables {
            budget_bytes,
            ..Tables::default()
        };
        Self {
            tables,
            pending: VecDeque::new(),
            told: None,
            taken_back: BTreeSet::new(),
            trouble: None,
            slowness: 0,
        }
    }

    /// Takes a batch that is to be durable at `ready_us`, and everything before it no later. Returns when to call
    /// [`Disk::commit`].
    pub fn hand_in(&mut self, batch: BatchId, writes: Vec<Write>, ready_us: u64) -> u64 {
        for write in &writes {
            if let Write::Deletion(deletion) = write {
                let blobs = self.blobs_of(&deletion.post);
                self.taken_back
                    .extend(blobs.into_iter().map(|blob| blob.hash));
            }
        }
        self.queue(Work::Batch(batch, writes), ready_us)
    }

    /// Takes a budget that is to count from `ready_us` on, and everything before it no later. Returns when to call
    /// [`Disk::commit`].
    pub fn keep_to(&mut self, budget_bytes: u64, ready_us: u64) -> u64 {
        self.queue(Work::Budget(budget_bytes), ready_us)
    }

    fn queue(&mut self, work: Work, ready_us: u64) -> u64 {
        for earlier in self.pending.iter_mut().rev() {
            if earlier.ready_us <= ready_us {
                break;
            }
            earlier.ready_us = ready_us;
        }
        self.pending.push_back(Pending { work, ready_us });
        ready_us
    }

    /// Ends every batch that is due, in order.
    pub fn commit(&mut self, now_us: u64) -> Vec<(BatchId, Result<(), StorageTrouble>)> {
        let mut ended = Vec::new();
        while self
            .pending
            .front()
            .is_some_and(|pending| pending.ready_us <= now_us)
        {
            let pending = self.pending.pop_front().expect("the front was just seen");
            ended.extend(self.end(pending.work));
        }
        ended
    }

    fn end(&mut self, work: Work) -> Option<(BatchId, Result<(), StorageTrouble>)> {
        match work {
            Work::Batch(batch, writes) => {
                let result = match self.trouble {
                    Some(trouble) => Err(trouble),
                    None => self.tables.apply(writes),
                };
                Some((batch, result))
            }
            Work::Budget(budget_bytes) => {
                self.tables.keep_to(budget_bytes);
                self.told = None;
                None
            }
        }
    }

    /// How full it is, where that has changed since it was asked last.
    pub fn news(&mut self) -> Option<DiskUsage> {
        let usage = self.usage();
        let is_news = self.told.replace(usage) != Some(usage);
        is_news.then_some(usage)
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> DiskUsage {
        self.tables.usage()
    }

    /// The power is cut: the first `survivors` batches under way happened to be complete, though nobody was told; the
    /// rest is gone.
    pub fn lose_power(&mut self, survivors: usize) {
        for pending in std::mem::take(&mut self.pending)
            .into_iter()
            .take(survivors)
        {
            self.end(pending.work);
        }
    }

    /// How many batches are under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Writes that were handed in and are not durable, in order.
    fn under_way(&self) -> impl DoubleEndedIterator<Item = &Write> {
        let writes = self.pending.iter().map(|pending| match &pending.work {
            Work::Batch(_, writes) => writes.as_slice(),
            Work::Budget(_) => &[],
        });
        writes.flatten()
    }

    fn blobs_of(&self, post: &PostId) -> Vec<BlobRef> {
        let under_way = self.under_way().find_map(|write| match write {
            Write::Post { post: there, .. } if there.id() == *post => {
                Some(there.body().blobs.iter().copied().collect())
            }
            _ => None,
        });
        let durable = || {
            let row = self.tables.posts.get(post);
            row.map(|row| row.file.blobs.to_vec())
        };
        under_way.or_else(durable).unwrap_or_default()
    }

    /// Whether a blob is one of a post that was taken back, and of no other that is here.
    #[must_use]
    pub fn is_taken_back(&self, blob: &BlobHash) -> bool {
        if !self.taken_back.contains(blob) {
            return false;
        }
        let names = |blobs: &[BlobRef]| blobs.iter().any(|named| named.hash == *blob);
        let durable =
            self.tables.posts.values().any(|row| {
                names(&row.file.blobs) && !self.is_deleted(&row.file.author, &row.file.id)
            });
        let under_way = || {
            self.under_way().any(|write| match write {
                Write::Post { post, .. } => {
                    let is_named = post.body().blobs.iter().any(|named| named.hash == *blob);
                    is_named && !self.is_deleted(&post.body().author, &post.id())
                }
                _ => false,
            })
        };
        !(durable || under_way())
    }

    fn blobs(&self) -> Vec<StoredBlob> {
        let mut blobs: Vec<StoredBlob> = Vec::new();
        for ((hash, number), slice) in self.tables.slices.iter() {
            let last_bytes = slice.len() as u32;
            match blobs.last_mut().filter(|blob| blob.hash == *hash) {
                Some(blob) => {
                    blob.last_bytes = last_bytes;
                    match blob.slices.last_mut() {
                        Some(run) if run.end == *number => run.end += 1,
                        _ => blob.slices.push(*number..number + 1),
                    }
                }
                None => blobs.push(StoredBlob {
                    hash: *hash,
                    slices: std::iter::once(*number..number + 1).collect(),
                    last_bytes,
                }),
            }
        }
        blobs
    }

    /// Everything a node starts from.
    #[must_use]
    pub fn restore(&self, own: NodeId) -> Restored {
        let tables = &self.tables;
        let others = tables.lists.iter().filter(|(author, _)| **author != own);
        let mut good_peers: Vec<GoodPeer> = tables.good_peers.values().cloned().collect();
        good_peers.sort_by_key(|peer| (std::cmp::Reverse(peer.last_up_ms), peer.node));
        Restored {
            relationships: tables
                .relationships
                .iter()
                .map(|(node, what)| (*node, what.clone()))
                .collect(),
            authors: others
                .map(|(author, row)| {
                    (
                        row.head.clone(),
                        tables.checked_ms.get(author).copied().unwrap_or_default(),
                    )
                })
                .collect(),
            files: tables
                .posts
                .values()
                .map(|row| StoredFileRow {
                    is_pinned: tables.pins.contains_key(&row.file.id),
                    ..row.file.clone()
                })
                .collect(),
            blobs: self.blobs(),
            hearts: tables
                .hearts
                .values()
                .map(|heart| (HeartBody::clone(heart), heart.hash()))
                .collect(),
            equivocal: tables.equivocations.keys().copied().collect(),
            deletions: tables
                .deletions
                .keys()
                .map(|(post, author)| (*author, *post))
                .collect(),
            usage: tables.usage(),
            good_peers,
            own_list: tables.lists.get(&own).map(|row| StoredList {
                head: row.head.clone(),
                list: row.list.clone(),
            }),
            own_profile: tables.profiles.get(&own).cloned(),
            profiles: tables
                .profiles
                .values()
                .filter(|profile| profile.author != own)
                .cloned()
                .collect(),
            map: tables.map.values().cloned().collect(),
        }
    }

    /// Whether a post is durable.
    #[must_use]
    pub fn holds(&self, id: &PostId) -> bool {
        self.tables.posts.contains_key(id)
    }

    /// The durable list of an author.
    #[must_use]
    pub fn list_of(&self, author: &NodeId) -> Option<&EventList> {
        self.tables.lists.get(author).map(|row| &row.list)
    }

    /// Whether every slice of a blob is durable.
    #[must_use]
    pub fn holds_blob(&self, blob: &BlobRef) -> bool {
        let slices = &self.tables.slices;
        (0..blob.slices()).all(|number| slices.contains_key(&(blob.hash, number)))
    }

    /// Every durable post in the order of their ids.
    pub fn posts(&self) -> impl Iterator<Item = &PostRow> {
        self.tables.posts.values()
    }

    /// Everybody whom the owner follows, as far as durable.
    pub fn followed(&self) -> impl Iterator<Item = NodeId> {
        let followed = self
            .tables
            .relationships
            .iter()
            .filter(|(_, what)| what.followed_since_ms.is_some());
        followed.map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Write {
        let node = NodeId::from_bytes([number; 32]);
        Write::GoodPeer(GoodPeer {
            node,
            addresses: Vec::new(),
            is_anchor: false,
            last_up_ms: u64::from(number),
        })
    }

    fn restored(disk: &Disk) -> Vec<u64> {
        let restored = disk.restore(NodeId::from_bytes([0; 32]));
        restored
            .good_peers
            .iter()
            .map(|peer| peer.last_up_ms)
            .collect()
    }

    #[test]
    fn a_durable_batch_takes_everything_before_it_along() {
        let mut disk = Disk::default();
        disk.hand_in(BatchId(1), vec![peer(1)], 2_000);
        disk.hand_in(BatchId(2), vec![peer(2)], 500);
        assert!(disk.commit(499).is_empty());
        assert_eq!(
            disk.commit(500),
            [(BatchId(1), Ok(())), (BatchId(2), Ok(()))]
        );
        assert_eq!(restored(&disk), [2, 1]);
    }

    #[test]
    fn a_power_cut_keeps_a_prefix_and_all_that_was_acknowledged() {
        for survivors in 0..=3 {
            let mut disk = Disk::default();
            disk.hand_in(BatchId(1), vec![peer(1)], 10);
            assert_eq!(disk.commit(10).len(), 1);
            for number in 2..=3 {
                disk.hand_in(BatchId(u64::from(number)), vec![peer(number)], 100);
            }
            disk.lose_power(survivors);
            let expected: Vec<u64> = (1..=1 + survivors.min(2) as u64).rev().collect();
            assert_eq!(restored(&disk), expected);
            assert!(disk.commit(1_000).is_empty());
        }
    }

    #[test]
    fn a_full_disk_stores_nothing_of_a_batch_and_says_so() {
        let mut disk = Disk {
            trouble: Some(StorageTrouble::Full),
            ..Disk::default()
        };
        disk.hand_in(BatchId(1), vec![peer(1)], 10);
        assert_eq!(disk.commit(10), [(BatchId(1), Err(StorageTrouble::Full))]);
        assert!(restored(&disk).is_empty());
    }

    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{Cut, Deletion, DeletionBody, Heart, HeartBody, Slice, Verified};
    use distsoc_engine::io::{ReadQuery, ReadResult};
    use distsoc_engine::limits;

    fn heart(person: u32, post: PostId, seq: u64) -> Heart {
        let secret = Secret::from_seed(&crate::host::seed_of(1, "heart", person, 0));
        let body = HeartBody {
            person: secret.node_id(),
            author: NodeId::from_bytes([1; 32]),
            post,
            seq,
            given: 1,
        };
        Heart::sign(body, &secret)
    }

    fn deletion(post: PostId) -> Deletion {
        let secret = Secret::from_seed(&[7; 32]);
        let body = DeletionBody {
            author: secret.node_id(),
            post,
            seq: 1,
        };
        Deletion::sign(body, &secret)
    }

    fn slices() -> Vec<Verified<Slice>> {
        let picture: Vec<u8> = (0..300_000u32).map(|place| (place / 7) as u8).collect();
        Cut::new(&picture).unwrap().slices().collect()
    }

    #[test]
    fn slices_are_read_in_a_run_before_and_after_they_are_durable() {
        let (mut disk, slices) = (Disk::default(), slices());
        let blob = slices[0].blob().hash;
        let read = |disk: &Disk, first| match disk.read(&ReadQuery::Slices {
            blob,
            first,
            count: 8,
        }) {
            Ok(ReadResult::Slices(slices)) => slices.len(),
            other => panic!("no slices: {other:?}"),
        };
        for (number, slice) in slices.iter().enumerate().filter(|(number, _)| *number != 2) {
            let batch = BatchId(number as u64);
            disk.hand_in(batch, vec![Write::Slice(slice.clone())], 10);
        }
        assert_eq!((read(&disk, 0), read(&disk, 2), read(&disk, 3)), (2, 0, 2));
        disk.commit(10);
        assert_eq!((read(&disk, 0), read(&disk, 2), read(&disk, 3)), (2, 0, 2));
        let restored = disk.restore(NodeId::from_bytes([0; 32]));
        assert_eq!(restored.blobs[0].slices, [0..2, 3..5]);
        assert_eq!(restored.usage, disk.usage());
        disk.hand_in(BatchId(9), vec![Write::ForgetBlob(blob)], 20);
        assert_eq!(read(&disk, 0), 0);
        disk.commit(20);
        assert_eq!(disk.usage().blob_bytes, 0);
    }

    #[test]
    fn hearts_come_newest_first_and_go_with_their_post_deletions_stay() {
        let (mut disk, post) = (Disk::default(), PostId::from_bytes([3; 32]));
        let all = 300;
        let hearts = (0..all).map(|person| Write::Heart(heart(person, post, u64::from(person))));
        disk.hand_in(BatchId(1), hearts.collect(), 10);
        disk.hand_in(BatchId(2), vec![Write::Deletion(deletion(post))], 10);
        assert_eq!(disk.hearts(&post).len(), all as usize);
        let query = ReadQuery::ForPeer {
            wants: Vec::new(),
            posts: vec![post],
            bytes_max: 1000,
        };
        for _ in 0..2 {
            let Ok(ReadResult::ForPeer {
                hearts, deletions, ..
            }) = disk.read(&query)
            else {
                panic!("the disk can be read");
            };
            assert!(hearts.is_empty(), "the post is not here");
            assert_eq!(deletions, [deletion(post)]);
            disk.commit(10);
        }
        assert!(disk.is_deleted(&deletion(post).author, &post));
        assert!(!disk.is_deleted(&NodeId::from_bytes([1; 32]), &post));
        disk.hand_in(BatchId(3), vec![Write::ForgetPost(post)], 20);
        assert!(disk.hearts(&post).is_empty());
        disk.commit(20);
        let restored = disk.restore(NodeId::from_bytes([0; 32]));
        assert!(restored.hearts.is_empty());
        assert_eq!(restored.deletions.len(), 1);
        assert!(all as usize > limits::PULL_HEARTS_MAX);
    }

    #[test]
    fn each_share_ends_where_it_should_and_forgetting_makes_room() {
        let mut disk = Disk::new(16 * PAGE_BYTES);
        let rows: Vec<Write> = (0..5).map(peer).collect();
        disk.hand_in(BatchId(1), rows, 10);
        disk.hand_in(BatchId(2), (0..4).map(peer).collect(), 10);
        disk.hand_in(BatchId(3), vec![peer(9)], 10);
        let full = Err(StorageTrouble::Budget);
        assert_eq!(
            disk.commit(10),
            [(BatchId(1), full), (BatchId(2), Ok(())), (BatchId(3), full)]
        );
        let node = NodeId::from_bytes([0; 32]);
        disk.hand_in(BatchId(4), vec![Write::ForgetPeer(node)], 20);
        disk.hand_in(BatchId(5), vec![peer(9)], 20);
        let pictures = slices().into_iter().map(Write::Slice);
        disk.hand_in(BatchId(6), pictures.collect(), 20);
        assert_eq!(
            disk.commit(20),
            [
                (BatchId(4), Ok(())),
                (BatchId(5), Ok(())),
                (BatchId(6), full)
            ]
        );
        let usage = disk.usage();
        assert_eq!(usage.row_bytes, usage.row_room_bytes);
        assert!(usage.blob_bytes <= usage.blob_room_bytes);
        assert_eq!(disk.news(), Some(usage));
        assert_eq!(disk.news(), None);
    }

    #[test]
    fn a_budget_counts_after_what_was_handed_in_before_and_outlives_the_power() {
        let mut disk = Disk::new(1 << 20);
        let slices = slices().into_iter().map(Write::Slice);
        disk.hand_in(BatchId(1), slices.collect(), 10);
        disk.commit(10);
        assert!(disk.usage().blob_bytes > 300_000);
        disk.keep_to(1 << 18, 20);
        assert_eq!(disk.usage().budget_bytes, 1 << 20);
        disk.commit(20);
        assert!(disk.news().is_some_and(|usage| usage.is_shrinking));
        disk.lose_power(0);
        assert_eq!(disk.usage().budget_bytes, 1 << 18);
        let blob = disk.blobs()[0].hash;
        disk.hand_in(BatchId(2), vec![Write::ForgetBlob(blob)], 30);
        disk.commit(30);
        assert!(disk.news().is_some_and(|usage| !usage.is_shrinking));
    }
}
