//! Who likes what (PROTOCOL section 7): which hearts are kept, and which of them count towards keeping a file. Keys are free, so only
//! hearts by somebody who stands on the map near by or is kept are taken, and of those one for each author and peer that brought any
//! counts: the newest. The person's own all do.

use crate::domain::{Heart, HeartBody, NodeId, PostId};
use crate::io::LinkId;
use crate::limits;
use crate::refusal::Refusal;
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;

/// More than this many make no difference to an author's standing.
const COUNTED_MAX: usize = 11;

/// A person's last word on a post; the signed record lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// ms since the epoch.
    pub seq: u64,
    /// Whether the heart is given.
    pub is_given: bool,
    /// The first bytes of the record's hash.
    hash_head: u64,
}

impl Word {
    fn of(heart: &HeartBody, hash: &[u8; 32]) -> Self {
        let head = hash.first_chunk::<8>().expect("a hash is longer");
        Self {
            seq: heart.seq,
            is_given: heart.is_given(),
            hash_head: u64::from_be_bytes(*head),
        }
    }

    /// As [`crate::domain::Signed::supersedes`].
    fn supersedes(&self, known: &Self) -> Result<(), Refusal> {
        use std::cmp::Ordering;
        match (
            self.seq.cmp(&known.seq),
            self.hash_head.cmp(&known.hash_head),
        ) {
            (Ordering::Greater, _) | (Ordering::Equal, Ordering::Less) => Ok(()),
            (Ordering::Less, _) | (Ordering::Equal, Ordering::Equal) => Err(Refusal::Stale),
            (Ordering::Equal, Ordering::Greater) => Err(Refusal::Equivocation),
        }
    }
}

/// The hearts of one post.
#[derive(Debug)]
struct OfPost {
    author: NodeId,
    /// The last word of each person.
    by_person: BTreeMap<NodeId, Word>,
    /// When the newest that counts was given: seconds since the epoch, with whose it is.
    counted: BTreeMap<NodeId, u32>,
}

/// What counts towards an author's standing.
#[derive(Debug, Default)]
struct OfAuthor {
    /// Who brought hearts that count, and which: seq, for which post, by whom.
    by_reporter: BTreeMap<NodeId, (u64, PostId, NodeId)>,
    /// Hearts of the person's own.
    own: usize,
}

/// Hearts by post and by author.
#[derive(Resource, Debug, Default)]
pub struct Hearts {
    own: Option<NodeId>,
    by_post: BTreeMap<PostId, OfPost>,
    by_author: BTreeMap<NodeId, OfAuthor>,
    count: usize,
}

impl Hearts {
    /// None yet, on the machine of this person.
    #[must_use]
    pub fn new(own: NodeId) -> Self {
        Self {
            own: Some(own),
            ..Self::default()
        }
    }

    /// What a disk held; it counts once somebody brings it again, or is kept themselves.
    pub fn restore(&mut self, heart: &HeartBody, hash: &[u8; 32], counts: bool) {
        let reporter = counts.then_some(heart.person);
        // Rows of a disk are the newest of each person, and no more than may be kept.
        let _ = self.take_word(heart, Word::of(heart, hash), reporter);
    }

    /// Takes a heart for a post that is stored here. `reporter` is the peer that brought it, where it is to count by it. Gives back
    /// the posts for which something may have changed.
    ///
    /// # Errors
    /// [`Refusal::Stale`], [`Refusal::Equivocation`], or [`Refusal::Full`] past [`limits::HEARTS_PER_POST_MAX`] or [`limits::HEARTS_MAX`].
    pub fn take(
        &mut self,
        heart: &Heart,
        reporter: Option<NodeId>,
    ) -> Result<Vec<PostId>, Refusal> {
        self.take_word(heart, Word::of(heart, &heart.hash()), reporter)
    }

    fn take_word(
        &mut self,
        heart: &HeartBody,
        word: Word,
        reporter: Option<NodeId>,
    ) -> Result<Vec<PostId>, Refusal> {
        let (post, person) = (heart.post, heart.person);
        let of_post = self.by_post.entry(post).or_insert_with(|| OfPost {
            author: heart.author,
            by_person: BTreeMap::new(),
            counted: BTreeMap::new(),
        });
        match of_post.by_person.get(&person) {
            Some(known) => word.supersedes(known)?,
            None => {
                let is_full = of_post.by_person.len() >= limits::HEARTS_PER_POST_MAX
                    || self.count >= limits::HEARTS_MAX;
                if is_full {
                    return Err(Refusal::Full);
                }
                self.count += 1;
            }
        }
        of_post.by_person.insert(person, word);
        // What was said before counts no more, or anew.
        self.uncount(&post, &person);
        let mut changed = vec![post];
        if let Some(reporter) = reporter.filter(|_| word.is_given) {
            changed.extend(self.count_by(&post, &person, reporter));
        }
        Ok(changed)
    }

