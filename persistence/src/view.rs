//! Pages for a person, read beside the writer: feed, single posts, profiles, blobs.

use crate::disk::Disk;
use crate::environment::Opened;
use crate::fault::Fault;
use crate::rows::{self, HeartRow, PostRow};
use crate::tables::Tables;
use distsoc_engine::domain::{BlobRef, NodeId, PostBody, PostId, Profile, SLICE_BYTES};
use distsoc_engine::io::StorageTrouble;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::sync::Arc;

/// Rows of the feed looked at for one page at most, however few of them are by people one follows.
const ROWS_PER_PAGE_MAX: usize = 100_000;

/// A place in the feed: everything before it is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedCursor([u8; 40]);

impl std::fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for FeedCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a cursor is the 'cursor' of an entry of an earlier page";
        if text.len() != 80 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut key = [0; 40];
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(key))
    }
}

/// A post as a person sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedEntry {
    /// Which.
    pub id: PostId,
    /// What it says.
    pub body: PostBody,
    /// The author's display name, if their profile is known.
    pub author_name: Option<String>,
    /// When it came: ms since the epoch.
    pub arrived_ms: u64,
    /// Its place in the feed.
    pub cursor: FeedCursor,
}

/// Some posts, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedPage {
    /// The posts.
    pub entries: Vec<FeedEntry>,
    /// Where the next page begins, if there may be more.
    pub next: Option<FeedCursor>,
}

/// Presentation queries over committed data. Each takes one read transaction.
#[derive(Clone)]
pub struct View {
    pub(crate) disk: Arc<Disk>,
    pub(crate) own: NodeId,
    pub(crate) dir: PathBuf,
}

/// A read transaction and the tables it is over.
struct Page<'a> {
    txn: heed::RoTxn<'a, heed::WithoutTls>,
    tables: Tables,
    own: NodeId,
    dir: &'a PathBuf,
}

impl View {
    pub(crate) fn fault(&self, error: heed::Error) -> Fault {
        Fault::lmdb(&self.dir, error)
    }

    pub(crate) fn open(&self) -> Result<Opened<'_, Tables>, Fault> {
        self.disk.tables.get().map_err(|error| self.fault(error))
    }

    fn begin<'a>(&'a self, opened: &'a Opened<'_, Tables>) -> Result<Page<'a>, Fault> {
        let txn = opened.env().read_txn();
        Ok(Page {
            txn: txn.map_err(|error| self.fault(error))?,
            tables: opened.handles(),
            own: self.own,
            dir: &self.dir,
        })
    }

    /// Posts by oneself and by people one follows, newest first, older than the cursor. A page stays the same however
    /// many newer posts arrive.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn feed(&self, before: Option<FeedCursor>, limit: usize) -> Result<FeedPage, Fault> {
        let opened = self.open()?;
        self.begin(&opened)?.feed(before, limit)
    }

    /// One stored post, whoever wrote it.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn post(&self, id: PostId) -> Result<Option<FeedEntry>, Fault> {
        let opened = self.open()?;
        self.begin(&opened)?.post(id)
    }

    /// A person's profile.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn profile(&self, node: NodeId) -> Result<Option<Profile>, Fault> {
        let opened = self.open()?;
        self.begin(&opened)?.profile(&node)
    }

    /// How many have given a post their heart, of those whose hearts are stored.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn hearts_of(&self, post: PostId) -> Result<usize, Fault> {
        let opened = self.open()?;
        self.begin(&opened)?.hearts_of(&post)
    }

    /// Whether a person has given a post their heart.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn has_heart_of(&self, post: PostId, person: NodeId) -> Result<bool, Fault> {
        let opened = self.open()?;
        self.begin(&opened)?.has_heart_of(&post, &person)
    }

    /// Whether the person pinned a post.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn is_pinned(&self, post: PostId) -> Result<bool, Fault> {
        let opened = self.open()?;
        self.begin(&opened)?.is_pinned(&post)
    }

    /// Bytes of a blob, as far as it reaches; `None` where a slice that they lie in is not here. A length that is not the blob's, as
    /// anybody may write it into a post, is that of a blob that nobody has.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn blob_part(&self, blob: BlobRef, range: Range<u64>) -> Result<Option<Vec<u8>>, Fault> {
        let end = range.end.min(blob.length);
        let slice_bytes = SLICE_BYTES as u64;
        let mut part = Vec::new();
        let mut at = range.start;
        while at < end {
            let number = (at / slice_bytes) as u32;
            let stored = self.disk.blobs.get(&blob.hash, number);
            let Some(stored) = stored.map_err(|trouble| self.trouble(trouble))? else {
                return Ok(None);
            };
            let Some(data) = blob.data_in(number, &stored) else {
                return Ok(None);
            };
            let start = u64::from(number) * slice_bytes;
            let until = (end - start).min(data.len() as u64);
            part.extend(&data[(at - start) as usize..until as usize]);
            at = start + slice_bytes;
        }
        Ok(Some(part))
    }

    fn trouble(&self, trouble: StorageTrouble) -> Fault {
        match trouble {
            StorageTrouble::Corrupt => Fault::Corrupt { table: "blobs" },
            other => Fault::io(&self.dir, std::io::Error::other(other)),
        }
    }
}

