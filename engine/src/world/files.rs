//! Stored files (PROTOCOL section 7): what this node holds, what of it may go, and what it knows it lacks.

use crate::clock::Now;
use crate::domain::{
    AuthorStanding, BlobHash, BlobRef, Event, EventKind, KeepPriority, NodeId, PAGE_BYTES, PostId,
    RecentPosts,
};
use crate::io::{OwnBytes, StoredFileRow, Write};
use crate::limits;
use crate::world::authors::{Author, AuthorIndex, Missing};
use crate::world::blobs::BlobBook;
use crate::world::copies::Copies;
use crate::world::deletions::{Deletions, Proof};
use crate::world::hearts::Hearts;
use crate::world::identity::Identity;
use crate::world::keep_order::{Candidate, KeepOrder, KeepRow};
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that a post takes in the tables beside its body: head of its row, place in the feed, and their share of the trees.
pub const ROW_BYTES: u64 = 320;
/// A row that is longer has pages of its own.
const LONG_ROW_BYTES: u64 = PAGE_BYTES / 2;

/// A post that is stored or on its way to the disk.
#[derive(Component, Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// As it lies on the disk.
    pub row: StoredFileRow,
    /// Its place among those that may go; `None` for own content, which never goes.
    pub keep: Option<KeepRow>,
}

impl StoredFile {
    /// Bytes that it takes on the disk, its blobs included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.row)
    }
}

/// Bytes that a post takes on the disk, its blobs included.
#[must_use]
pub fn disk_bytes(row: &StoredFileRow) -> u64 {
    let blobs: u64 = row.distinct_blobs().map(BlobRef::disk_bytes).sum();
    u64::from(row.bytes) + ROW_BYTES + blobs
}

/// Bytes that the row of a post with such a body takes, in whole pages where it is long; of a short one with the gaps between rows.
#[must_use]
pub fn row_bytes(body_bytes: u32) -> u64 {
    let bytes = u64::from(body_bytes) + ROW_BYTES;
    match bytes {
        ..=LONG_ROW_BYTES => bytes * 3 / 2,
        _ => bytes.next_multiple_of(PAGE_BYTES),
    }
}

/// Bytes that files take on the disk: a blob that several of them name counts once, and what has not come not at all.
#[derive(Debug, Default)]
pub struct Tally(BTreeSet<BlobHash>);

/// Bytes of a blob that are here.
fn here(blob: &BlobRef, blobs: &BlobBook) -> u64 {
    let part = blobs.get(blob);
    part.map_or(0, |part| blob.disk_bytes() - part.missing_bytes())
}

impl Tally {
    /// Bytes of a file beside those that were counted.
    #[must_use]
    pub fn of(&self, row: &StoredFileRow, blobs: &BlobBook) -> u64 {
        let new = row.distinct_blobs();
        let new = new.filter(|blob| !self.0.contains(&blob.hash));
        let blobs: u64 = new.map(|blob| here(blob, blobs)).sum();
        u64::from(row.bytes) + ROW_BYTES + blobs
    }

    /// The same, and they are counted from now on.
    pub fn count(&mut self, row: &StoredFileRow, blobs: &BlobBook) -> u64 {
        let bytes = self.of(row, blobs);
        // Of several that differ in length, one has something here.
        let here = row.blobs.iter().filter(|blob| here(blob, blobs) > 0);
        self.0.extend(here.map(|blob| blob.hash));
        bytes
    }
}

/// Stored files by id and by author.
#[derive(Resource, Debug, Default)]
pub struct FileIndex {
    by_id: BTreeMap<PostId, Entity>,
    by_author: BTreeMap<NodeId, BTreeSet<PostId>>,
}

impl FileIndex {
    /// The entity of a stored post.
    #[must_use]
    pub fn get(&self, id: &PostId) -> Option<Entity> {
        self.by_id.get(id).copied()
    }

    /// Whether the post is here.
    #[must_use]
    pub fn contains(&self, id: &PostId) -> bool {
        self.by_id.contains_key(id)
    }

