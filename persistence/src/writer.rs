//! The one writer: applies batches in the order they come and commits them in groups.
//!
//! A write transaction stays open while batches come in; a durable one commits it at once, others within
//! [`COMMIT_DELAY_MS`], so that a fan-in of a hundred small batches costs one sync. Each batch is a nested transaction: one
//! that fails leaves nothing of itself. Reads run in the open transaction and so see what is not committed yet.

use crate::fault::{trouble_of, trouble_of_io};
use crate::rows::{self, PostRow};
use crate::tables::{Lmdb, Tables};
use distsoc_engine::domain::{NodeId, PostBytes};
use distsoc_engine::io::{
    BatchId, Durability, Input, ReadId, ReadQuery, ReadResult, StorageTrouble, StoredList, Write,
};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long something learned waits for company; far below the 2 s of PROTOCOL section 12, so that followers see posts soon.
const COMMIT_DELAY_MS: u64 = 150;
/// Batches in one commit at most.
const BATCHES_PER_COMMIT_MAX: usize = 512;

/// By how much a file must be able to grow for a disk not to count as full.
const GROWTH_BYTES: usize = 128 * 1024;

/// What the writer is asked for.
pub(crate) enum Job {
    Persist(BatchId, Vec<Write>, Durability),
    Read(ReadId, ReadQuery),
    Close,
}

pub(crate) struct Writer {
    pub(crate) env: Lmdb,
    pub(crate) tables: Tables,
    /// The database file.
    pub(crate) path: PathBuf,
    pub(crate) deliver: Box<dyn Fn(Input) + Send>,
}

/// Why a group of batches is committed now.
enum Next {
    Job(Job),
    Commit,
    Stop,
}

