//! PROTOCOL section 7, kept authors: beside those whom the person follows, at least as many are kept for others, so that neither an
//! author nor a neighbour can tell a follower from a host. They are chosen among those who are heard of, at random moments.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Relationship, Write};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::Phase;
use distsoc_engine::world::authors::{Author, AuthorIndex, HostCandidates};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;

/// One more is taken after this, at random, while there are too few.
const PAUSE_MS: u64 = 20_000;

/// When the next may be taken: mono ms.
#[derive(Resource, Debug, Default)]
struct NextHost(u64);

/// How many to host beside so many followed.
fn wanted(profile: &NodeProfile, followed: usize) -> usize {
    followed.clamp(
        profile.hosted_min,
        limits::HOSTED_MAX.max(profile.hosted_min),
    )
}

fn host(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    identity: Res<Identity>,
    storage: Res<Storage>,
    mut candidates: ResMut<HostCandidates>,
    mut index: ResMut<AuthorIndex>,
    mut next: ResMut<NextHost>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    mut authors: Query<&mut Author>,
    mut commands: Commands,
) {
    if candidates.is_empty() || !storage.takes_more() {
        return;
    }
    if now.mono_ms < next.0 {
        outbox.wake_at(next.0);
        return;
    }
    let followed = authors.iter().filter(|author| author.is_followed()).count();
    let hosted = authors
        .iter()
        .filter(|author| author.is_hosted() && !author.is_followed())
        .count();
    if hosted >= wanted(&profile, followed) {
        candidates.clear();
        return;
    }
    let heard: Vec<NodeId> = candidates.iter().collect();
    let chosen = heard[entropy.below(heard.len() as u64) as usize];
    candidates.remove(&chosen);
    next.0 = now.after(entropy.jittered(PAUSE_MS));
    let entity = index.get(&chosen);
    let known = entity.and_then(|entity| authors.get_mut(entity).ok());
    if chosen == identity.node_id() || known.as_ref().is_some_and(|author| author.is_kept()) {
        return;
    }
    let relationship = Relationship {
        hosted_since_ms: Some(now.wall_ms),
        ..Relationship::default()
    };
    outbox.store(Write::Relationship {
        node: chosen,
        relationship: Some(relationship.clone()),
    });
    match known {
        Some(mut author) => author.relationship = relationship,
        None => {
            let mut author = Author::new(chosen);
            author.relationship = relationship;
            index.insert(chosen, commands.spawn(author).id());
        }
    }
}

/// Authors kept for others.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(NextHost::default());
    frame.add(Phase::Plan, host);
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::profile::ProfileKind;

    #[test]
    fn as_many_as_are_followed_within_bounds() {
        let profile = NodeProfile::of(ProfileKind::Desktop);
        let of = [0, 16, 40, 1_000].map(|followed| wanted(&profile, followed));
        assert_eq!(of, [16, 16, 40, 64]);
    }
}
