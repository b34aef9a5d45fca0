//! Authors this node keeps or has to do with (PROTOCOL section 7).

use crate::domain::{NodeId, PostId, RecentPostsHead};
use crate::io::Relationship;
use bevy_ecs::prelude::{Component, Entity, Resource};
use std::collections::{BTreeMap, VecDeque};

/// An author.
#[derive(Component, Debug)]
pub struct Author {
    /// Who.
    pub node: NodeId,
    /// What one has to do with them.
    pub relationship: Relationship,
    /// The head of the newest verified list here.
    pub head: Option<RecentPostsHead>,
    /// When the list was last received or confirmed newest: ms since the epoch.
    pub checked_at_ms: u64,
    /// Posts of the list that are not here, newest first.
    pub missing: VecDeque<PostId>,
}

impl Author {
    /// Somebody one has nothing to do with yet.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            relationship: Relationship {
                followed_since_ms: None,
                place: None,
            },
            head: None,
            checked_at_ms: 0,
            missing: VecDeque::new(),
        }
    }

    /// Whether one follows them.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.relationship.followed_since_ms.is_some()
    }

    /// Whether their posts are kept: only then is something they push stored (PROTOCOL section 7).
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_followed()
    }
}

/// Authors by id.
#[derive(Resource, Debug, Default)]
pub struct AuthorIndex(BTreeMap<NodeId, Entity>);

impl AuthorIndex {
    /// The entity of an author.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<Entity> {
        self.0.get(node).copied()
    }

    /// Adds an author.
    pub fn insert(&mut self, node: NodeId, entity: Entity) {
        self.0.insert(node, entity);
    }

    /// Authors in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Entity)> + '_ {
        self.0.iter().map(|(node, entity)| (*node, *entity))
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