impl Writer {
    /// Works until told to close or nobody can ask any more.
    pub(crate) fn run(self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Close => return,
                Job::Read(read, query) => self.read_committed(read, &query),
                persist => {
                    if self.group(persist, jobs) {
                        return;
                    }
                }
            }
        }
    }

    /// One transaction: from its first batch to its commit. True where the writer is to stop.
    fn group(&self, first: Job, jobs: &Receiver<Job>) -> bool {
        let mut txn = match self.env.write_txn() {
            Ok(txn) => txn,
            Err(error) => {
                if let Job::Persist(batch, ..) = first {
                    (self.deliver)(Input::PersistFailed(batch, self.trouble(&error)));
                }
                return false;
            }
        };
        let deadline = Instant::now() + Duration::from_millis(COMMIT_DELAY_MS);
        let (mut batches, mut durable, mut stop) = (Vec::new(), false, false);
        let mut next = Next::Job(first);
        loop {
            match next {
                Next::Job(Job::Persist(batch, writes, durability)) => {
                    durable |= durability == Durability::Durable;
                    match self.apply(&mut txn, &writes) {
                        Ok(()) => batches.push(batch),
                        Err(error) => {
                            (self.deliver)(Input::PersistFailed(batch, self.trouble(&error)))
                        }
                    }
                }
                Next::Job(Job::Read(read, query)) => {
                    let result = self.answer(&txn, &query);
                    (self.deliver)(Input::Read { read, result });
                }
                Next::Job(Job::Close) | Next::Stop => {
                    stop = true;
                    break;
                }
                Next::Commit => break,
            }
            next = match (durable, batches.len() < BATCHES_PER_COMMIT_MAX) {
                (_, false) => Next::Commit,
                // Whoever queued behind a durable batch already goes with it.
                (true, true) => jobs.try_recv().map_or(Next::Commit, Next::Job),
                (false, true) => {
                    match jobs.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                        Ok(job) => Next::Job(job),
                        Err(RecvTimeoutError::Timeout) => Next::Commit,
                        Err(RecvTimeoutError::Disconnected) => Next::Stop,
                    }
                }
            };
        }
        let result = txn.commit().map_err(|error| self.trouble(&error));
        for batch in batches {
            (self.deliver)(match result {
                Ok(()) => Input::Persisted(batch),
                Err(trouble) => Input::PersistFailed(batch, trouble),
            });
        }
        stop
    }

    /// What a failed write means. LMDB reports one that the system cut short, as it does where space ends within it, as an
    /// error of the device: whether the file can grow tells the two apart.
    fn trouble(&self, error: &heed::Error) -> StorageTrouble {
        match trouble_of(error) {
            StorageTrouble::Failed => match self.try_to_grow() {
                Ok(()) => StorageTrouble::Failed,
                Err(source) => trouble_of_io(&source),
            },
            trouble => trouble,
        }
    }

    fn try_to_grow(&self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        let grown = file
            .write_all(&[0; GROWTH_BYTES])
            .and_then(|()| file.sync_data());
        file.set_len(length)?;
        grown
    }

    fn apply(&self, parent: &mut heed::RwTxn<'_>, writes: &[Write]) -> heed::Result<()> {
        let mut txn = self.env.nested_write_txn(parent)?;
        for write in writes {
            self.write(&mut txn, write)?;
        }
        txn.commit()
    }

    fn write(&self, txn: &mut heed::RwTxn<'_>, write: &Write) -> heed::Result<()> {
        let tables = &self.tables;
        match write {
            Write::Post { post, arrived_ms } => {
                let (id, body) = (post.id(), post.body());
                tables
                    .posts
                    .put(txn, id.as_bytes(), &PostRow::encode(post, *arrived_ms))?;
                let key = rows::feed_key(body.created_at_ms, &id);
                tables.feed.put(txn, &key, body.author.as_bytes())
            }
            Write::RecentPosts { head, list } => tables.author_recent_posts.put(
                txn,
                head.author.as_bytes(),
                &rows::encode_list(head, list),
            ),
            Write::Checked {
                author,
                checked_at_ms,
            } => tables
                .checked
                .put(txn, author.as_bytes(), &checked_at_ms.to_be_bytes()),
            Write::Profile(profile) => {
                tables
                    .profiles
                    .put(txn, profile.author.as_bytes(), &profile.to_bytes())
            }
            Write::Relationship {
                node,
                relationship: Some(relationship),
            } => tables.relationships.put(
                txn,
                node.as_bytes(),
                &rows::encode_relationship(relationship),
            ),
            Write::Relationship {
                node,
                relationship: None,
            } => tables
                .relationships
                .delete(txn, node.as_bytes())
                .map(|_| ()),
            Write::GoodPeer(peer) => {
                tables
                    .peers
                    .put(txn, peer.node.as_bytes(), &rows::encode_peer(peer))
            }
            Write::ForgetPeer(node) => tables.peers.delete(txn, node.as_bytes()).map(|_| ()),
            Write::MapRow(row) => {
                let key = rows::map_key(row.generation, row.chunk);
                tables.discovery_map.put(txn, &key, &row.bytes)
            }
            Write::MapOnly { generation } => {
                let first = rows::map_key(*generation, 0);
                let last = rows::map_key(*generation, u32::MAX);
                let before = (Bound::Unbounded, Bound::Excluded(&first[..]));
                let after = (Bound::Excluded(&last[..]), Bound::Unbounded);
                tables.discovery_map.delete_range(txn, &before)?;
                tables.discovery_map.delete_range(txn, &after).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    fn read_committed(&self, read: ReadId, query: &ReadQuery) {
        let result = match self.env.read_txn() {
            Ok(txn) => self.answer(&txn, query),
            Err(error) => Err(trouble_of(&error)),
        };
        (self.deliver)(Input::Read { read, result });
    }

    fn answer(
        &self,
        txn: &heed::RoTxn<'_>,
        query: &ReadQuery,
    ) -> Result<ReadResult, StorageTrouble> {
        match query {
            ReadQuery::RecentPosts(author) => {
                self.list(txn, author, false).map(ReadResult::RecentPosts)
            }
            ReadQuery::Slices { .. } => Ok(ReadResult::Slices(Vec::new())),
            ReadQuery::ForPeer {
                authors,
                posts,
                bytes_max,
            } => {
                let mut room = *bytes_max;
                let mut fits = |bytes: usize| {
                    let fits = bytes <= room;
                    room = room.saturating_sub(bytes);
                    fits
                };
                let mut lists = Vec::new();
                for author in authors {
                    lists.extend(self.list(txn, author, true)?);
                }
                let mut found: Vec<PostBytes> = Vec::new();
                for id in posts {
                    let row = self
                        .tables
                        .posts
                        .get(txn, id.as_bytes())
                        .map_err(|error| trouble_of(&error))?;
                    let Some(row) = row else { continue };
                    let bytes = PostRow::decode(row).ok_or(StorageTrouble::Corrupt)?.bytes();
                    if !fits(bytes.body.len()) {
                        break;
                    }
                    found.push(bytes);
                }
                Ok(ReadResult::ForPeer {
                    lists,
                    posts: found,
                    hearts: Vec::new(),
                    deletions: Vec::new(),
                })
            }
        }
    }

    fn list(
        &self,
        txn: &heed::RoTxn<'_>,
        author: &NodeId,
        with_profile: bool,
    ) -> Result<Option<StoredList>, StorageTrouble> {
        let trouble = |error| trouble_of(&error);
        let Some(row) = self
            .tables
            .author_recent_posts
            .get(txn, author.as_bytes())
            .map_err(trouble)?
        else {
            return Ok(None);
        };
        let profile = match with_profile {
            true => self
                .tables
                .profiles
                .get(txn, author.as_bytes())
                .map_err(trouble)?,
            false => None,
        };
        let profile = profile.and_then(rows::decode_profile);
        rows::decode_list(row, profile)
            .map(Some)
            .ok_or(StorageTrouble::Corrupt)
    }
}
