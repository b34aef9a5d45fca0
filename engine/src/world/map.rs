//! The discovery map (PROTOCOL section 6): who is where, by hop.
//!
//! An entry is one packed component that never changes archetype: despawning and moving cost more than a byte. Hop 1
//! comes from live connections; hops 2 and 3 are what peers report.

use crate::domain::NodeId;
use bevy_ecs::prelude::{Component, Entity, Resource};
use std::collections::BTreeMap;

/// One id on the map.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// Who.
    pub node: NodeId,
    /// 1, 2 or 3: the smallest hop at which it is known.
    pub hop: u8,
    /// See [`MapEntry::ANCHOR`] and [`MapEntry::WIDE`].
    pub flags: u8,
}

impl MapEntry {
    /// It serves as an anchor.
    pub const ANCHOR: u8 = 1;
    /// It has a wide slot here (hop 1 only).
    pub const WIDE: u8 = 2;
}

/// Entries by id.
#[derive(Resource, Debug, Default)]
pub struct MapIndex(BTreeMap<NodeId, Entity>);

impl MapIndex {
    /// The entry of an id.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<Entity> {
        self.0.get(node).copied()
    }

    /// Adds an entry.
    pub fn insert(&mut self, node: NodeId, entity: Entity) {
        self.0.insert(node, entity);
    }

    /// Removes an entry.
    pub fn remove(&mut self, node: &NodeId) -> Option<Entity> {
        self.0.remove(node)
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
