//! Where features leave what is to be looked for beyond the map, and find what came of it: worms, anchors, and the short
//! connections that both need.

use crate::domain::{AddressRecord, NodeId};
use crate::io::DialTarget;
use crate::limits;
use crate::wire::{Purpose, WormTarget};
use bevy_ecs::prelude::Resource;
use std::collections::{BTreeMap, BTreeSet};

/// Names a search of this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SearchId(u64);

/// What was found of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was looked for.
    pub target: WormTarget,
    /// How many nodes the search went through one after another.
    pub jumps: u32,
    /// The target's own record; for content, that of a holder.
    pub record: AddressRecord,
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Which.
    pub id: SearchId,
    /// What was found.
    pub found: Vec<Finding>,
    /// Who is closest to what was not, with their own records.
    pub near: Vec<AddressRecord>,
}

/// Searches to begin, and those that ended in the last frame.
#[derive(Resource, Debug)]
pub struct Searches<T: Send + Sync + 'static> {
    wanted: Vec<(SearchId, T)>,
    ended: Vec<Ended>,
    cancelled: BTreeSet<SearchId>,
    last: u64,
}

/// A worm lookup of this node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WormSearch {
    /// What is looked for, at most [`limits::WORM_TARGETS_MAX`].
    pub targets: Vec<WormTarget>,
    /// Nobody waits for it: it follows the order of ids alone, by few requests.
    pub is_quiet: bool,
    /// Whoever finds something may be told who looks for it: never on behalf of a follow.
    pub names_us: bool,
}

impl WormSearch {
    /// A person waits for these, and asked for them.
    #[must_use]
    pub fn urgent(targets: Vec<WormTarget>) -> Self {
        Self {
            targets,
            is_quiet: false,
            names_us: true,
        }
    }

    /// Who is nearest to this place in the order of ids?
    #[must_use]
    pub fn quiet(place: NodeId) -> Self {
        Self {
            targets: vec![WormTarget::Node(place)],
            is_quiet: true,
            names_us: false,
        }
    }

    /// Requests that it may cause.
    #[must_use]
    pub fn budget(&self) -> u16 {
        match self.is_quiet {
            true => limits::WORM_BUDGET_QUIET,
            false => limits::WORM_BUDGET,
        }
    }
}

/// Worm lookups of this node's own (PROTOCOL section 6).
pub type WormSearches = Searches<WormSearch>;
/// Questions of anchors for a record that was left with them.
pub type DirectorySearches = Searches<NodeId>;
/// Searches by visits, where worms have found nothing.
pub type Tours = Searches<Tour>;

/// A search by visits: whoever is close to the target is dialled and asked who is closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tour {
    /// Who is looked for.
    pub target: NodeId,
}

impl<T: Send + Sync + 'static> Default for Searches<T> {
    fn default() -> Self {
        Self {
            wanted: Vec::new(),
            ended: Vec::new(),
            cancelled: BTreeSet::new(),
            last: 0,
        }
    }
}

impl<T: Send + Sync + 'static> Searches<T> {
    /// Begins a search; whoever began it takes its end.
    pub fn begin(&mut self, what: T) -> SearchId {
        self.last += 1;
        let id = SearchId(self.last);
        self.wanted.push((id, what));
        id
    }

    /// Whether there is anything to begin.
    #[must_use]
    pub fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// Those to begin.
    pub fn take_wanted(&mut self) -> Vec<(SearchId, T)> {
        std::mem::take(&mut self.wanted)
    }

    /// Nobody waits for a search any more.
    pub fn cancel(&mut self, id: SearchId) {
        self.wanted.retain(|(wanted, _)| *wanted != id);
        self.cancelled.insert(id);
    }

    /// Those that nobody waits for any more.
    pub fn take_cancelled(&mut self) -> BTreeSet<SearchId> {
        std::mem::take(&mut self.cancelled)
    }

    /// A search has ended.
    pub fn end(&mut self, ended: Ended) {
        self.ended.push(ended);
    }

    /// Drops the ends that nobody took in the frame after: who began them has given up.
    pub fn drop_ended(&mut self) {
        self.ended.clear();
    }

    /// Whether anything has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// The ends of those that the closure knows.
    pub fn take_ended<C>(
        &mut self,
        mut known: impl FnMut(SearchId) -> Option<C>,
    ) -> Vec<(C, Ended)> {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for ended in self.ended.drain(..) {
            match known(ended.id) {
                Some(context) => taken.push((context, ended)),
                None => left.push(ended),
            }
        }
        self.ended = left;
        taken
    }
}