    /// The stored posts of an author, in the order of their ids.
    pub fn of_author(&self, author: &NodeId) -> impl Iterator<Item = (PostId, Entity)> + '_ {
        let ids = self.by_author.get(author).into_iter().flatten();
        ids.map(|id| (*id, self.by_id[id]))
    }

    /// All, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (PostId, Entity)> + '_ {
        self.by_id.iter().map(|(id, entity)| (*id, *entity))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn insert(&mut self, id: PostId, author: NodeId, entity: Entity) {
        self.by_id.insert(id, entity);
        self.by_author.entry(author).or_default().insert(id);
    }

    fn remove(&mut self, id: &PostId, author: &NodeId) {
        if let Some(ids) = self.by_author.get_mut(author) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_author.remove(author);
            }
        }
        self.by_id.remove(id);
    }
}

/// Everything that changes when a file comes, goes, or is worth more or less. The only place where they change together.
#[derive(SystemParam)]
pub struct Archive<'w, 's> {
    now: Res<'w, Now>,
    identity: Res<'w, Identity>,
    /// What is here.
    pub index: ResMut<'w, FileIndex>,
    /// What may go.
    pub order: ResMut<'w, KeepOrder>,
    /// What is here of which blob.
    pub blobs: ResMut<'w, BlobBook>,
    /// Who likes what.
    pub hearts: ResMut<'w, Hearts>,
    /// Who else holds what.
    pub copies: ResMut<'w, Copies>,
    /// Whom one has to do with.
    pub authors: Res<'w, AuthorIndex>,
    /// Their state.
    pub kept: Query<'w, 's, &'static mut Author>,
    files: Query<'w, 's, &'static mut StoredFile>,
    commands: Commands<'w, 's>,
}

impl Archive<'_, '_> {
    /// The time: seconds since the epoch.
    #[must_use]
    pub fn now_s(&self) -> u32 {
        (self.now.wall_ms / 1000) as u32
    }

    /// The own id.
    #[must_use]
    pub fn own(&self) -> NodeId {
        self.identity.node_id()
    }

    /// An author.
    #[must_use]
    pub fn author(&self, node: &NodeId) -> Option<&Author> {
        self.kept.get(self.authors.get(node)?).ok()
    }

