//! Who else holds a file, by what was seen (PROTOCOL section 7, peer_copies; open question 3): verified bytes came from them, not a
//! claim.

use crate::domain::{NodeId, PEER_COPIES_MAX, PostId, Prefix, Scope};
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A holder counts for so long after bytes came from it.
pub const COPY_COUNTS_S: u32 = 7 * 24 * 60 * 60;

/// A network that a holder is in, or the holder itself where networks say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderKey(pub u64);

impl HolderKey {
    /// Of a peer that is seen at an address: its /24 (IPv6 /48), or itself in the development scope.
    #[must_use]
    pub fn of(node: &NodeId, ip: IpAddr) -> Self {
        let of_bytes = |bytes: &[u8]| {
            let bytes = bytes.iter().take(8);
            Self(bytes.fold(0, |key, byte| key << 8 | u64::from(*byte)))
        };
        match Scope::of(ip).is_local() {
            true => of_bytes(node.as_bytes()),
            false => of_bytes(&Prefix::of(ip).to_bytes()),
        }
    }
}

/// Holders by file.
#[derive(Resource, Debug, Default)]
pub struct Copies(BTreeMap<PostId, Vec<(HolderKey, u32)>>);

impl Copies {
    /// Verified bytes of a file came; true where that changes how many count.
    pub fn saw(&mut self, post: PostId, holder: HolderKey, now_s: u32) -> bool {
        let holders = self.0.entry(post).or_default();
        if let Some((_, seen_s)) = holders.iter_mut().find(|(key, _)| *key == holder) {
            *seen_s = now_s;
            return false;
        }
        if holders.len() >= usize::from(PEER_COPIES_MAX) {
            return false;
        }
        holders.push((holder, now_s));
        true
    }

    /// How many count, as of the last [`turn`](Self::turn).
    #[must_use]
    pub fn count(&self, post: &PostId) -> u8 {
        self.0.get(post).map_or(0, |holders| holders.len() as u8)
    }

    /// Forgets holders from which nothing came for too long; gives back the files that have fewer now.
    pub fn turn(&mut self, now_s: u32) -> Vec<PostId> {
        let mut fewer = Vec::new();
        self.0.retain(|post, holders| {
            let before = holders.len();
            holders.retain(|(_, seen_s)| now_s.saturating_sub(*seen_s) < COPY_COUNTS_S);
            if holders.len() < before {
                fewer.push(*post);
            }
            !holders.is_empty()
        });
        fewer
    }

    /// The file is gone.
    pub fn forget(&mut self, post: &PostId) {
        self.0.remove(post);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_counts_once_and_no_more_than_twenty_do() {
        let mut copies = Copies::default();
        let post = PostId::from_bytes([1; 32]);
        assert!(copies.saw(post, HolderKey(1), 0));
        assert!(!copies.saw(post, HolderKey(1), 10));
        assert_eq!(copies.count(&post), 1);
        for number in 0..100 {
            copies.saw(post, HolderKey(number), 20);
        }
        assert_eq!(copies.count(&post), PEER_COPIES_MAX);
    }

    #[test]
    fn what_was_seen_counts_for_a_week() {
        let mut copies = Copies::default();
        let [one, other] = [1, 2].map(|number| PostId::from_bytes([number; 32]));
        copies.saw(one, HolderKey(1), 0);
        copies.saw(one, HolderKey(2), 100);
        copies.saw(other, HolderKey(1), 100);
        assert!(copies.turn(COPY_COUNTS_S - 1).is_empty());
        assert_eq!(copies.turn(COPY_COUNTS_S), [one]);
        assert_eq!((copies.count(&one), copies.count(&other)), (1, 1));
        copies.forget(&one);
        assert_eq!(copies.count(&one), 0);
    }
}
