//! What lies on a seat's disk: rows as the node writes them, and what it starts from.

use super::*;

impl Seat {
    pub(super) fn restored(&self) -> Restored {
        let own = |author: &NodeId| *author == self.id;
        let lists = self.lists.values();
        let others = lists.filter(|stored| !own(&stored.head.author));
        let mut blobs: BTreeMap<BlobHash, StoredBlob> = BTreeMap::new();
        for ((hash, number), bytes) in &self.slices {
            let stored = blobs.entry(*hash).or_insert_with(|| StoredBlob {
                hash: *hash,
                slices: Vec::new(),
                last_bytes: 0,
            });
            stored.slices.push(*number..*number + 1);
            stored.last_bytes = bytes.len() as u32;
        }
        let hearts = self.hearts.values();
        Restored {
            relationships: self.relationships.clone().into_iter().collect(),
            authors: others.map(|stored| (stored.head.clone(), 1)).collect(),
            files: self.files.values().cloned().collect(),
            blobs: blobs.into_values().collect(),
            hearts: hearts
                .map(|heart| (HeartBody::clone(heart), heart.hash()))
                .collect(),
            equivocal: self.equivocal.iter().copied().collect(),
            deletions: self
                .deletions
                .keys()
                .map(|(post, of)| (*of, *post))
                .collect(),
            own_list: self.lists.get(&self.id).cloned(),
            ..Restored::default()
        }
    }

    pub(super) fn write(&mut self, write: Write) {
        match write {
            Write::Post { post, .. } => {
                self.files.insert(post.id(), StoredFileRow::of(&post));
                self.posts.insert(post.id(), post.bytes().clone());
            }
            Write::RecentPosts { head, list } => {
                let stored = StoredList {
                    head: head.clone(),
                    list,
                };
                self.lists.insert(head.author, stored);
            }
            Write::Profile(profile) => {
                self.profiles.insert(profile.author, profile);
            }
            Write::ForgetPost(id) => {
                self.posts.remove(&id);
                self.files.remove(&id);
                self.pins.remove(&id);
                self.hearts.retain(|(post, _), _| *post != id);
            }
            Write::Slice(slice) => {
                let key = (slice.blob().hash, slice.number());
                self.slices.insert(key, slice.bytes().clone());
            }
            Write::ForgetBlob(blob) => self.slices.retain(|(of, _), _| *of != blob),
            Write::Heart(heart) => {
                let key = (heart.post, heart.person);
                self.hearts.insert(key, heart);
            }
            Write::Deletion(deletion) => {
                let key = (deletion.post, deletion.author);
                self.deletions.insert(key, deletion);
            }
            Write::Pin { post, is_pinned } => {
                match is_pinned {
                    true => self.pins.insert(post),
                    false => self.pins.remove(&post),
                };
            }
            Write::Relationship { node, relationship } => {
                match relationship {
                    Some(relationship) => self.relationships.insert(node, relationship),
                    None => self.relationships.remove(&node),
                };
            }
            Write::Equivocation(heads) => {
                self.equivocal.insert(heads[0].author);
            }
            Write::ForgetAuthor(author) => {
                self.lists.remove(&author);
                self.profiles.remove(&author);
                self.deletions.retain(|(_, of), _| *of != author);
            }
            Write::MapRow(row) => drop(self.map.insert((row.generation, row.chunk), row)),
            Write::MapOnly { generation } => self.map.retain(|key, _| key.0 == generation),
            _ => {}
        }
    }

    pub(super) fn read(&self, query: ReadQuery) -> ReadResult {
        match query {
            ReadQuery::RecentPosts(author) => {
                ReadResult::RecentPosts(self.lists.get(&author).cloned())
            }
            ReadQuery::Slices { blob, first, count } => {
                let slices = (first..first.saturating_add(count))
                    .map_while(|number| self.slices.get(&(blob, number)).cloned());
                ReadResult::Slices(slices.collect())
            }
            ReadQuery::ForPeer {
                wants,
                posts,
                bytes_max,
            } => {
                let mut room = bytes_max;
                let mut fits = |bytes: usize| {
                    let left = room.checked_sub(bytes);
                    room = left.unwrap_or(room);
                    left.is_some()
                };
                let part_of = |want: &Want| {
                    let stored = self.lists.get(&want.author)?;
                    let lacking = want.lacks(&stored.head, stored.list.len());
                    Some(ListPart {
                        head: stored.head.clone(),
                        newest: stored.list.newest(lacking),
                        profile: self.profiles.get(&want.author).cloned(),
                    })
                };
                let lists = wants.iter().filter_map(part_of);
                let lists = lists
                    .filter(|part| fits(part.newest.as_bytes().len()))
                    .collect();
                let is_there =
                    |post: &PostId| posts.contains(post) && self.posts.contains_key(post);
                let hearts = self.hearts.iter();
                let mut hearts: Vec<Heart> = hearts
                    .filter(|((post, _), _)| is_there(post))
                    .map(|(_, heart)| heart.clone())
                    .collect();
                hearts.sort_by_key(|heart| std::cmp::Reverse(heart.seq));
                hearts.truncate(limits::PULL_HEARTS_MAX);
                let deletions = self.deletions.iter();
                let deletions = deletions
                    .filter(|((post, _), _)| posts.contains(post))
                    .map(|(_, deletion)| deletion.clone());
                ReadResult::ForPeer {
                    lists,
                    posts: posts
                        .iter()
                        .filter_map(|id| self.posts.get(id).cloned())
                        .take_while(|post| fits(post.body.len()))
                        .collect(),
                    hearts,
                    deletions: deletions.take(limits::PULL_DELETIONS_MAX).collect(),
                }
            }
        }
    }
}