    /// An author, to change.
    pub fn author_mut(&mut self, node: &NodeId) -> Option<Mut<'_, Author>> {
        self.kept.get_mut(self.authors.get(node)?).ok()
    }

    /// What one has to do with an author.
    #[must_use]
    pub fn standing_of(&self, author: &NodeId) -> AuthorStanding {
        match self.author(author).is_some_and(Author::is_followed) {
            true => AuthorStanding::Followed,
            false => AuthorStanding::of_hearts(self.hearts.of_author(author)),
        }
    }

    /// A file is here now.
    pub fn add(&mut self, row: StoredFileRow) {
        let entity = self.commands.spawn_empty().id();
        for blob in &row.blobs {
            self.blobs.refer(*blob, row.id);
        }
        if !row.blobs.is_empty() {
            self.blobs.news.push(row.id);
        }
        self.index.insert(row.id, row.author, entity);
        let candidate = Candidate {
            id: row.id,
            entity,
            bytes: disk_bytes(&row),
            standing: self.standing_of(&row.author),
            written_s: row.created_at_s,
            hearted_s: self.hearts.newest_s(&row.id),
            copies: self.copies.count(&row.id),
            is_pinned: row.is_pinned,
        };
        let is_own = row.author == self.identity.node_id();
        let now_s = self.now_s();
        let keep = (!is_own).then(|| self.order.insert(candidate, now_s));
        self.commands
            .entity(entity)
            .insert(StoredFile { row, keep });
    }

    /// A file goes, with the blobs that no other names: what is to be written for it, in order.
    pub fn forget(&mut self, id: &PostId) -> Vec<Write> {
        let Some(entity) = self.index.get(id) else {
            return Vec::new();
        };
        let Ok(StoredFile { row, keep }) = self.files.get(entity).cloned() else {
            return Vec::new();
        };
        self.index.remove(id, &row.author);
        if let Some(keep) = keep {
            self.order.remove(keep);
        }
        let hearts = self.hearts.of_author(&row.author);
        self.hearts.forget_post(id);
        if self.hearts.of_author(&row.author) != hearts {
            self.judge_author(&row.author);
        }
        self.copies.forget(id);
        self.commands.entity(entity).despawn();
        let mut writes = vec![Write::ForgetPost(*id)];
        let freed = row.blobs.iter();
        let freed = freed.filter(|blob| self.blobs.release(blob, id));
        writes.extend(freed.map(|blob| Write::ForgetBlob(blob.hash)));
        writes
    }

    /// What a list says was taken back goes, whatever else names it: what is to be written for it, in order.
    pub fn bury(&mut self, list: &RecentPosts, deletions: &mut Deletions) -> Vec<Write> {
        let author = list.head().author;
        let mut writes = Vec::new();
        let deleted = list.list().iter();
        for event in deleted.filter(|event| event.kind == EventKind::Delete) {
            // Where it is known already, or no more are remembered, what is here goes all the same.
            let _ = deletions.insert(author, event.id, Proof::List);
            let file = self.get(&event.id);
            if file.is_some_and(|file| file.row.author == author) {
                writes.extend(self.forget(&event.id));
            }
        }
        writes
    }

    /// A stored file.
    #[must_use]
    pub fn get(&self, id: &PostId) -> Option<&StoredFile> {
        self.files.get(self.index.get(id)?).ok()
    }

    /// Bytes of a file's blobs that are not on the disk.
    #[must_use]
    pub fn missing_bytes(&self, file: &StoredFile) -> u64 {
        let parts = file.row.distinct_blobs();
        let parts = parts.filter_map(|blob| self.blobs.get(blob));
        parts.map(|part| part.missing_bytes()).sum()
    }

    /// Stored files of an author.
    pub fn of_author(&self, author: &NodeId) -> impl Iterator<Item = &StoredFile> {
        let entities = self.index.of_author(author);
        entities.filter_map(|(_, entity)| self.files.get(entity).ok())
    }

    /// Bytes that own content takes.
    #[must_use]
    pub fn own_bytes(&self) -> OwnBytes {
        self.count_own(&mut Tally::default())
    }

    /// Bytes of own content beside those that were counted before.
    pub fn count_own(&self, tally: &mut Tally) -> OwnBytes {
        let own = self.identity.node_id();
        let mut bytes = OwnBytes::default();
        for file in self.of_author(&own) {
            bytes += OwnBytes {
                all: tally.count(&file.row, &self.blobs),
                rows: row_bytes(file.row.bytes),
            };
        }
        bytes
    }

    /// What one has to do with an author has changed.
    pub fn judge_author(&mut self, author: &NodeId) {
        let (standing, now_s) = (self.standing_of(author), self.now_s());
        for (_, entity) in self.index.of_author(author) {
            let keep = self.files.get(entity).ok().and_then(|file| file.keep);
            if let Some(keep) = keep {
                self.order
                    .update(keep, now_s, |candidate| candidate.standing = standing);
            }
        }
    }

    /// Hearts, copies or a pin of a file have changed.
    pub fn judge_file(&mut self, id: &PostId, is_pinned: Option<bool>) {
        let now_s = self.now_s();
        let (hearted_s, copies) = (self.hearts.newest_s(id), self.copies.count(id));
        let Some(mut file) = self
            .index
            .get(id)
            .and_then(|entity| self.files.get_mut(entity).ok())
        else {
            return;
        };
        if let Some(is_pinned) = is_pinned {
            file.row.is_pinned = is_pinned;
        }
        let is_pinned = file.row.is_pinned;
        if let Some(keep) = file.keep {
            self.order.update(keep, now_s, |candidate| {
                candidate.hearted_s = hearted_s;
                candidate.copies = copies;
                candidate.is_pinned = is_pinned;
            });
        }
    }

    /// What of a verified list is not here and has a place: newest first.
    #[must_use]
    pub fn lacking(
        &self,
        list: &RecentPosts,
        deletions: &Deletions,
        floor: &KeepFloor,
    ) -> Vec<Missing> {
        let node = list.head().author;
        let has_place = |event: &Event| {
            let worth = self.worth_of(&node, event.created_at_s);
            floor.admits(&event.id, worth, event.created_at_s)
        };
        let is_lacking = |event: &Event| match event.kind {
            // The author's record of it is wanted, which holds when the list names it no more.
            EventKind::Delete => !deletions.has_record(&node, &event.id),
            kind => {
                kind.is_post()
                    && !self.index.contains(&event.id)
                    && !deletions.contains(&node, &event.id)
                    && has_place(event)
            }
        };
        let now_s = self.now_s();
        let events = list.list().without_deleted().filter(is_lacking);
        let missing = events.map(|event| Missing {
            id: event.id,
            created_at_s: event.created_at_s.min(now_s),
        });
        missing.collect()
    }

    /// What a post of an author would be worth here once it has come: unhearted, and held by whoever brought it. Were it
    /// reckoned higher than it is when it is here, it would come and go for ever.
    #[must_use]
    pub fn worth_of(&self, author: &NodeId, created_at_s: u32) -> KeepPriority {
        let candidate = Candidate {
            id: PostId::from_bytes([0; 32]),
            entity: Entity::PLACEHOLDER,
            bytes: 0,
            standing: self.standing_of(author),
            written_s: created_at_s,
            hearted_s: None,
            copies: 1,
            is_pinned: false,
        };
        candidate.facts(self.now_s()).priority()
    }
}

