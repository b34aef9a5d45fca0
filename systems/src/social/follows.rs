//! PROTOCOL sections 1 and 9: following is unilateral and private. Nothing here sends anything: what one follows shows
//! on this machine only.

use crate::Installer;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemState;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{ConnectString, NodeId};
use distsoc_engine::io::{Call, CallError, Relationship, Reply, Write};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::world::authors::{
    Author, AuthorIndex, KeptProfiles, ListRechecks, RelationshipChange, RelationshipChanges,
};
use distsoc_engine::world::candidates::Candidates;
use distsoc_engine::world::files::Archive;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Peer, Peers};

enum Wish {
    Follow(NodeId, Option<ConnectString>),
    Unfollow(NodeId),
}

fn take_wishes(world: &mut World) {
    let wishes = world.resource_mut::<Inbox>().take_calls(|call| match call {
        Call::Follow { node, place } => Some(Wish::Follow(*node, place.clone())),
        Call::Unfollow(node) => Some(Wish::Unfollow(*node)),
        _ => None,
    });
    for (call, wish) in wishes {
        let change = match wish {
            Wish::Follow(node, place) => {
                follow(world, node, place).map(|relationship| (node, relationship))
            }
            Wish::Unfollow(node) => unfollow(world, node).map(|relationship| (node, relationship)),
        };
        match change {
            Ok((node, relationship)) => {
                let write = Write::Relationship {
                    node,
                    relationship: Some(relationship.clone()),
                };
                let batch = world.resource_mut::<Outbox>().store_durable(vec![write]);
                let change = RelationshipChange {
                    call,
                    node,
                    relationship,
                };
                let mut changes = world.resource_mut::<RelationshipChanges>();
                changes.0.insert(batch, change);
            }
            Err(error) => world.resource_mut::<Outbox>().reply(call, Err(error)),
        }
    }
}

fn known(world: &World, node: &NodeId) -> Option<Relationship> {
    let entity = world.resource::<AuthorIndex>().get(node)?;
    let author = world.get::<Author>(entity)?;
    author.is_followed().then(|| author.relationship.clone())
}

fn follow(
    world: &mut World,
    node: NodeId,
    place: Option<ConnectString>,
) -> Result<Relationship, CallError> {
    if node == world.resource::<Identity>().node_id() {
        return Err(CallError::Refused("nobody can follow themselves"));
    }
    if distsoc_engine::crypto::PublicKey::check(node).is_err() {
        return Err(CallError::Refused(
            "that id is not a key that anyone could hold",
        ));
    }
    let now = *world.resource::<Now>();
    let known = known(world, &node);
    let follows = world.resource::<AuthorIndex>();
    let author = |(_, entity)| world.get::<Author>(entity);
    let follows = follows.iter().filter_map(author);
    let follows = follows.filter(|author| author.is_followed()).count();
    if known.is_none() && follows >= limits::FOLLOWS_MAX {
        return Err(CallError::Refused("at most 5,000 people can be followed"));
    }
    let known_place = known.as_ref().and_then(|known| known.place.clone());
    Ok(Relationship {
        followed_since_ms: known
            .as_ref()
            .and_then(|known| known.followed_since_ms)
            .or(Some(now.wall_ms)),
        hosted_since_ms: known.as_ref().and_then(|known| known.hosted_since_ms),
        place: place.or(known_place),
    })
}

/// Whoever is followed no more is kept for others: from outside nothing changes (PROTOCOL section 7).
fn unfollow(world: &World, node: NodeId) -> Result<Relationship, CallError> {
    let known = known(world, &node).ok_or(CallError::NotFound("you do not follow that node"))?;
    let now = world.resource::<Now>().wall_ms;
    Ok(Relationship {
        followed_since_ms: None,
        hosted_since_ms: known.hosted_since_ms.or(Some(now)),
        place: None,
    })
}

