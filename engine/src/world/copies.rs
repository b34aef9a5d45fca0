//! Who else holds a file, by what was seen (PROTOCOL section 7, peer_copies; open question 3): verified bytes came from them, not a
//! claim. What is worth much is not let go for what was seen once: two of them are asked again first.

use crate::domain::{NodeId, PEER_COPIES_MAX, PostId, Prefix, Scope};
use crate::limits;
use bevy_ecs::prelude::Resource;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// A holder counts for so long after bytes came from it.
pub const COPY_COUNTS_S: u32 = 7 * 24 * 60 * 60;
/// What holders have proved again counts for so long.
pub const PROOF_COUNTS_S: u32 = 24 * 60 * 60;

/// A network that a holder is in, or the holder itself where networks say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HolderKey(u64);

/// Somebody from whom bytes of a file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Who.
    pub node: NodeId,
    key: HolderKey,
}

impl Holder {
    /// A peer that is seen at an address: one counts in its /24 (IPv6 /48), or by itself in the development scope.
    #[must_use]
    pub fn of(node: NodeId, ip: IpAddr) -> Self {
        let of_bytes = |bytes: &[u8]| {
            let bytes = bytes.iter().take(8);
            HolderKey(bytes.fold(0, |key, byte| key << 8 | u64::from(*byte)))
        };
        let key = match Scope::of(ip).is_local() {
            true => of_bytes(node.as_bytes()),
            false => of_bytes(&Prefix::of(ip).to_bytes()),
        };
        Self { node, key }
    }
}

/// What is known of the copies of one file.
#[derive(Debug, Default)]
struct OfFile {
    /// Holders, and when something came from each: seconds since the epoch.
    holders: Vec<(Holder, u32)>,
    /// Until when whoever brought it counts, whose name a start forgot: seconds since the epoch; 0 for nobody.
    brought_until_s: u32,
    /// What was seen does not count until two have proved it again.
    in_doubt: bool,
    /// When they did.
    proved_s: Option<u32>,
    /// Who has, since it is in doubt.
    proofs: BTreeSet<HolderKey>,
    /// When holders were last asked: seconds since the epoch.
    asked_s: Option<u32>,
}

impl OfFile {
    fn count(&self) -> u8 {
        match self.in_doubt {
            true => 0,
            false => (self.holders.len() as u8).max(u8::from(self.brought_until_s > 0)),
        }
    }
}

/// Holders by file.
#[derive(Resource, Debug, Default)]
pub struct Copies {
    files: BTreeMap<PostId, OfFile>,
    /// Files in doubt whose holders are still to be asked.
    wanted: BTreeSet<PostId>,
}

impl Copies {
    /// A file that was here before a start came from somebody, at the earliest when it was written: they count as long as they surely
    /// do. Else all that is here would be worth more than whatever comes.
    pub fn restore(&mut self, post: PostId, written_s: u32) {
        let of = self.files.entry(post).or_default();
        of.brought_until_s = written_s.saturating_add(COPY_COUNTS_S);
    }

    /// Verified bytes of a file came; true where that changes how many count.
    pub fn saw(&mut self, post: PostId, holder: Holder, now_s: u32) -> bool {
        let of = self.files.entry(post).or_default();
        let before = of.count();
        let mut known = of.holders.iter();
        match known.position(|(known, _)| known.key == holder.key) {
            Some(place) => of.holders[place] = (holder, now_s),
            None if of.holders.len() >= usize::from(PEER_COPIES_MAX) => {}
            None => of.holders.push((holder, now_s)),
        }
        of.count() != before
    }

    /// How many count, as of the last [`turn`](Self::turn).
    #[must_use]
    pub fn count(&self, post: &PostId) -> u8 {
        self.files.get(post).map_or(0, OfFile::count)
    }

    /// Whether copies that were seen stand behind a file's going, and have not been proved again of late.
    #[must_use]
    pub fn is_unproved(&self, post: &PostId, now_s: u32) -> bool {
        self.files.get(post).is_some_and(|of| {
            let proved = of
                .proved_s
                .is_some_and(|at_s| now_s.saturating_sub(at_s) < PROOF_COUNTS_S);
            of.count() > 0 && !proved
        })
    }

    /// What was seen of a file's copies does not count until two holders have proved it again.
    pub fn doubt(&mut self, post: PostId) {
        let Some(of) = self.files.get_mut(&post) else {
            return;
        };
        of.in_doubt = true;
        of.proofs.clear();
        if self.wanted.len() < limits::PROOFS_WANTED_MAX {
            self.wanted.insert(post);
        }
    }

    /// Takes a file whose holders are to be asked, with these.
    pub fn take_doubted(&mut self, now_s: u32) -> Option<(PostId, Vec<NodeId>)> {
        let post = self.wanted.pop_first()?;
        let Some(of) = self.files.get_mut(&post) else {
            return Some((post, Vec::new()));
        };
        of.asked_s = Some(now_s);
        let holders = of.holders.iter().map(|(holder, _)| holder.node);
        Some((post, holders.collect()))
    }

    /// Whether any holder is to be asked.
    #[must_use]
    pub fn has_doubted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// A holder has proved that it has the file, or has not; true where that changes how many count.
    pub fn proved(&mut self, post: PostId, holder: Holder, has_it: bool, now_s: u32) -> bool {
        if !has_it {
            let Some(of) = self.files.get_mut(&post) else {
                return false;
            };
            let before = of.count();
            of.holders.retain(|(known, _)| known.node != holder.node);
            return of.count() != before;
        }
        let changed = self.saw(post, holder, now_s);
        let Some(of) = self.files.get_mut(&post).filter(|of| of.in_doubt) else {
            return changed;
        };
        of.proofs.insert(holder.key);
        if of.proofs.len() >= limits::PROOFS_OF_COPIES {
            of.in_doubt = false;
            of.proved_s = Some(now_s);
        }
        of.count() > 0
    }