/// Whether a write still says what is so. One that waited, for the disk or for the end of its frame, may have been overtaken: the
/// post that it stores has gone since, or what it forgets has come again.
#[must_use]
pub fn still_holds(write: &Write, files: &FileIndex, blobs: &BlobBook) -> bool {
    match write {
        Write::Post { post, .. } => files.contains(&post.id()),
        Write::Heart(heart) => files.contains(&heart.post),
        Write::ForgetPost(id) => !files.contains(id),
        Write::ForgetBlob(hash) => !blobs.contains(hash),
        _ => true,
    }
}

/// Posts that stand in a verified list and are not here: the author is proved, the bytes are missing.
#[derive(Resource, Debug, Default)]
pub struct Wanted(BTreeMap<PostId, NodeId>);

impl Wanted {
    /// From now on these are what an author lacks, the first before the others; false where not all have room, as long as
    /// [`limits::WANTED_POSTS_MAX`] are wanted.
    pub fn want(&mut self, author: &mut Author, lacking: Vec<Missing>) -> bool {
        for missing in std::mem::take(&mut author.missing) {
            self.0.remove(&missing.id);
        }
        let count = lacking.len();
        let node = author.node;
        let fits = lacking.into_iter();
        let fits = fits.take_while(|missing| self.insert(missing.id, node));
        author.missing = fits.collect();
        author.missing.len() == count
    }

