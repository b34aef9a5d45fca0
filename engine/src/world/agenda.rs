//! What is due when, one time for each author.

use crate::domain::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// When something is due for each author: mono ms.
#[derive(Debug, Default)]
pub struct Agenda {
    by_time: BTreeSet<(u64, NodeId)>,
    by_author: BTreeMap<NodeId, u64>,
}

impl Agenda {
    /// An author is due at this time, or earlier if that was set before.
    pub fn at(&mut self, author: NodeId, mono_ms: u64) {
        if self.by_author.get(&author).is_none_or(|set| mono_ms < *set) {
            self.set(author, mono_ms);
        }
    }

    /// An author is due at this time, whatever was set before.
    pub fn set(&mut self, author: NodeId, mono_ms: u64) {
        self.remove(&author);
        self.by_time.insert((mono_ms, author));
        self.by_author.insert(author, mono_ms);
    }

    /// Nothing is due for an author any more.
    pub fn remove(&mut self, author: &NodeId) {
        if let Some(set) = self.by_author.remove(author) {
            self.by_time.remove(&(set, *author));
        }
    }

    /// The next one due.
    #[must_use]
    pub fn first(&self) -> Option<(u64, NodeId)> {
        self.by_time.first().copied()
    }

    /// Takes those due by now, earliest first.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<NodeId> {
        let mut due = Vec::new();
        while let Some((at_ms, author)) = self.first()
            && at_ms <= now_ms
        {
            self.remove(&author);
            due.push(author);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_first_and_each_once() {
        let [one, two] = [1, 2].map(|number| NodeId::from_bytes([number; 32]));
        let mut agenda = Agenda::default();
        agenda.at(one, 50);
        agenda.at(one, 70);
        agenda.at(two, 60);
        assert_eq!(agenda.first(), Some((50, one)));
        agenda.set(one, 80);
        assert_eq!(agenda.take_due(70), [two]);
        assert_eq!(agenda.first(), Some((80, one)));
        agenda.remove(&one);
        assert!(agenda.take_due(u64::MAX).is_empty());
    }
}
