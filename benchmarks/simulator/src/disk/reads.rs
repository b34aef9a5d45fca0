//! Reads: what is durable, and over it what was handed in and is not yet.

use super::Disk;
use distsoc_engine::domain::{BlobHash, Deletion, Heart, NodeId, PostBytes, PostId, Profile, Seq};
use distsoc_engine::io::{ReadQuery, ReadResult, StorageTrouble, StoredList, Write};
use distsoc_engine::limits;
use distsoc_engine::wire::{ListPart, Want};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Disk {
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
            ReadQuery::RecentPosts(author) => ReadResult::RecentPosts(self.list(author)),
            ReadQuery::Slices { blob, first, count } => {
                let numbers = *first..first.saturating_add(*count);
                let slices = numbers.map_while(|number| self.slice(blob, number));
                ReadResult::Slices(slices.collect())
            }
            ReadQuery::ForPeer {
                wants,
                posts,
                bytes_max,
            } => self.for_peer(wants, posts, *bytes_max),
        })
    }

    fn for_peer(&self, wants: &[Want], posts: &[PostId], bytes_max: usize) -> ReadResult {
        let mut room = bytes_max;
        let mut fits = |bytes: usize| {
            let left = room.checked_sub(bytes);
            room = left.unwrap_or(room);
            left.is_some()
        };
        let lists = wants.iter().filter_map(|want| self.part(want));
        let lists = lists
            .filter(|part| fits(part.newest.as_bytes().len()))
            .collect();
        let there = posts.iter().filter_map(|id| Some((*id, self.post(id)?)));
        let there: Vec<(PostId, PostBytes)> = there
            .take_while(|(_, post)| fits(post.body.len()))
            .collect();
        let mut hearts: Vec<Heart> = there.iter().flat_map(|(id, _)| self.hearts(id)).collect();
        hearts.sort_by_key(|heart| Reverse(heart.seq));
        hearts.truncate(limits::PULL_HEARTS_MAX);
        let deletions = posts.iter().flat_map(|id| self.deletions(id));
        ReadResult::ForPeer {
            lists,
            posts: there.into_iter().map(|(_, post)| post).collect(),
            hearts,
            deletions: deletions.take(limits::PULL_DELETIONS_MAX).collect(),
        }
    }

    fn post(&self, id: &PostId) -> Option<PostBytes> {
        let newest = self.under_way().rev().find_map(|write| match write {
            Write::Post { post, .. } if post.id() == *id => Some(Some(post.bytes().clone())),
            Write::ForgetPost(forgotten) if forgotten == id => Some(None),
            _ => None,
        });
        newest.unwrap_or_else(|| self.tables.posts.get(id).map(|row| row.bytes.clone()))
    }

    fn slice(&self, blob: &BlobHash, number: u32) -> Option<Arc<[u8]>> {
        let newest = self.under_way().rev().find_map(|write| match write {
            Write::Slice(slice) if slice.blob().hash == *blob && slice.number() == number => {
                Some(Some(slice.bytes().clone()))
            }
            Write::ForgetBlob(forgotten) if forgotten == blob => Some(None),
            _ => None,
        });
        newest.unwrap_or_else(|| self.tables.slices.get(&(*blob, number)).cloned())
    }

    pub(super) fn hearts(&self, id: &PostId) -> Vec<Heart> {
        let durable = self.tables.hearts.range((*id, LEAST)..=(*id, GREATEST));
        let mut hearts: BTreeMap<NodeId, Heart> = durable
            .map(|((_, person), heart)| (*person, heart.clone()))
            .collect();
        for write in self.under_way() {
            match write {
                Write::Heart(heart) if heart.post == *id => {
                    hearts.insert(heart.person, heart.clone());
                }
                Write::ForgetPost(forgotten) if forgotten == id => hearts.clear(),
                _ => {}
            }
        }
        hearts.into_values().collect()
    }

    /// Every deletion of a post, whoever signed it.
    fn deletions(&self, id: &PostId) -> Vec<Deletion> {
        let durable = self.tables.deletions.range((*id, LEAST)..=(*id, GREATEST));
        let mut deletions: BTreeMap<NodeId, Deletion> = durable
            .map(|((_, author), deletion)| (*author, deletion.clone()))
            .collect();
        for write in self.under_way() {
            match write {
                Write::Deletion(deletion) if deletion.post == *id => {
                    deletions.insert(deletion.author, deletion.clone());
                }
                Write::ForgetAuthor(author) => drop(deletions.remove(author)),
                _ => {}
            }
        }
        deletions.into_values().collect()
    }

    /// Whether its author took this post back, as far as was handed in.
    #[must_use]
    pub fn is_deleted(&self, author: &NodeId, id: &PostId) -> bool {
        let of_author = |deletion: &Deletion| deletion.author == *author;
        self.deletions(id).iter().any(of_author)
    }

    /// The newest version of an author's list, as far as was handed in.
    #[must_use]
    pub fn version_of(&self, author: &NodeId) -> Option<Seq> {
        let newest = self.under_way().rev().find_map(|write| match write {
            Write::RecentPosts { head, .. } if head.author == *author => Some(Some(head.seq)),
            Write::ForgetAuthor(forgotten) if forgotten == author => Some(None),
            _ => None,
        });
        newest.unwrap_or_else(|| self.tables.lists.get(author).map(|row| row.head.seq))
    }

    fn part(&self, want: &Want) -> Option<ListPart> {
        let StoredList { head, list } = self.list(&want.author)?;
        Some(ListPart {
            newest: list.newest(want.lacks(&head, list.len())),
            head,
            profile: self.profile(&want.author),
        })
    }

    fn list(&self, author: &NodeId) -> Option<StoredList> {
        let newest = self.under_way().rev().find_map(|write| match write {
            Write::RecentPosts { head, list } if head.author == *author => {
                Some(Some((head.clone(), list.clone())))
            }
            Write::ForgetAuthor(forgotten) if forgotten == author => Some(None),
            _ => None,
        });
        let durable = || {
            let row = self.tables.lists.get(author);
            row.map(|row| (row.head.clone(), row.list.clone()))
        };
        let (head, list) = newest.unwrap_or_else(durable)?;
        Some(StoredList { head, list })
    }

    fn profile(&self, author: &NodeId) -> Option<Profile> {
        let newest = self.under_way().rev().find_map(|write| match write {
            Write::Profile(profile) if profile.author == *author => Some(Some(profile.clone())),
            Write::ForgetAuthor(forgotten) if forgotten == author => Some(None),
            _ => None,
        });
        newest.unwrap_or_else(|| self.tables.profiles.get(author).cloned())
    }
}

const LEAST: NodeId = NodeId::from_bytes([0; 32]);
const GREATEST: NodeId = NodeId::from_bytes([0xff; 32]);
