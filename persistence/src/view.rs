//! Pages for a person, read beside the writer: feed, single posts, profiles.

use crate::fault::Fault;
use crate::rows::{self, PostRow};
use crate::tables::{Lmdb, Tables};
use distsoc_engine::domain::{NodeId, PostBody, PostId, Profile};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::path::PathBuf;

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
    pub(crate) env: Lmdb,
    pub(crate) tables: Tables,
    pub(crate) own: NodeId,
    pub(crate) dir: PathBuf,
}

type Reading<'a> = heed::RoTxn<'a, heed::WithoutTls>;

impl View {
    fn fault(&self, error: heed::Error) -> Fault {
        Fault::lmdb(&self.dir, error)
    }

    fn begin(&self) -> Result<Reading<'_>, Fault> {
        self.env.read_txn().map_err(|error| self.fault(error))
    }

    /// Posts by oneself and by people one follows, newest first, older than the cursor. A page stays the same however
    /// many newer posts arrive.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn feed(&self, before: Option<FeedCursor>, limit: usize) -> Result<FeedPage, Fault> {
        let txn = self.begin()?;
        let end = before.map_or([0xff; 40], |cursor| cursor.0);
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Unbounded, Bound::Excluded(&end));
        let rows = self
            .tables
            .feed
            .rev_range(&txn, &range)
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
                    let is_shown = author == self.own || self.follows(&txn, &author)?;
                    place.insert((is_shown, self.name(&txn, &author)?))
                }
            };
            if *is_shown {
                let id = rows::post_of_feed_key(&key).ok_or(Fault::Corrupt { table: "feed" })?;
                page.entries
                    .push(self.entry(&txn, id, FeedCursor(key), name.clone())?);
            }
        }
        Ok(page)
    }

    fn follows(&self, txn: &Reading<'_>, node: &NodeId) -> Result<bool, Fault> {
        let row = self
            .tables
            .relationships
            .get(txn, node.as_bytes())
            .map_err(|error| self.fault(error))?;
        Ok(row
            .and_then(rows::decode_relationship)
            .is_some_and(|relationship| relationship.followed_since_ms.is_some()))
    }

    fn name(&self, txn: &Reading<'_>, node: &NodeId) -> Result<Option<String>, Fault> {
        let row = self
            .tables
            .profiles
            .get(txn, node.as_bytes())
            .map_err(|error| self.fault(error))?;
        Ok(row
            .and_then(rows::decode_profile)
            .map(|profile| profile.name.as_str().to_owned()))
    }

    fn entry(
        &self,
        txn: &Reading<'_>,
        id: PostId,
        cursor: FeedCursor,
        author_name: Option<String>,
    ) -> Result<FeedEntry, Fault> {
        let corrupt = || Fault::Corrupt { table: "posts" };
        let row = self
            .tables
            .posts
            .get(txn, id.as_bytes())
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

    /// One stored post, whoever wrote it.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn post(&self, id: PostId) -> Result<Option<FeedEntry>, Fault> {
        let txn = self.begin()?;
        let row = self
            .tables
            .posts
            .get(&txn, id.as_bytes())
            .map_err(|error| self.fault(error))?;
        let Some(row) =
            row.map(|row| PostRow::decode(row).ok_or(Fault::Corrupt { table: "posts" }))
        else {
            return Ok(None);
        };
        let row = row?;
        let name = self.name(&txn, &row.author)?;
        let cursor = FeedCursor(rows::feed_key(row.created_at_ms, &id));
        self.entry(&txn, id, cursor, name).map(Some)
    }

    /// A person's profile.
    ///
    /// # Errors
    /// [`Fault`] where the disk cannot be read.
    pub fn profile(&self, node: NodeId) -> Result<Option<Profile>, Fault> {
        let txn = self.begin()?;
        let row = self
            .tables
            .profiles
            .get(&txn, node.as_bytes())
            .map_err(|error| self.fault(error))?;
        Ok(row.and_then(rows::decode_profile))
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.dir.display())
    }
}