    /// A heart that is here already was brought by somebody who had brought none for its author, or an older one: it counts now, and
    /// that one no more. Gives back the posts for which that changes something.
    pub fn count_by(&mut self, post: &PostId, person: &NodeId, reporter: NodeId) -> Vec<PostId> {
        let Some(of_post) = self.by_post.get_mut(post) else {
            return Vec::new();
        };
        let Some(word) = of_post.by_person.get(person).filter(|word| word.is_given) else {
            return Vec::new();
        };
        if of_post.counted.contains_key(person) {
            return Vec::new();
        }
        let (seq, given_s) = (word.seq, (word.seq / 1000) as u32);
        let of_author = self.by_author.entry(of_post.author).or_default();
        if self.own == Some(*person) {
            of_author.own += 1;
            of_post.counted.insert(*person, given_s);
            return vec![*post];
        }
        let before = of_author.by_reporter.get(&reporter).copied();
        if before.is_some_and(|(before, ..)| before >= seq) {
            return Vec::new();
        }
        of_author
            .by_reporter
            .insert(reporter, (seq, *post, *person));
        of_post.counted.insert(*person, given_s);
        let mut changed = vec![*post];
        if let Some((_, post, person)) = before
            && let Some(of_post) = self.by_post.get_mut(&post)
        {
            of_post.counted.remove(&person);
            changed.push(post);
        }
        changed
    }

    fn uncount(&mut self, post: &PostId, person: &NodeId) {
        let Some(of_post) = self.by_post.get_mut(post) else {
            return;
        };
        let counted = of_post.counted.remove(person);
        let of_author = self.by_author.get_mut(&of_post.author);
        if let Some(of_author) = of_author.filter(|_| counted.is_some()) {
            match self.own == Some(*person) {
                true => of_author.own -= 1,
                false => of_author
                    .by_reporter
                    .retain(|_, (_, at, by)| (&*at, &*by) != (post, person)),
            }
        }
    }

    /// How many count for an author; past eleven it makes no difference.
    #[must_use]
    pub fn of_author(&self, author: &NodeId) -> u32 {
        let count = |of: &OfAuthor| of.by_reporter.len() + usize::from(of.own > 0);
        let count = self.by_author.get(author).map_or(0, count);
        count.min(COUNTED_MAX) as u32
    }

    /// When a post got its newest heart that counts: seconds since the epoch.
    #[must_use]
    pub fn newest_s(&self, post: &PostId) -> Option<u32> {
        self.by_post.get(post)?.counted.values().max().copied()
    }

    /// A person's last word on a post.
    #[must_use]
    pub fn of(&self, post: &PostId, person: &NodeId) -> Option<Word> {
        self.by_post.get(post)?.by_person.get(person).copied()
    }

    /// How many people like a post.
    #[must_use]
    pub fn given(&self, post: &PostId) -> usize {
        let hearts = self.by_post.get(post);
        hearts.map_or(0, |of| {
            of.by_person.values().filter(|word| word.is_given).count()
        })
    }

