//! Who asks for a slot, and what they are worth (PROTOCOL section 6).

use crate::domain::{AddressRecord, NodeId};
use crate::io::LinkId;
use crate::wire::{Hello, Purpose};
use crate::world::authors::{Author, AuthorIndex};
use crate::world::candidates::Candidates;
use bevy_ecs::prelude::{Entity, Resource, World};

/// A sync partner counts as recent for this long.
const SYNC_PARTNER_MS: u64 = 60 * 60 * 1000;

/// How much a social peer is worth, in the order of PROTOCOL section 6. Mutual and granted audience come with layer 3
/// and rank above these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Anybody.
    Anybody,
    /// Synchronised with us lately.
    SyncPartner,
    /// The person asked to be connected to them.
    Asked,
    /// Somebody one follows.
    Followed,
}

impl Worth {
    /// What a challenger has to beat by a margin.
    #[must_use]
    pub fn points(self) -> u64 {
        match self {
            Self::Anybody => 10,
            Self::SyncPartner => 100,
            Self::Asked | Self::Followed => 250,
        }
    }
}

/// What this node has to do with another, as far as slots go.
#[must_use]
pub fn worth_of(world: &World, node: &NodeId, synced_ms: Option<u64>, now_ms: u64) -> Worth {
    let author = world
        .resource::<AuthorIndex>()
        .get(node)
        .and_then(|entity| world.get::<Author>(entity));
    let wanted = world
        .resource::<Candidates>()
        .get(node)
        .is_some_and(|candidate| candidate.wanted);
    if author.is_some_and(Author::is_followed) {
        Worth::Followed
    } else if wanted {
        Worth::Asked
    } else if synced_ms.is_some_and(|at| now_ms < at + SYNC_PARTNER_MS) {
        Worth::SyncPartner
    } else {
        Worth::Anybody
    }
}

/// A connection whose peer has said Hello.
#[derive(Debug)]
pub struct SeatRequest {
    /// The connection.
    pub link: LinkId,
    /// Its entity.
    pub entity: Entity,
    /// What this node wants it for.
    pub purpose: Purpose,
    /// What the peer said.
    pub hello: Hello,
    /// Its record, if it is to be believed.
    pub record: Option<AddressRecord>,
}

/// Those of this frame, in the order of their Hellos.
#[derive(Resource, Debug, Default)]
pub struct SeatRequests(pub Vec<SeatRequest>);