/// A connection that a feature wants, whatever the slots and candidates say.
#[derive(Clone, Debug, PartialEq)]
pub struct Errand {
    /// Where.
    pub target: DialTarget,
    /// What for.
    pub purpose: Purpose,
}

/// Errands that wait to be dialled, at most [`limits::ERRANDS_MAX`]. Who asked sees the peer come up, or gives up by itself.
#[derive(Resource, Debug, Default)]
pub struct Errands {
    waiting: BTreeMap<NodeId, Errand>,
    /// Those that were not dialled for reasons of our own, of what was last taken.
    declined: BTreeSet<NodeId>,
}

impl Errands {
    /// Asks for a connection; whether there is room.
    pub fn want(&mut self, node: NodeId, errand: Errand) -> bool {
        let has_room = self.has_room() || self.has(&node);
        if has_room {
            self.waiting.insert(node, errand);
        }
        has_room
    }

    /// Whether one more would be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.len() < limits::ERRANDS_MAX
    }

    /// Whether a connection to this node is still to be dialled.
    #[must_use]
    pub fn has(&self, node: &NodeId) -> bool {
        self.waiting.contains_key(node)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes them all.
    pub fn take(&mut self) -> BTreeMap<NodeId, Errand> {
        self.declined.clear();
        std::mem::take(&mut self.waiting)
    }

    /// Nobody waits for it any more; whether its turn to be dialled had not come.
    pub fn give_up(&mut self, node: &NodeId) -> bool {
        self.waiting.remove(node).is_some()
    }

    /// A node is not dialled, by limits of our own: that says nothing of whether it is there.
    pub fn decline(&mut self, node: NodeId) {
        self.declined.insert(node);
    }

    /// Whether a node was not dialled of late; who asked hears it once.
    pub fn take_declined(&mut self, node: &NodeId) -> bool {
        self.declined.remove(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_errands_wait_and_no_more() {
        let mut errands = Errands::default();
        let errand = || Errand {
            target: DialTarget::Addresses(Vec::new()),
            purpose: Purpose::Visit,
        };
        let node = |number: usize| NodeId::from_bytes(crate::crypto::hash(&number.to_be_bytes()));
        let taken = (0..2 * limits::ERRANDS_MAX).filter(|n| errands.want(node(*n), errand()));
        assert_eq!(taken.count(), limits::ERRANDS_MAX);
        assert!(!errands.has_room());
        assert!(errands.want(node(0), errand()), "who waits may wait anew");
        assert_eq!(errands.take().len(), limits::ERRANDS_MAX);
        assert!(errands.is_empty());
    }

    #[test]
    fn whoever_was_not_dialled_is_no_absentee_and_that_is_said_once() {
        let (mut errands, node) = (Errands::default(), NodeId::from_bytes([1; 32]));
        errands.decline(node);
        assert!(errands.take_declined(&node) && !errands.take_declined(&node));
        errands.decline(node);
        errands.take();
        assert!(!errands.take_declined(&node), "that was before");
        let errand = Errand {
            target: DialTarget::Addresses(Vec::new()),
            purpose: Purpose::Visit,
        };
        assert!(errands.want(node, errand));
        assert!(errands.give_up(&node) && !errands.give_up(&node));
    }
}
