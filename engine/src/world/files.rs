//! Stored files (PROTOCOL section 7): what this node holds, and what it knows it lacks.

use crate::domain::{NodeId, PostId};
use crate::limits;
use bevy_ecs::prelude::{Component, Entity, Resource};
use std::collections::BTreeMap;

/// A post that is stored or on its way to the disk.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Which.
    pub id: PostId,
    /// By whom.
    pub author: NodeId,
    /// When written: seconds since the epoch.
    pub created_at_s: u32,
    /// Bytes of its body.
    pub bytes: u32,
}

/// Stored files by id.
#[derive(Resource, Debug, Default)]
pub struct FileIndex(BTreeMap<PostId, Entity>);

impl FileIndex {
    /// The entity of a stored post.
    #[must_use]
    pub fn get(&self, id: &PostId) -> Option<Entity> {
        self.0.get(id).copied()
    }

    /// Whether the post is here.
    #[must_use]
    pub fn contains(&self, id: &PostId) -> bool {
        self.0.contains_key(id)
    }

    /// Adds a post.
    pub fn insert(&mut self, id: PostId, entity: Entity) {
        self.0.insert(id, entity);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Posts that stand in a verified list and are not here: the author is proved, the bytes are missing.
#[derive(Resource, Debug, Default)]
pub struct Wanted(BTreeMap<PostId, NodeId>);

impl Wanted {
    /// Wants a post of this author; false when [`limits::WANTED_POSTS_MAX`] are wanted already.
    pub fn insert(&mut self, id: PostId, author: NodeId) -> bool {
        if self.0.len() >= limits::WANTED_POSTS_MAX && !self.0.contains_key(&id) {
            return false;
        }
        self.0.insert(id, author);
        true
    }

    /// Whose list names it, if it is wanted.
    #[must_use]
    pub fn author_of(&self, id: &PostId) -> Option<NodeId> {
        self.0.get(id).copied()
    }

    /// It came, or is not wanted any more.
    pub fn remove(&mut self, id: &PostId) -> Option<NodeId> {
        self.0.remove(id)
    }

    /// Forgets everything of an author.
    pub fn forget_author(&mut self, author: &NodeId) {
        self.0.retain(|_, by| by != author);
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
