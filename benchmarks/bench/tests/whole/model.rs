//! What every stored file is worth, by PROTOCOL section 7 and by what the node was told, computed here a second time.

use distsoc_engine::domain::{BlobRef, Heart, NodeId, PostId, SignedPost};
use distsoc_engine::io::Restored;
use std::collections::{BTreeMap, BTreeSet};

const HOUR_S: u32 = 3_600;
const DAY_S: u32 = 24 * HOUR_S;
/// Holders count for so long.
const WEEK_S: u32 = 7 * DAY_S;
/// Whole for every number of copies: the least common multiple of 1 to 21.
const SCALE: u64 = 232_792_560;

/// A file that the node has.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) author: NodeId,
    pub(crate) written_s: u32,
    pub(crate) body_bytes: u64,
    pub(crate) blobs: Vec<BlobRef>,
    pub(crate) is_pinned: bool,
    /// Who gave verified bytes of it, and when last.
    holders: BTreeMap<NodeId, u32>,
    /// Until when whoever brought it counts, whose name a start forgot: seconds since the epoch; 0 for nobody.
    brought_until_s: u32,
    /// It names a blob that others name too: for which of them a holder's bytes count is left open.
    pub(crate) is_shared: bool,
}

/// What it comes to, with the facts for whoever reads a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worth {
    /// The least and the most that it may be.
    pub(crate) least: u64,
    pub(crate) most: u64,
    relationship: u64,
    hearted: u64,
    written: u64,
    pub(crate) copies: u64,
    is_pinned: bool,
}

#[derive(Debug, Default)]
struct Liked {
    /// Person → time, whether given.
    words: BTreeMap<NodeId, (u64, bool)>,
    counted: BTreeMap<NodeId, u32>,
}

/// All that decides.
#[derive(Debug)]
pub(crate) struct Model {
    own: NodeId,
    pub(crate) files: BTreeMap<PostId, File>,
    pub(crate) followed: BTreeSet<NodeId>,
    liked: BTreeMap<PostId, Liked>,
    /// Author → who reported a heart that counts → which.
    reported: BTreeMap<NodeId, BTreeMap<NodeId, (PostId, NodeId)>>,
    turned_ms: Option<u64>,
}

fn recency(age_s: u32) -> u64 {
    match age_s {
        0..259_200 => 100,
        age if age < 14 * DAY_S => 50,
        age if age < 45 * DAY_S => 25,
        age if age < 90 * DAY_S => 12,
        age if age < 365 * DAY_S => 6,
        age if age < 4 * 365 * DAY_S => 3,
        _ => 1,
    }
}

impl Model {
    pub(crate) fn new(own: NodeId) -> Self {
        Self {
            own,
            files: BTreeMap::new(),
            followed: BTreeSet::new(),
            liked: BTreeMap::new(),
            reported: BTreeMap::new(),
            turned_ms: None,
        }
    }

    pub(crate) fn add(&mut self, post: &SignedPost, from: Option<NodeId>, now_s: u32) {
        let body = post.body();
        let file = File {
            author: body.author,
            written_s: (body.created_at_ms / 1000) as u32,
            body_bytes: post.bytes().body.len() as u64,
            blobs: body.blobs.iter().copied().collect(),
            is_pinned: false,
            holders: from.into_iter().map(|node| (node, now_s)).collect(),
            brought_until_s: 0,
            is_shared: false,
        };
        self.files.insert(post.id(), file);
    }

    pub(crate) fn forget(&mut self, id: &PostId) {
        self.files.remove(id);
        self.liked.remove(id);
        for of in self.reported.values_mut() {
            of.retain(|_, (post, _)| post != id);
        }
    }

    /// Verified bytes of it came.
    pub(crate) fn saw(&mut self, id: &PostId, holder: NodeId, now_s: u32) {
        if let Some(file) = self.files.get_mut(id) {
            file.holders.insert(holder, now_s);
        }
    }

    /// Once an hour, holders of more than a week ago are forgotten.
    pub(crate) fn turn(&mut self, mono_ms: u64, now_s: u32) {
        let turned_ms = self.turned_ms;
        if turned_ms.is_none_or(|at_ms| mono_ms >= at_ms + 3_600_000) {
            self.turned_ms = Some(mono_ms);
            for file in self.files.values_mut() {
                file.holders
                    .retain(|_, seen_s| now_s.saturating_sub(*seen_s) < WEEK_S);
                if file.brought_until_s <= now_s {
                    file.brought_until_s = 0;
                }
            }
        }
    }

    /// A heart by somebody who is known, for a file that is here, brought by a peer.
    pub(crate) fn like(&mut self, heart: &Heart, reporter: NodeId) {
        let (id, person) = (heart.post, heart.person);
        let Some(file) = self.files.get(&id) else {
            return;
        };
        if file.author != heart.author || heart.seq / 1000 < u64::from(file.written_s) {
            return;
        }
        let word = (heart.seq, heart.is_given());
        let liked = self.liked.entry(id).or_default();
        let known = liked.words.get(&person);
        if known.is_none_or(|known| known.0 < word.0) {
            liked.words.insert(person, word);
            liked.counted.remove(&person);
            let of = self.reported.entry(heart.author).or_default();
            of.retain(|_, counted| *counted != (id, person));
        }
        self.count(id, person, heart.author, reporter);
    }