fn settle(world: &mut World) {
    if world.resource::<RelationshipChanges>().0.is_empty() {
        return;
    }
    let ends = world.resource_scope(|world, mut changes: Mut<RelationshipChanges>| {
        let mut inbox = world.resource_mut::<Inbox>();
        inbox.take_batches(|batch| changes.0.remove(&batch))
    });
    for (change, result) in ends {
        let reply = match result {
            Ok(()) => {
                let is_followed = change.relationship.followed_since_ms.is_some();
                let node = change.node;
                apply(world, node, change.relationship);
                if is_followed {
                    // What was not worth its place may be now.
                    world.resource_mut::<ListRechecks>().0.insert(node);
                    // The name is stored with the follow, so that the feed can show it when the author is gone.
                    keep_profile(world, node);
                }
                Ok(Reply::Done)
            }
            Err(trouble) => {
                store_again(world, change.node);
                Err(CallError::Storage(trouble))
            }
        };
        world.resource_mut::<Outbox>().reply(change.call, reply);
    }
}

/// What was learned of a node waited for this change, which then failed: it is written after all.
fn store_again(world: &mut World, node: NodeId) {
    let entity = world.resource::<AuthorIndex>().get(&node);
    let author = entity.and_then(|entity| world.get::<Author>(entity));
    let Some(author) = author.filter(|author| author.is_kept()) else {
        return;
    };
    let relationship = Some(author.relationship.clone());
    let write = Write::Relationship { node, relationship };
    world.resource_mut::<Outbox>().store(write);
}

/// What the disk now says counts.
fn apply(world: &mut World, node: NodeId, relationship: Relationship) {
    let entity = match world.resource::<AuthorIndex>().get(&node) {
        Some(entity) => entity,
        None => {
            let entity = world.spawn(Author::new(node)).id();
            world.resource_mut::<AuthorIndex>().insert(node, entity);
            entity
        }
    };
    let followed = relationship.followed_since_ms.is_some();
    let place = relationship.place.clone();
    let mut author = world
        .get_mut::<Author>(entity)
        .expect("an entity in AuthorIndex is an Author");
    author.relationship = relationship;
    if followed {
        world
            .resource_mut::<Candidates>()
            .want(node, place.as_ref(), false);
    } else {
        world.resource_mut::<Candidates>().unwant(&node);
    }
    judge_files(world, node);
}

/// What the author's files are worth follows from what one has to do with the author.
fn judge_files(world: &mut World, node: NodeId) {
    let mut state = SystemState::<Archive>::new(world);
    let mut archive = state
        .get_mut(world)
        .expect("every resource of an archive is there");
    archive.judge_author(&node);
    state.apply(world);
}

fn keep_profile(world: &mut World, node: NodeId) {
    let entity = world.resource::<Peers>().by_node(&node);
    let profile = entity.and_then(|entity| world.get::<Peer>(entity)?.person.clone());
    if let Some(profile) = profile {
        let now = *world.resource::<Now>();
        world.resource_scope(|world, mut profiles: Mut<KeptProfiles>| {
            // A holder may have had a newer one than the peer's Hello brought.
            let _ = profiles.keep(profile, now, &mut world.resource_mut::<Outbox>());
        });
    }
}

/// Whom one follows.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let relationships = std::mem::take(&mut frame.restored.relationships);
    for (node, relationship) in relationships {
        apply(frame.world, node, relationship);
    }
    for profile in std::mem::take(&mut frame.restored.profiles) {
        let authors = frame.world.resource::<AuthorIndex>();
        if authors.get(&profile.author).is_some() {
            frame.world.resource_mut::<KeptProfiles>().restore(profile);
        }
    }
    for (head, checked_at_ms) in std::mem::take(&mut frame.restored.authors) {
        let Some(entity) = frame.world.resource::<AuthorIndex>().get(&head.author) else {
            continue;
        };
        let mut author = frame
            .world
            .get_mut::<Author>(entity)
            .expect("an entity in AuthorIndex is an Author");
        author.head = Some(head);
        author.checked_at_ms = checked_at_ms;
    }
    for node in std::mem::take(&mut frame.restored.equivocal) {
        let entity = frame.world.resource::<AuthorIndex>().get(&node);
        let author = entity.and_then(|entity| frame.world.get_mut::<Author>(entity));
        if let Some(mut author) = author {
            author.is_equivocal = true;
        }
    }
    frame.on(Occasions::BATCH, Phase::Ingest, settle);
    frame.on(Occasions::CALL, Phase::Judge, take_wishes);
}
