//! What a node reads of its rows while it runs.

use crate::fault::trouble_of;
use crate::rows::{self, HeartRow, PostRow};
use crate::tables::Tables;
use distsoc_engine::domain::{Deletion, EventList, Heart, NodeId, PostBytes, PostId};
use distsoc_engine::io::{ReadQuery, ReadResult, StorageTrouble, StoredList};
use distsoc_engine::limits;
use distsoc_engine::wire::{ListPart, Want};

/// Hearts that are looked at for one answer, over all its posts.
const HEARTS_LOOKED_AT_MAX: usize = 16_384;

/// Tables, as one transaction sees them.
pub(crate) struct Answerer<'a> {
    pub(crate) txn: &'a heed::RoTxn<'a>,
    pub(crate) tables: &'a Tables,
}

fn trouble(error: heed::Error) -> StorageTrouble {
    trouble_of(&error)
}

impl Answerer<'_> {
    /// The answer; slices lie elsewhere, so of them there are none here.
    pub(crate) fn answer(&self, query: &ReadQuery) -> Result<ReadResult, StorageTrouble> {
        match query {
            ReadQuery::RecentPosts(author) => self.list(author).map(ReadResult::RecentPosts),
            ReadQuery::Slices { .. } => Ok(ReadResult::Slices(Vec::new())),
            ReadQuery::ForPeer {
                wants,
                posts,
                bytes_max,
            } => self.for_peer(wants, posts, *bytes_max),
        }
    }

    fn for_peer(
        &self,
        wants: &[Want],
        asked: &[PostId],
        bytes_max: usize,
    ) -> Result<ReadResult, StorageTrouble> {
        let mut room = bytes_max;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let mut lists = Vec::new();
        for want in wants {
            lists.extend(self.part(want, &mut fits)?);
        }
        let mut posts: Vec<PostBytes> = Vec::new();
        let (mut found, mut absent) = (Vec::new(), Vec::new());
        let mut is_full = false;
        for id in asked {
            let row = self.tables.posts.get(self.txn, id.as_bytes());
            let Some(row) = row.map_err(trouble)? else {
                absent.push(id);
                continue;
            };
            if is_full {
                continue;
            }
            let bytes = PostRow::decode(row).ok_or(StorageTrouble::Corrupt)?.bytes();
            if !fits(bytes.body.len()) {
                is_full = true;
                continue;
            }
            posts.push(bytes);
            found.push(id);
        }
        Ok(ReadResult::ForPeer {
            lists,
            posts,
            hearts: self.hearts(&found)?,
            deletions: self.deletions(wants, &absent)?,
        })
    }

    /// The newest heart of each post, then the next of each, until there are enough.
    fn hearts(&self, posts: &[&PostId]) -> Result<Vec<Heart>, StorageTrouble> {
        let mut looked_at = 0;
        let mut ranked: Vec<(usize, usize, HeartRow<'_>)> = Vec::new();
        for (place, post) in posts.iter().enumerate() {
            let rows = self.tables.hearts.prefix_iter(self.txn, post.as_bytes());
            let mut of_post: Vec<HeartRow<'_>> = Vec::new();
            for row in rows.map_err(trouble)? {
                if looked_at == HEARTS_LOOKED_AT_MAX {
                    break;
                }
                looked_at += 1;
                of_post.extend(HeartRow::decode(row.map_err(trouble)?.1));
            }
            of_post.sort_by_key(|row| std::cmp::Reverse(row.seq));
            of_post.truncate(limits::PULL_HEARTS_MAX);
            let of_post = of_post.into_iter().enumerate();
            ranked.extend(of_post.map(|(rank, row)| (rank, place, row)));
        }
        ranked.sort_by_key(|(rank, place, _)| (*rank, *place));
        ranked.truncate(limits::PULL_HEARTS_MAX);
        let hearts = ranked.iter().filter_map(|(_, _, row)| row.heart());
        Ok(hearts.collect())
    }

    /// Deletions of posts by the authors of these lists.
    fn deletions(
        &self,
        wants: &[Want],
        posts: &[&PostId],
    ) -> Result<Vec<Deletion>, StorageTrouble> {
        let mut deletions = Vec::new();
        if posts.is_empty() {
            return Ok(deletions);
        }
        let table = self.tables.tombstones;
        for author in wants.iter().map(|want| &want.author) {
            let of_author = table.prefix_iter(self.txn, author.as_bytes());
            if of_author.map_err(trouble)?.next().is_none() {
                continue;
            }
            for post in posts {
                if deletions.len() == limits::PULL_DELETIONS_MAX {
                    return Ok(deletions);
                }
                let key = rows::pair_key(author.as_bytes(), post.as_bytes());
                let row = table.get(self.txn, &key).map_err(trouble)?;
                deletions.extend(row.and_then(rows::decode_deletion));
            }
        }
        Ok(deletions)
    }

    fn list(&self, author: &NodeId) -> Result<Option<StoredList>, StorageTrouble> {
        let table = self.tables.author_recent_posts;
        let row = table.get(self.txn, author.as_bytes()).map_err(trouble)?;
        row.map(|row| rows::decode_list(row).ok_or(StorageTrouble::Corrupt))
            .transpose()
    }

    /// What somebody lacks of a list, if it fits; of the other events not a byte is read.
    fn part(
        &self,
        want: &Want,
        fits: impl FnOnce(usize) -> bool,
    ) -> Result<Option<ListPart>, StorageTrouble> {
        let (table, key) = (self.tables.author_recent_posts, want.author.as_bytes());
        let Some(row) = table.get(self.txn, key).map_err(trouble)? else {
            return Ok(None);
        };
        let (head, events) = rows::decode_list_head(row).ok_or(StorageTrouble::Corrupt)?;
        let lacking = want.lacks(&head, events.len() / limits::EVENT_BYTES);
        let lacking = &events[..lacking * limits::EVENT_BYTES];
        if !fits(lacking.len()) {
            return Ok(None);
        }
        let profile = self.tables.profiles.get(self.txn, key).map_err(trouble)?;
        Ok(Some(ListPart {
            head,
            newest: EventList::from_bytes(lacking).map_err(|_| StorageTrouble::Corrupt)?,
            profile: profile.and_then(rows::decode_profile),
        }))
    }
}