    /// The newest for each author and peer that brought any, and all of the person's own.
    fn count(&mut self, id: PostId, person: NodeId, author: NodeId, reporter: NodeId) {
        let liked = self.liked.entry(id).or_default();
        let of = self.reported.entry(author).or_default();
        let (seq, given) = liked.words[&person];
        if !given || liked.counted.contains_key(&person) {
            return;
        }
        let before = of.get(&reporter).copied();
        if person != self.own {
            let newest = |(post, by): &(PostId, NodeId)| self.liked[post].words[by].0;
            if before.as_ref().is_some_and(|before| newest(before) >= seq) {
                return;
            }
            of.insert(reporter, (id, person));
            if let Some((post, by)) = before {
                let liked = self.liked.get_mut(&post).expect("it is counted");
                liked.counted.remove(&by);
            }
        }
        let liked = self.liked.entry(id).or_default();
        liked.counted.insert(person, (seq / 1000) as u32);
    }

    /// How many hearts count for an author.
    fn hearts_of(&self, author: &NodeId) -> usize {
        let reported = self.reported.get(author).map_or(0, BTreeMap::len);
        let own = self.liked.iter().any(|(id, liked)| {
            let is_by = self
                .files
                .get(id)
                .is_some_and(|file| file.author == *author);
            is_by && liked.counted.contains_key(&self.own)
        });
        reported + usize::from(own)
    }

    /// Whether a person's heart for a post is given, as far as the node knows.
    pub(crate) fn is_given(&self, id: &PostId, person: &NodeId) -> bool {
        let liked = self.liked.get(id);
        liked.is_some_and(|liked| liked.words.get(person).is_some_and(|word| word.1))
    }

    /// What is left of it after a start: what the disk held.
    pub(crate) fn restored(restored: &Restored, own: NodeId) -> Self {
        let mut model = Self::new(own);
        for row in &restored.files {
            let file = File {
                author: row.author,
                written_s: row.created_at_s,
                body_bytes: u64::from(row.bytes),
                blobs: row.blobs.to_vec(),
                is_pinned: row.is_pinned,
                holders: BTreeMap::new(),
                brought_until_s: row.created_at_s + WEEK_S,
                is_shared: false,
            };
            model.files.insert(row.id, file);
        }
        let relations = restored.relationships.iter();
        let known: BTreeSet<NodeId> = relations.clone().map(|(node, _)| *node).collect();
        let follows = relations.filter(|(_, known)| known.followed_since_ms.is_some());
        model.followed = follows.map(|(node, _)| *node).collect();
        for (heart, _) in &restored.hearts {
            let (id, person) = (heart.post, heart.person);
            let word = (heart.seq, heart.is_given());
            let liked = model.liked.entry(id).or_default();
            liked.words.insert(person, word);
            // The word of somebody known counts; that of others once it is brought again.
            if person == own || known.contains(&person) {
                model.count(id, person, heart.author, person);
            }
        }
        model
    }

    pub(crate) fn worth(&self, id: &PostId, now_s: u32) -> Worth {
        let file = &self.files[id];
        let hearts = self.hearts_of(&file.author);
        let relationship = match hearts {
            _ if self.followed.contains(&file.author) => 8,
            0..=2 => 1,
            3 => 2,
            4..=10 => 3,
            _ => 5,
        };
        let counted = self.liked.get(id).map(|liked| liked.counted.values().max());
        let newest = counted.flatten();
        let hearted = newest.map_or(1, |at_s| recency(now_s.saturating_sub(*at_s)));
        let written = recency(now_s.saturating_sub(file.written_s));
        let brought = usize::from(file.brought_until_s > 0);
        let copies = file.holders.len().max(brought).min(20) as u64;
        let bonus = u64::from(file.is_pinned) * 99_999 * SCALE;
        let among = |copies: u64| {
            let plain = relationship * hearted * written * (SCALE / (copies + 1));
            plain + bonus
        };
        let (fewest, most) = match file.is_shared {
            true => (0, 20),
            false => (copies, copies),
        };
        Worth {
            least: among(most),
            most: among(fewest),
            relationship,
            hearted,
            written,
            copies,
            is_pinned: file.is_pinned,
        }
    }

    /// Files that may go, the first to go first, and those of which it is not known left out.
    pub(crate) fn order(&self, own: &NodeId, now_s: u32) -> Vec<(u64, PostId)> {
        let others = self.files.iter().filter(|(_, file)| file.author != *own);
        let sure = others.filter(|(_, file)| !file.is_shared);
        let worths = sure.map(|(id, _)| (self.worth(id, now_s).least, *id));
        let mut order: Vec<_> = worths.collect();
        order.sort_unstable();
        order
    }
}
