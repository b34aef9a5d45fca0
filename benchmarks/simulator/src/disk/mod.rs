//! One node's disk in memory: batches become durable in order, after a while, each wholly or not at all; a power cut takes
//! what was not durable yet. Rows are those of PROTOCOL section 12 as far as the engine writes them.
//!
//! What always holds: an acknowledged batch is there after every crash; a batch that failed never shows.

use distsoc_engine::domain::{EventList, NodeId, PostBytes, PostId, Profile, RecentPostsHead};
use distsoc_engine::io::{
    BatchId, GoodPeer, MapRow, ReadQuery, ReadResult, Relationship, Restored, StorageTrouble,
    StoredFileRow, StoredList, Write,
};
use std::collections::{BTreeMap, VecDeque};

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
struct ListRow {
    head: RecentPostsHead,
    list: EventList,
}

/// What is durable.
#[derive(Debug, Default)]
struct Tables {
    posts: BTreeMap<PostId, PostRow>,
    lists: BTreeMap<NodeId, ListRow>,
    checked_ms: BTreeMap<NodeId, u64>,
    profiles: BTreeMap<NodeId, Profile>,
    relationships: BTreeMap<NodeId, Relationship>,
    good_peers: BTreeMap<NodeId, GoodPeer>,
    map: BTreeMap<(u32, u32), MapRow>,
}

#[derive(Debug)]
struct Pending {
    batch: BatchId,
    writes: Vec<Write>,
    ready_us: u64,
}

/// The disk.
#[derive(Debug, Default)]
pub struct Disk {
    tables: Tables,
    pending: VecDeque<Pending>,
    /// While set, no batch is taken.
    pub trouble: Option<StorageTrouble>,
    /// How many times slower than usual.
    pub slowness: u64,
}

impl Disk {
    /// Takes a batch that is to be durable at `ready_us`, and everything before it no later. Returns when to call
    /// [`Disk::commit`].
    pub fn hand_in(&mut self, batch: BatchId, writes: Vec<Write>, ready_us: u64) -> u64 {
        for earlier in self.pending.iter_mut().rev() {
            if earlier.ready_us <= ready_us {
                break;
            }
            earlier.ready_us = ready_us;
        }
        self.pending.push_back(Pending {
            batch,
            writes,
            ready_us,
        });
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
            let result = self.trouble.map_or(Ok(()), Err);
            if result.is_ok() {
                self.tables.apply(pending.writes);
            }
            ended.push((pending.batch, result));
        }
        ended
    }

    /// The power is cut: the first `survivors` batches under way happened to be complete, though nobody was told; the
    /// rest is gone.
    pub fn lose_power(&mut self, survivors: usize) {
        for pending in self.pending.drain(..).take(survivors) {
            if self.trouble.is_none() {
                self.tables.apply(pending.writes);
            }
        }
    }

    /// How many batches are under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Reads; sees what was handed in before.
    ///
    /// # Errors
    /// Never for a full disk, which can still be read.
    pub fn read(&self, query: &ReadQuery) -> Result<ReadResult, StorageTrouble> {
        if matches!(
            self.trouble,
            Some(StorageTrouble::Failed | StorageTrouble::Corrupt)
        ) {
            return Err(StorageTrouble::Failed);
        }
        Ok(match query {
            ReadQuery::RecentPosts(author) => ReadResult::RecentPosts(self.list(author, false)),
            ReadQuery::Slices { .. } => ReadResult::Slices(Vec::new()),
            ReadQuery::ForPeer {
                authors,
                posts,
                bytes_max,
            } => {
                let mut left = *bytes_max;
                let mut fits = |bytes: usize| {
                    let fits = bytes <= left;
                    left = left.saturating_sub(bytes);
                    fits
                };
                ReadResult::ForPeer {
                    lists: authors
                        .iter()
                        .filter_map(|author| self.list(author, true))
                        .filter(|stored| fits(stored.list.as_bytes().len()))
                        .collect(),
                    posts: posts
                        .iter()
                        .filter_map(|id| self.post(id))
                        .take_while(|post| fits(post.body.len()))
                        .collect(),
                    hearts: Vec::new(),
                    deletions: Vec::new(),
                }
            }
        })
    }

    fn under_way(&self) -> impl Iterator<Item = &Write> {
        self.pending
            .iter()
            .rev()
            .flat_map(|pending| pending.writes.iter().rev())
    }

    fn post(&self, id: &PostId) -> Option<PostBytes> {
        let newest = self.under_way().find_map(|write| match write {
            Write::Post { post, .. } if post.id() == *id => Some(post.bytes().clone()),
            _ => None,
        });
        newest.or_else(|| self.tables.posts.get(id).map(|row| row.bytes.clone()))
    }

    fn list(&self, author: &NodeId, with_profile: bool) -> Option<StoredList> {
        let newest = self.under_way().find_map(|write| match write {
            Write::RecentPosts { head, list } if head.author == *author => {
                Some((head.clone(), list.clone()))
            }
            _ => None,
        });
        let durable = || {
            self.tables
                .lists
                .get(author)
                .map(|row| (row.head.clone(), row.list.clone()))
        };
        let (head, list) = newest.or_else(durable)?;
        let profile = with_profile.then(|| self.profile(author)).flatten();
        Some(StoredList {
            head,
            list,
            profile,
        })
    }

    fn profile(&self, author: &NodeId) -> Option<Profile> {
        let newest = self.under_way().find_map(|write| match write {
            Write::Profile(profile) if profile.author == *author => Some(profile.clone()),
            _ => None,
        });
        newest.or_else(|| self.tables.profiles.get(author).cloned())
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
            files: tables.posts.values().map(|row| row.file.clone()).collect(),
            good_peers,
            own_list: tables.lists.get(&own).map(|row| StoredList {
                head: row.head.clone(),
                list: row.list.clone(),
                profile: None,
            }),
            own_profile: tables.profiles.get(&own).cloned(),
            profiles: tables
                .profiles
                .values()
                .filter(|profile| profile.author != own)
                .cloned()
                .collect(),
            map: tables.map.values().cloned().collect(),
            ..Restored::default()
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

impl Tables {
    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Post { post, .. } => {
                    let file = StoredFileRow::of(&post);
                    self.posts.insert(
                        post.id(),
                        PostRow {
                            file,
                            bytes: post.bytes().clone(),
                        },
                    );
                }
                Write::RecentPosts { head, list } => {
                    self.lists.insert(head.author, ListRow { head, list });
                }
                Write::Checked {
                    author,
                    checked_at_ms,
                } => {
                    self.checked_ms.insert(author, checked_at_ms);
                }
                Write::Profile(profile) => {
                    self.profiles.insert(profile.author, profile);
                }
                Write::Relationship {
                    node,
                    relationship: Some(relationship),
                } => {
                    self.relationships.insert(node, relationship);
                }
                Write::Relationship {
                    node,
                    relationship: None,
                } => {
                    self.relationships.remove(&node);
                }
                Write::GoodPeer(peer) => {
                    self.good_peers.insert(peer.node, peer);
                }
                Write::ForgetPeer(node) => {
                    self.good_peers.remove(&node);
                }
                Write::MapRow(row) => {
                    self.map.insert((row.generation, row.chunk), row);
                }
                Write::MapOnly { generation } => self.map.retain(|key, _| key.0 == generation),
                _ => {}
            }
        }
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
}