    /// Whether there is room for what many authors lack.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.len() < limits::WANTED_POSTS_MAX / 4 * 3
    }

    /// Wants a post of this author; false when [`limits::WANTED_POSTS_MAX`] are wanted already.
    fn insert(&mut self, id: PostId, author: NodeId) -> bool {
        if self.0.len() >= limits::WANTED_POSTS_MAX && !self.0.contains_key(&id) {
            return false;
        }
        self.0.insert(id, author);
        true
    }

    /// Whose list names it, if it is wanted.
    #[must_use]
    pub fn author_of(&self, id: &PostId) -> Option<NodeId> {
        self.0.get(id).copied()
    }

    /// It came, or is not wanted any more.
    pub fn remove(&mut self, id: &PostId) -> Option<NodeId> {
        self.0.remove(id)
    }

    /// Forgets everything of an author.
    pub fn forget_author(&mut self, author: &NodeId) {
        self.0.retain(|_, by| by != author);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// While the disk is too full for what is worth least, that is not taken in, or it would come and go for ever. What is worth as much
/// as the last that went is taken in once.
#[derive(Resource, Debug, Default)]
pub struct KeepFloor {
    /// What is worth less has no place: the most that went was worth, or the least that is kept, whichever is less. `None` where there
    /// is room for all.
    pub least: Option<KeepPriority>,
    /// What went, with what it would have been worth when it came. Whoever it comes from again may be its only known holder, which
    /// makes it worth more than what it went for.
    gone: BTreeMap<PostId, KeepPriority>,
    forgotten: Option<Forgotten>,
}

/// What would go next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstToGo {
    /// Which.
    pub id: PostId,
    /// What it is worth.
    pub worth: KeepPriority,
    /// What it would be worth if it came now.
    pub came: KeepPriority,
}

/// What went and is remembered no more.
#[derive(Clone, Copy, Debug)]
struct Forgotten {
    /// None of it was worth more, or as much with a greater id.
    last: (KeepPriority, PostId),
    /// All of it was written by then: seconds since the epoch.
    until_s: u32,
}

impl KeepFloor {
    /// Whether a post of this worth has a place.
    #[must_use]
    pub fn admits(&self, id: &PostId, worth: KeepPriority, written_s: u32) -> bool {
        let may_be_forgotten = |forgotten: &Forgotten| {
            written_s <= forgotten.until_s && (worth, *id) <= forgotten.last
        };
        self.least.is_none_or(|least| worth >= least)
            && self.gone.get(id).is_none_or(|before| worth > *before)
            && !self.forgotten.as_ref().is_some_and(may_be_forgotten)
    }

    /// A start on a full disk: what went before was worth no more than the first to go now, and written by a time, in seconds since
    /// the epoch.
    pub fn begin(&mut self, first: FirstToGo, until_s: u32) {
        self.least = Some(first.worth.min(first.came));
        self.forgotten = Some(Forgotten {
            last: (first.came, first.id),
            until_s,
        });
    }

    /// A post goes, which came with one worth and had another. Past [`limits::GONE_POSTS_MAX`] half are forgotten, the least worth first.
    pub fn let_go(&mut self, id: PostId, came: KeepPriority, went: KeepPriority, now_s: u32) {
        self.least = self.least.max(Some(went));
        self.gone.insert(id, came);
        if self.gone.len() <= limits::GONE_POSTS_MAX {
            return;
        }
        let gone = std::mem::take(&mut self.gone).into_iter();
        let mut by_worth: Vec<_> = gone.map(|(id, came)| (came, id)).collect();
        by_worth.sort_unstable();
        let kept = by_worth.split_off(by_worth.len() / 2);
        self.gone = kept.into_iter().map(|(came, id)| (id, came)).collect();
        let before = self.forgotten.map(|forgotten| forgotten.last);
        let last = by_worth.pop().max(before);
        self.forgotten = last.map(|last| Forgotten {
            last,
            until_s: now_s,
        });
    }

    /// What was worth less than what is kept is worth more by now, where this is the first to go; true where that lowers it.
    pub fn fall_to(&mut self, first: FirstToGo) -> bool {
        let falls = self.least.is_some_and(|least| first.worth < least);
        if falls {
            self.least = Some(first.worth);
        }
        // By what it would be worth when it came, as what is forgotten was: with its copies it is worth less than that.
        let place = (first.came, first.id);
        let forgotten = self.forgotten.as_mut().filter(|it| place < it.last);
        let is_less_forgotten = forgotten.is_some();
        if let Some(forgotten) = forgotten {
            forgotten.last = place;
        }
        falls || is_less_forgotten
    }