impl Page<'_> {
    fn fault(&self, error: heed::Error) -> Fault {
        Fault::lmdb(self.dir, error)
    }

    fn feed(&self, before: Option<FeedCursor>, limit: usize) -> Result<FeedPage, Fault> {
        let end = before.map_or([0xff; 40], |cursor| cursor.0);
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Excluded(&end));
        let rows = self
            .tables
            .feed
            .rev_range(&self.txn, &range)
            .map_err(|error| self.fault(error))?;
        let mut shown: BTreeMap<NodeId, (bool, Option<String>)> = BTreeMap::new();
        let (mut page, mut looked_at) = (FeedPage::default(), None);
        for (seen, row) in rows.enumerate() {
            let (key, author) = row.map_err(|error| self.fault(error))?;
            if page.entries.len() == limit || seen == ROWS_PER_PAGE_MAX {
                page.next = looked_at;
                break;
            }
            let key: [u8; 40] = key
                .try_into()
                .map_err(|_| Fault::Corrupt { table: "feed" })?;
            looked_at = Some(FeedCursor(key));
            let author = rows::node_of(author).ok_or(Fault::Corrupt { table: "feed" })?;
            let (is_shown, name) = match shown.entry(author) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let is_shown = author == self.own || self.follows(&author)?;
                    place.insert((is_shown, self.name(&author)?))
                }
            };
            if *is_shown {
                let id = rows::post_of_feed_key(&key).ok_or(Fault::Corrupt { table: "feed" })?;
                page.entries
                    .push(self.entry(id, FeedCursor(key), name.clone())?);
            }
        }
        Ok(page)
    }

    fn follows(&self, node: &NodeId) -> Result<bool, Fault> {
        let row = self
            .tables
            .relationships
            .get(&self.txn, node.as_bytes())
            .map_err(|error| self.fault(error))?;
        Ok(row
            .and_then(rows::decode_relationship)
            .is_some_and(|relationship| relationship.followed_since_ms.is_some()))
    }

    fn name(&self, node: &NodeId) -> Result<Option<String>, Fault> {
        let row = self
            .tables
            .profiles
            .get(&self.txn, node.as_bytes())
            .map_err(|error| self.fault(error))?;
        Ok(row
            .and_then(rows::decode_profile)
            .map(|profile| profile.name.as_str().to_owned()))
    }

    fn entry(
        &self,
        id: PostId,
        cursor: FeedCursor,
        author_name: Option<String>,
    ) -> Result<FeedEntry, Fault> {
        let corrupt = || Fault::Corrupt { table: "posts" };
        let row = self
            .tables
            .posts
            .get(&self.txn, id.as_bytes())
            .map_err(|error| self.fault(error))?;
        let row = PostRow::decode(row.ok_or_else(corrupt)?).ok_or_else(corrupt)?;
        Ok(FeedEntry {
            id,
            body: row.bytes().decode().map_err(|_| corrupt())?,
            author_name,
            arrived_ms: row.arrived_ms,
            cursor,
        })
    }

    fn post(&self, id: PostId) -> Result<Option<FeedEntry>, Fault> {
        let row = self
            .tables
            .posts
            .get(&self.txn, id.as_bytes())
            .map_err(|error| self.fault(error))?;
        let Some(row) =
            row.map(|row| PostRow::decode(row).ok_or(Fault::Corrupt { table: "posts" }))
        else {
            return Ok(None);
        };
        let row = row?;
        let name = self.name(&row.author)?;
        let cursor = FeedCursor(rows::feed_key(row.created_at_ms, &id));
        self.entry(id, cursor, name).map(Some)
    }

    fn hearts_of(&self, post: &PostId) -> Result<usize, Fault> {
        let rows = self.tables.hearts.prefix_iter(&self.txn, post.as_bytes());
        let mut given = 0;
        for row in rows.map_err(|error| self.fault(error))? {
            let (_, row) = row.map_err(|error| self.fault(error))?;
            given += usize::from(HeartRow::decode(row).is_some_and(|row| row.is_given));
        }
        Ok(given)
    }

    fn has_heart_of(&self, post: &PostId, person: &NodeId) -> Result<bool, Fault> {
        let key = rows::pair_key(post.as_bytes(), person.as_bytes());
        let row = self.tables.hearts.get(&self.txn, &key);
        let row = row.map_err(|error| self.fault(error))?;
        Ok(row
            .and_then(HeartRow::decode)
            .is_some_and(|row| row.is_given))
    }

    fn is_pinned(&self, post: &PostId) -> Result<bool, Fault> {
        let row = self.tables.stored_files.get(&self.txn, post.as_bytes());
        let row = row.map_err(|error| self.fault(error))?;
        Ok(row.is_some())
    }

    fn profile(&self, node: &NodeId) -> Result<Option<Profile>, Fault> {
        let row = self
            .tables
            .profiles
            .get(&self.txn, node.as_bytes())
            .map_err(|error| self.fault(error))?;
        Ok(row.and_then(rows::decode_profile))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.dir.display())
    }
}
