//! PROTOCOL section 7, staleness pull: where none of the peers has what is missing of an author, or an author has too few swarm links,
//! those who are known to keep them are called, and a worm asks further, so many times an hour. Whoever is found is called, and asked like
//! any other holder.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::limits;
use distsoc_engine::schedule::{Phase, at_once_if};
use distsoc_engine::wire::WormTarget;
use distsoc_engine::world::authors::AuthorsView;
use distsoc_engine::world::keepers::{Keepers, Starving, SwarmCalls};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Peers;
use distsoc_engine::world::searches::{SearchId, WormSearch, WormSearches};

/// The search under way, and when the next may begin: mono ms.
#[derive(Resource, Debug, Default)]
struct Asking {
    under_way: Option<SearchId>,
    next_ms: u64,
}

fn take_ends(
    mut asking: ResMut<Asking>,
    mut searches: ResMut<WormSearches>,
    mut keepers: ResMut<Keepers>,
    mut calls: ResMut<SwarmCalls>,
    authors: AuthorsView,
) {
    let under_way = asking.under_way;
    let ends = searches.take_ended(|id| under_way.filter(|of| *of == id));
    for (_, ended) in ends {
        asking.under_way = None;
        for found in ended.found {
            let WormTarget::Author(author) = found.target else {
                continue;
            };
            let holder = found.record.node_id;
            if authors.get(&author).is_none_or(|author| !author.is_kept()) {
                continue;
            }
            keepers.heard_of(author, holder);
            keepers.learn_place(found.record);
            calls.offer(holder, author);
        }
    }
}

fn ask(
    now: Res<Now>,
    mut asking: ResMut<Asking>,
    keepers: Res<Keepers>,
    mut starving: ResMut<Starving>,
    mut calls: ResMut<SwarmCalls>,
    mut searches: ResMut<WormSearches>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
) {
    let authors: Vec<NodeId> = starving.take(limits::WORM_TARGETS_MAX);
    for author in &authors {
        let known = keepers.seen(author);
        let callable = known.filter(|node| keepers.place(node).is_some());
        for node in callable.take(limits::SWARM_REFERRALS_MAX) {
            calls.visit(node);
        }
    }
    let targets = authors.into_iter().map(WormTarget::Author).collect();
    // On behalf of a follow: nobody is told who asks.
    let search = WormSearch {
        targets,
        is_quiet: false,
        names_us: false,
    };
    asking.under_way = Some(searches.begin(search));
    let pause_ms = 60 * 60 * 1000 / limits::HOLDER_WORMS_PER_HOUR;
    asking.next_ms = now.after(entropy.jittered(pause_ms));
    outbox.wake_at(now.mono_ms);
}

/// Who keeps what no peer has.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Asking::default());
    frame.due(
        |glance| at_once_if(glance.at::<WormSearches>().has_ended()),
        Phase::Judge,
        take_ends,
    );
    frame.due(
        |glance| {
            let asking = glance.at::<Asking>();
            let may_ask = !glance.at::<Starving>().is_empty()
                && asking.under_way.is_none()
                && glance.at::<Peers>().up_count() > 0;
            may_ask.then_some(asking.next_ms)
        },
        Phase::Plan,
        ask,
    );
}