    /// There is room for all.
    pub fn end(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::keep_order::Candidate;

    fn worth(copies: u8) -> KeepPriority {
        let candidate = Candidate {
            id: PostId::from_bytes([0; 32]),
            entity: Entity::PLACEHOLDER,
            bytes: 0,
            standing: AuthorStanding::Followed,
            written_s: 0,
            hearted_s: None,
            copies,
            is_pinned: false,
        };
        candidate.facts(0).priority()
    }

    #[test]
    fn what_has_no_room_among_the_wanted_is_said_and_what_is_lacked_no_more_makes_room() {
        let lacking = |from: usize, count: usize| -> Vec<Missing> {
            let ids = (from..from + count).map(|number| {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&(number as u64).to_be_bytes());
                PostId::from_bytes(id)
            });
            ids.map(|id| Missing {
                id,
                created_at_s: 0,
            })
            .collect()
        };
        let mut wanted = Wanted::default();
        let [mut one, mut other] = [1, 2].map(|node| Author::new(NodeId::from_bytes([node; 32])));
        let most = limits::WANTED_POSTS_MAX;
        assert!(wanted.want(&mut one, lacking(0, most - 10)));
        assert!(!wanted.has_room());
        assert!(!wanted.want(&mut other, lacking(most, 20)));
        assert_eq!((other.missing.len(), wanted.len()), (10, most));
        assert!(wanted.want(&mut one, lacking(5, 3)));
        assert!(wanted.has_room() && wanted.want(&mut other, lacking(most, 20)));
        assert_eq!(wanted.len(), 23);
    }

    #[test]
    fn what_went_for_its_copies_does_not_come_back_for_having_fewer() {
        let mut floor = KeepFloor::default();
        let id = |number: u64| {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            PostId::from_bytes(id)
        };
        let (gone, new) = (id(1), id(2));
        assert!(floor.admits(&gone, worth(1), 0));
        floor.let_go(gone, worth(1), worth(3), 100);
        assert!(!floor.admits(&gone, worth(1), 0) && floor.admits(&new, worth(1), 0));
        assert!(!floor.admits(&id(0), worth(4), 0));
        assert!(floor.admits(&id(0), worth(3), 0), "it is worth as much");
        let first = |copies: u8, came: u8, id: PostId| FirstToGo {
            id,
            worth: worth(copies),
            came: worth(came),
        };
        assert!(!floor.fall_to(first(2, 1, new)));
        assert!(floor.fall_to(first(4, 1, new)) && floor.admits(&id(0), worth(4), 0));
        assert!(
            floor.admits(&gone, worth(0), 0),
            "it is worth more than it was"
        );
        // What is forgotten of what went keeps out what may have been of it, and nothing else.
        let most = limits::GONE_POSTS_MAX as u64;
        for number in 10..10 + most {
            floor.let_go(id(number), worth(1), worth(1), 200);
        }
        assert!(floor.gone.len() <= limits::GONE_POSTS_MAX);
        let gone = (10..10 + most).chain([1]);
        let comes_back = |id: &PostId| floor.admits(id, worth(1), 200);
        assert_eq!(gone.map(id).filter(comes_back).count(), 0);
        assert!(!floor.admits(&id(5), worth(1), 200) && floor.admits(&id(5), worth(1), 201));
        assert!(floor.admits(&id(5), worth(0), 200) && floor.admits(&id(most * 2), worth(1), 200));
        // What it is worth for its copies opens no way back for what went for its own.
        let last = id(most * 2);
        assert!(floor.fall_to(first(3, 1, last)) && !floor.admits(&id(5), worth(1), 200));
        assert!(floor.fall_to(first(3, 3, new)) && floor.admits(&id(5), worth(2), 200));
        // A start on a full disk remembers nothing.
        floor.begin(first(3, 3, id(7)), 300);
        assert!(!floor.admits(&id(6), worth(3), 300) && floor.admits(&id(6), worth(3), 301));
        assert!(floor.admits(&id(8), worth(3), 300) && !floor.admits(&id(8), worth(4), 301));
        floor.end();
        assert!(floor.admits(&id(1), worth(20), 0));
    }
}
