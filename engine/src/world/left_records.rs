//! Records that nodes near in id leave with each other (PROTOCOL section 6): whoever is asked about the region of a target has
//! the target's own word, even if no path to it is left.

use crate::clock::Now;
use crate::domain::{AddressRecord, NodeId};
use crate::limits;
use crate::refusal::Refusal;
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
struct Left {
    record: AddressRecord,
    by: NodeId,
}

/// At most [`limits::LEFT_RECORDS_MAX`], those closest to the own id.
#[derive(Resource, Debug)]
pub struct LeftRecords {
    own: NodeId,
    records: BTreeMap<NodeId, Left>,
}

impl LeftRecords {
    /// None yet.
    #[must_use]
    pub fn new(own: NodeId) -> Self {
        Self {
            own,
            records: BTreeMap::new(),
        }
    }

    /// Keeps a record that a peer brings.
    ///
    /// # Errors
    /// [`Refusal::Stale`] for an old one, [`Refusal::Equivocation`], [`Refusal::Full`] where the peer has brought too many or
    /// everybody kept is closer.
    pub fn leave(&mut self, record: AddressRecord, by: NodeId, now: Now) -> Result<(), Refusal> {
        let node = record.node_id;
        if !record.is_current(now) || node == self.own {
            return Err(Refusal::Stale);
        }
        if let Some(known) = self.records.get_mut(&node) {
            record.supersedes(&known.record)?;
            *known = Left { record, by };
            return Ok(());
        }
        self.records.retain(|_, left| left.record.is_current(now));
        let brought = self.records.values().filter(|left| left.by == by).count();
        if brought >= limits::LEFT_RECORDS_PER_PEER_MAX {
            return Err(Refusal::Full);
        }
        if self.records.len() >= limits::LEFT_RECORDS_MAX {
            let farthest = self.records.keys().max_by_key(|id| self.own.distance(id));
            let farthest = *farthest.expect("it is full");
            if self.own.distance(&node) >= self.own.distance(&farthest) {
                return Err(Refusal::Full);
            }
            self.records.remove(&farthest);
        }
        self.records.insert(node, Left { record, by });
        Ok(())
    }

    /// The record of a node, if one was left and is good still.
    #[must_use]
    pub fn get(&self, node: &NodeId, now: Now) -> Option<&AddressRecord> {
        let left = self.records.get(node)?;
        left.record.is_current(now).then_some(&left.record)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::domain::{Address, AddressBody, Signed};
    use crate::wire::codec::Bounded;

    const NOW: Now = Now {
        mono_ms: 0,
        wall_ms: 1_700_000_000_000,
    };

    fn record(number: u16, seq: u64) -> AddressRecord {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_le_bytes());
        let secret = Secret::from_seed(&seed);
        let address = Address::new("8.8.8.8:4000".parse().unwrap()).unwrap();
        let body = AddressBody {
            node_id: secret.node_id(),
            addresses: Bounded::truncated(vec![address]),
            is_anchor: 0,
            seq,
            expiry_ms: seq + 3_600_000,
        };
        Signed::sign(body, &secret)
    }

    fn peer(number: u16) -> NodeId {
        NodeId::from_bytes(crate::crypto::hash(&number.to_le_bytes()))
    }

    #[test]
    fn the_closest_stay_and_no_peer_brings_many() {
        let own = peer(0);
        let mut left = LeftRecords::new(own);
        let mut all: Vec<NodeId> = Vec::new();
        for number in 0..400 {
            let record = record(number, NOW.wall_ms);
            all.push(record.node_id);
            let _ = left.leave(record, peer(number / 20), NOW);
        }
        assert_eq!(left.len(), limits::LEFT_RECORDS_MAX);
        all.sort_unstable_by_key(|node| own.distance(node));
        assert!(all[..100].iter().all(|node| left.get(node, NOW).is_some()));

        let mut left = LeftRecords::new(own);
        let taken = (0..100).filter(|number| {
            let record = record(*number, NOW.wall_ms);
            left.leave(record, peer(1), NOW).is_ok()
        });
        assert_eq!(taken.count(), limits::LEFT_RECORDS_PER_PEER_MAX);
    }

    #[test]
    fn newer_records_replace_and_old_ones_end() {
        let mut left = LeftRecords::new(peer(0));
        let node = record(1, 0).node_id;
        let seq = NOW.wall_ms;
        assert_eq!(left.leave(record(1, seq), peer(1), NOW), Ok(()));
        assert_eq!(
            left.leave(record(1, seq), peer(2), NOW),
            Err(Refusal::Stale)
        );
        assert_eq!(left.leave(record(1, seq + 1), peer(2), NOW), Ok(()));
        assert_eq!(left.get(&node, NOW).unwrap().seq, seq + 1);
        let later = Now {
            wall_ms: seq + 3_600_001,
            ..NOW
        };
        assert!(left.get(&node, later).is_none());
        assert_eq!(
            left.leave(record(2, seq), peer(1), later),
            Err(Refusal::Stale)
        );
    }
}