    /// The post is not here any more.
    pub fn forget_post(&mut self, post: &PostId) {
        let Some(of_post) = self.by_post.remove(post) else {
            return;
        };
        self.count -= of_post.by_person.len();
        if let Some(of_author) = self.by_author.get_mut(&of_post.author) {
            let own = self.own.filter(|own| of_post.counted.contains_key(own));
            of_author.own -= usize::from(own.is_some());
            of_author.by_reporter.retain(|_, (_, at, _)| at != post);
            if of_author.own == 0 && of_author.by_reporter.is_empty() {
                self.by_author.remove(&of_post.author);
            }
        }
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Hearts that came in this frame beside posts, with the peer that brought them.
#[derive(Resource, Debug, Default)]
pub struct HeartOffers(pub Vec<(LinkId, Heart)>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::domain::{HeartBody, Signed};

    const POST: PostId = PostId::from_bytes([9; 32]);
    const AUTHOR: NodeId = NodeId::from_bytes([8; 32]);

    fn heart(person: u8, seq: u64, given: bool) -> Heart {
        let secret = Secret::from_seed(&[person; 32]);
        let body = HeartBody {
            person: secret.node_id(),
            author: AUTHOR,
            post: POST,
            seq,
            given: u8::from(given),
        };
        Signed::sign(body, &secret)
    }

    fn peer(number: u8) -> Option<NodeId> {
        Some(NodeId::from_bytes([number; 32]))
    }

    #[test]
    fn the_last_word_counts_and_a_replay_brings_nothing_back() {
        let mut hearts = Hearts::default();
        hearts.take(&heart(1, 5_000, true), peer(1)).unwrap();
        assert_eq!(hearts.newest_s(&POST), Some(5));
        hearts.take(&heart(1, 9_000, false), peer(1)).unwrap();
        assert_eq!((hearts.given(&POST), hearts.of_author(&AUTHOR)), (0, 0));
        assert_eq!(hearts.newest_s(&POST), None);
        let replayed = hearts.take(&heart(1, 5_000, true), peer(2));
        assert_eq!(replayed, Err(Refusal::Stale));
        assert_eq!(hearts.given(&POST), 0);
    }

    #[test]
    fn a_thousand_keys_by_one_peer_count_once() {
        let mut hearts = Hearts::default();
        for person in 0..200 {
            hearts.take(&heart(person, 5_000, true), peer(1)).unwrap();
        }
        assert_eq!((hearts.given(&POST), hearts.of_author(&AUTHOR)), (200, 1));
        // The same heart again, by another peer, counts by that one.
        let person = heart(7, 5_000, true).person;
        let by = |hearts: &mut Hearts, number| {
            hearts.count_by(&POST, &person, NodeId::from_bytes([number; 32]))
        };
        assert_eq!(by(&mut hearts, 2), [POST]);
        assert_eq!(hearts.of_author(&AUTHOR), 2);
        assert!(by(&mut hearts, 3).is_empty());
    }

    #[test]
    fn a_newer_heart_takes_the_place_of_what_the_same_peer_brought() {
        let mut hearts = Hearts::default();
        let other = PostId::from_bytes([7; 32]);
        let of_other = |person, seq| {
            let secret = Secret::from_seed(&[person; 32]);
            let body = HeartBody {
                post: other,
                ..HeartBody::clone(&heart(person, seq, true))
            };
            Signed::sign(body, &secret)
        };
        for reporter in 0..20 {
            let heart = heart(reporter, 5_000, true);
            hearts.take(&heart, peer(reporter)).unwrap();
        }
        assert_eq!(hearts.of_author(&AUTHOR), COUNTED_MAX as u32);
        // Whoever brought one before is heard on the next, however many there were.
        let taken = hearts.take(&of_other(30, 4_000), peer(3)).unwrap();
        assert_eq!((taken, hearts.newest_s(&other)), (vec![other], None));
        let taken = hearts.take(&of_other(31, 8_000), peer(3)).unwrap();
        assert_eq!(taken, [other, other, POST]);
        assert_eq!(hearts.newest_s(&other), Some(8));
        hearts.forget_post(&other);
        hearts.forget_post(&POST);
        assert!(hearts.is_empty() && hearts.by_author.is_empty());
    }

    #[test]
    fn the_own_hearts_all_count() {
        let own = heart(1, 1, true).person;
        let mut hearts = Hearts::new(own);
        let posts = [1, 2, 3].map(|number| PostId::from_bytes([number; 32]));
        let secret = Secret::from_seed(&[1; 32]);
        let by_own = |post, seq, given| {
            let body = HeartBody {
                post,
                ..HeartBody::clone(&heart(1, seq, given))
            };
            Signed::sign(body, &secret)
        };
        for post in posts {
            hearts.take(&by_own(post, 5_000, true), Some(own)).unwrap();
        }
        assert!(posts.iter().all(|post| hearts.newest_s(post) == Some(5)));
        assert_eq!(hearts.of_author(&AUTHOR), 1, "of one person");
        let taken_back = by_own(posts[0], 6_000, false);
        hearts.take(&taken_back, Some(own)).unwrap();
        assert_eq!(hearts.newest_s(&posts[0]), None);
        hearts.forget_post(&posts[1]);
        assert_eq!(hearts.of_author(&AUTHOR), 1);
        hearts.forget_post(&posts[2]);
        assert_eq!(hearts.of_author(&AUTHOR), 0);
    }

    #[test]
    fn no_more_are_kept_than_may_be() {
        let mut hearts = Hearts::default();
        let taken =
            (0..=255u8).filter(|person| hearts.take(&heart(*person, 1, true), None).is_ok());
        assert_eq!(taken.count(), limits::HEARTS_PER_POST_MAX.min(256));
        hearts.forget_post(&POST);
        assert!(hearts.is_empty());
        assert_eq!(hearts.of_author(&AUTHOR), 0);
    }
}
