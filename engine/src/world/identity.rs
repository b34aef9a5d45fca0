//! Who this node is.

use crate::crypto::Secret;
use crate::domain::{ConnectString, NodeId, Profile};
use bevy_ecs::prelude::Resource;

/// The own key.
#[derive(Resource, Debug)]
pub struct Identity(Secret);

impl Identity {
    /// Of this key.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The own name.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.node_id()
    }

    /// For signing.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

/// The own profile, once there is one.
#[derive(Resource, Debug, Default)]
pub struct OwnProfile(pub Option<Profile>);

/// The anchors of anchors.json (PROTOCOL section 11).
#[derive(Resource, Debug, Default)]
pub struct Anchors(pub Vec<ConnectString>);