    /// Forgets holders from which nothing came for too long; gives back the files that have fewer now. Holders of what is still in
    /// doubt are to be asked again a day after they were.
    pub fn turn(&mut self, now_s: u32) -> Vec<PostId> {
        let mut fewer = Vec::new();
        let wanted = &mut self.wanted;
        self.files.retain(|post, of| {
            let before = of.count();
            of.holders
                .retain(|(_, seen_s)| now_s.saturating_sub(*seen_s) < COPY_COUNTS_S);
            if of.brought_until_s <= now_s {
                of.brought_until_s = 0;
            }
            if of.count() < before {
                fewer.push(*post);
            }
            let is_due = of
                .asked_s
                .is_none_or(|at_s| now_s.saturating_sub(at_s) >= PROOF_COUNTS_S);
            if of.in_doubt && is_due && wanted.len() < limits::PROOFS_WANTED_MAX {
                wanted.insert(*post);
            }
            !of.holders.is_empty() || of.brought_until_s > 0
        });
        fewer
    }

    /// The file is gone.
    pub fn forget(&mut self, post: &PostId) {
        self.files.remove(post);
        self.wanted.remove(post);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: PostId = PostId::from_bytes([1; 32]);

    fn holder(number: u8) -> Holder {
        Holder::of(
            NodeId::from_bytes([number; 32]),
            IpAddr::from([203, 0, number, 7]),
        )
    }

    #[test]
    fn a_network_counts_once_and_no_more_than_twenty_do() {
        let mut copies = Copies::default();
        assert!(copies.saw(POST, holder(1), 0));
        assert!(!copies.saw(POST, holder(1), 10));
        let neighbour = Holder::of(NodeId::from_bytes([9; 32]), IpAddr::from([203, 0, 1, 8]));
        assert!(!copies.saw(POST, neighbour, 10));
        assert_eq!(copies.count(&POST), 1);
        for number in 0..100 {
            copies.saw(POST, holder(number), 20);
        }
        assert_eq!(copies.count(&POST), PEER_COPIES_MAX);
    }

    #[test]
    fn what_was_seen_counts_for_a_week() {
        let mut copies = Copies::default();
        let other = PostId::from_bytes([2; 32]);
        copies.saw(POST, holder(1), 0);
        copies.saw(POST, holder(2), 100);
        copies.saw(other, holder(1), 100);
        assert!(copies.turn(COPY_COUNTS_S - 1).is_empty());
        assert_eq!(copies.turn(COPY_COUNTS_S), [POST]);
        assert_eq!((copies.count(&POST), copies.count(&other)), (1, 1));
        copies.forget(&POST);
        assert_eq!(copies.count(&POST), 0);
    }

    #[test]
    fn whoever_brought_it_before_a_start_counts_as_one_for_a_week() {
        let mut copies = Copies::default();
        copies.restore(POST, 100);
        assert!(copies.turn(200).is_empty());
        assert_eq!(copies.count(&POST), 1);
        assert!(!copies.saw(POST, holder(1), 200), "it may be the same");
        assert!(copies.saw(POST, holder(2), 200));
        assert_eq!(copies.count(&POST), 2);
        let other = PostId::from_bytes([2; 32]);
        copies.restore(other, 100);
        assert!(copies.is_unproved(&other, 200));
        assert!(copies.turn(99 + COPY_COUNTS_S).is_empty());
        assert_eq!(copies.turn(100 + COPY_COUNTS_S), [other]);
        assert_eq!((copies.count(&POST), copies.count(&other)), (2, 0));
        copies.restore(other, 100);
        copies.doubt(other);
        assert_eq!(copies.count(&other), 0);
    }

    #[test]
    fn in_doubt_nothing_counts_until_two_have_proved_it() {
        let mut copies = Copies::default();
        for number in 1..=3 {
            copies.saw(POST, holder(number), 0);
        }
        assert!(copies.is_unproved(&POST, 5));
        copies.doubt(POST);
        assert_eq!(copies.count(&POST), 0);
        assert!(!copies.saw(POST, holder(4), 5), "nor does what is seen now");
        let (post, asked) = copies.take_doubted(5).unwrap();
        assert_eq!((post, asked.len()), (POST, 4));
        assert!(!copies.has_doubted());
        assert!(!copies.proved(POST, holder(1), true, 10));
        assert!(!copies.proved(POST, holder(1), true, 10), "twice is once");
        copies.turn(4 + PROOF_COUNTS_S);
        assert!(!copies.has_doubted());
        copies.turn(5 + PROOF_COUNTS_S);
        assert!(copies.has_doubted(), "they are asked again a day later");
        assert!(copies.take_doubted(10).is_some());
        assert!(!copies.proved(POST, holder(2), false, 10));
        assert!(copies.proved(POST, holder(9), true, 10));
        assert_eq!(copies.count(&POST), 4, "who had nothing is forgotten");
        assert!(!copies.is_unproved(&POST, 11));
        assert!(copies.is_unproved(&POST, 10 + PROOF_COUNTS_S));
    }

    #[test]
    fn so_many_wait_to_be_proved() {
        let mut copies = Copies::default();
        for number in 0..2 * limits::PROOFS_WANTED_MAX {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let post = PostId::from_bytes(bytes);
            copies.saw(post, holder(1), 0);
            copies.doubt(post);
        }
        assert_eq!(copies.wanted.len(), limits::PROOFS_WANTED_MAX);
    }
}
