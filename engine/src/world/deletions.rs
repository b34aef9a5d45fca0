//! What authors took back (PROTOCOL sections 7 and 9): it is dropped wherever it is seen, and nothing brings it back.

use crate::domain::{Deletion, NodeId, PostId};
use crate::limits;
use crate::refusal::Refusal;
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// By what a deletion is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// The author's verified list says so, as long as it names it.
    List,
    /// The author's own record of it, which lies on the disk.
    Record,
}

/// Deleted posts by author.
#[derive(Resource, Debug, Default)]
pub struct Deletions {
    by_author: BTreeMap<NodeId, BTreeMap<PostId, Proof>>,
    /// How many authors' own records of a post are here; none is left out.
    records: BTreeMap<PostId, u32>,
    count: usize,
}

impl Deletions {
    /// Whether an author took this post back.
    #[must_use]
    pub fn contains(&self, author: &NodeId, post: &PostId) -> bool {
        let of_author = self.by_author.get(author);
        of_author.is_some_and(|posts| posts.contains_key(post))
    }

    /// Whether the author's own record of it is here.
    #[must_use]
    pub fn has_record(&self, author: &NodeId, post: &PostId) -> bool {
        let of_author = self.by_author.get(author);
        of_author.is_some_and(|posts| posts.get(post) == Some(&Proof::Record))
    }

    /// Whether any author's own record of a post is here.
    #[must_use]
    pub fn has_any_record(&self, post: &PostId) -> bool {
        self.records.contains_key(post)
    }

    /// An author took a post back, and this proves it.
    ///
    /// # Errors
    /// [`Refusal::Stale`] where it is proved as well already, [`Refusal::Full`] past [`limits::DELETIONS_PER_AUTHOR_MAX`] or
    /// [`limits::DELETIONS_MAX`].
    pub fn insert(&mut self, author: NodeId, post: PostId, proof: Proof) -> Result<(), Refusal> {
        let of_author = self.by_author.entry(author).or_default();
        if let Some(known) = of_author.get_mut(&post) {
            if proof <= *known {
                return Err(Refusal::Stale);
            }
            *known = proof;
            self.count_record(post, proof);
            return Ok(());
        }
        let is_full = of_author.len() >= limits::DELETIONS_PER_AUTHOR_MAX
            || self.count >= limits::DELETIONS_MAX;
        if is_full {
            return Err(Refusal::Full);
        }
        of_author.insert(post, proof);
        self.count += 1;
        self.count_record(post, proof);
        Ok(())
    }

    fn count_record(&mut self, post: PostId, proof: Proof) {
        if proof == Proof::Record {
            *self.records.entry(post).or_default() += 1;
        }
    }

    /// The author is kept no more.
    pub fn forget_author(&mut self, author: &NodeId) {
        let gone = self.by_author.remove(author).unwrap_or_default();
        self.count -= gone.len();
        let records = gone.iter().filter(|(_, proof)| **proof == Proof::Record);
        for (post, _) in records {
            if let Entry::Occupied(mut of_post) = self.records.entry(*post) {
                *of_post.get_mut() -= 1;
                if *of_post.get() == 0 {
                    of_post.remove();
                }
            }
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Deletions that came in this frame, by whatever way.
#[derive(Resource, Debug, Default)]
pub struct DeletionOffers(pub Vec<Deletion>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn so_many_of_an_author_and_no_more() {
        let mut deletions = Deletions::default();
        let author = NodeId::from_bytes([1; 32]);
        let post = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            PostId::from_bytes(bytes)
        };
        for number in 0..limits::DELETIONS_PER_AUTHOR_MAX as u32 {
            assert_eq!(deletions.insert(author, post(number), Proof::List), Ok(()));
        }
        let again = deletions.insert(author, post(0), Proof::List);
        assert_eq!(again, Err(Refusal::Stale));
        let better = deletions.insert(author, post(0), Proof::Record);
        assert_eq!(better, Ok(()));
        let past = post(limits::DELETIONS_PER_AUTHOR_MAX as u32);
        assert_eq!(
            deletions.insert(author, past, Proof::List),
            Err(Refusal::Full)
        );
        let other = NodeId::from_bytes([2; 32]);
        assert!(!deletions.contains(&other, &post(0)), "only that author's");
        deletions.forget_author(&author);
        assert!(deletions.is_empty());
    }

    proptest! {
        #[test]
        fn records_of_a_post_are_known_as_if_every_author_were_looked_at(
            steps in proptest::collection::vec((0..4u8, 0..4u8, 0..3u8), 1..60),
        ) {
            let mut deletions = Deletions::default();
            for (author, post, step) in steps {
                let author = NodeId::from_bytes([author; 32]);
                let post = PostId::from_bytes([post; 32]);
                match step {
                    0 => deletions.forget_author(&author),
                    1 => _ = deletions.insert(author, post, Proof::List),
                    _ => _ = deletions.insert(author, post, Proof::Record),
                }
                for post in (0..4).map(|post| PostId::from_bytes([post; 32])) {
                    let mut authors = deletions.by_author.keys();
                    let is_there = authors.any(|author| deletions.has_record(author, &post));
                    prop_assert_eq!(deletions.has_any_record(&post), is_there);
                }
            }
            let records = deletions.records.values().map(|count| *count as usize);
            prop_assert!(records.sum::<usize>() <= deletions.len());
        }
    }
}
