//! PROTOCOL section 7, kept authors: beside those whom the person follows, at least as many are kept for others, so that neither an
//! author nor a neighbour can tell a follower from a host. They are chosen among those who are heard of, at random moments.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Relationship, Write};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Phase, at_once_if};
use distsoc_engine::world::authors::{
    Author, AuthorIndex, HostCandidates, KeptProfiles, RelationshipChanges,
};
use distsoc_engine::world::deletions::Deletions;
use distsoc_engine::world::files::{Archive, Wanted};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::keepers::Keepers;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;

/// One more is taken after this, at random, while there are too few.
const PAUSE_MS: u64 = 20_000;

/// It is looked this often whether somebody has been kept for others long enough.
const PARTING_MS: u64 = 60 * 60 * 1000;

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
    mut candidates: ResMut<HostCandidates>,
    mut index: ResMut<AuthorIndex>,
    mut next: ResMut<NextHost>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    changes: Res<RelationshipChanges>,
    mut authors: Query<&mut Author>,
    mut commands: Commands,
) {
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
    let is_kept = known.as_ref().is_some_and(|author| author.is_kept());
    if chosen == identity.node_id() || is_kept || changes.is_under_way(&chosen) {
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

/// When it is looked at next whether too many are kept for others: mono ms.
#[derive(Resource, Debug, Default)]
struct NextParting(u64);

/// Who is kept for others beyond what is wanted, for long enough; the longest first.
fn outdated(
    authors: impl Iterator<Item = (NodeId, u64)>,
    wanted: usize,
    now_ms: u64,
) -> Vec<NodeId> {
    let mut hosted: Vec<(u64, NodeId)> = authors.map(|(node, since)| (since, node)).collect();
    hosted.sort_unstable();
    let surplus = hosted.len().saturating_sub(wanted);
    let old = hosted.into_iter().take(surplus);
    let old = old.filter(|(since_ms, _)| now_ms >= since_ms + limits::HOSTED_MS_MIN);
    old.map(|(_, node)| node).collect()
}

fn let_go(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    changes: Res<RelationshipChanges>,
    mut next: ResMut<NextParting>,
    mut archive: Archive,
    mut wanted_posts: ResMut<Wanted>,
    mut deletions: ResMut<Deletions>,
    mut keepers: ResMut<Keepers>,
    mut profiles: ResMut<KeptProfiles>,
    mut outbox: ResMut<Outbox>,
) {
    next.0 = now.after(PARTING_MS);
    let followed = archive.kept.iter().filter(|author| author.is_followed());
    let wanted = wanted(&profile, followed.count());
    let hosted = archive.kept.iter().filter(|author| !author.is_followed());
    let hosted = hosted.filter(|author| !changes.is_under_way(&author.node));
    let hosted =
        hosted.filter_map(|author| Some((author.node, author.relationship.hosted_since_ms?)));
    // One at a time: it may have thousands of files.
    for node in outdated(hosted, wanted, now.wall_ms).into_iter().take(1) {
        let ids: Vec<PostId> = archive.index.of_author(&node).map(|(id, _)| id).collect();
        for id in ids {
            for write in archive.forget(&id) {
                outbox.store(write);
            }
        }
        outbox.store(Write::ForgetAuthor(node));
        outbox.store(Write::Relationship {
            node,
            relationship: None,
        });
        wanted_posts.forget_author(&node);
        deletions.forget_author(&node);
        keepers.forget(&node);
        profiles.forget(&node);
        if let Some(mut author) = archive.author_mut(&node) {
            *author = Author::new(node);
        }
    }
}

/// Authors kept for others.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(NextHost::default());
    frame.world.insert_resource(NextParting::default());
    frame.due(
        |glance| {
            let may_host =
                !glance.at::<HostCandidates>().is_empty() && glance.at::<Storage>().takes_more();
            may_host.then_some(glance.at::<NextHost>().0)
        },
        Phase::Plan,
        host,
    );
    // Nobody is woken for it.
    frame.due(
        |glance| at_once_if(glance.at::<Now>().mono_ms >= glance.at::<NextParting>().0),
        Phase::Plan,
        let_go,
    );
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

    #[test]
    fn whoever_was_kept_longest_goes_after_thirty_days_and_only_while_there_are_too_many() {
        let node = |number: u8| NodeId::from_bytes([number; 32]);
        let hosted = [(node(1), 50), (node(2), 10), (node(3), 90)];
        let at = |wanted, now_ms| outdated(hosted.into_iter(), wanted, now_ms);
        let month = limits::HOSTED_MS_MIN;
        assert!(at(3, 10 * month).is_empty());
        assert!(at(1, month + 9).is_empty());
        assert_eq!(at(1, month + 10), [node(2)]);
        assert_eq!(at(1, month + 50), [node(2), node(1)]);
    }
}
