//! The protocol: every rule of a node, as systems over the engine's world.
//!
//! [`install`] is the table of contents. A frame runs `Ingest → Judge → Plan → Emit`; within a phase, features run in the
//! order of this list. Features never call each other: they meet in the world.

mod discovery;
mod files;
mod installer;
mod posts;
mod social;
mod status;
mod storage;

pub use installer::Installer;

use bevy_ecs::prelude::World;
use distsoc_engine::io::Restored;
use distsoc_engine::schedule::Frame;

/// Gives a node its rules and what its disk held.
pub fn install(world: &mut World, frame: &mut Frame, restored: Restored) {
    let mut frame = Installer::new(world, frame, restored);

    // Section 12: what is stored, and when it counts.
    storage::install(&mut frame);
    // Section 4: own addresses and reachability.
    discovery::addresses::install(&mut frame);
    // Section 5: connections, and the peer's Hello.
    discovery::links::install(&mut frame);
    discovery::greeting::install(&mut frame);
    // Section 6: who gets a slot and is up; the own Hello; Goodbye; what misconduct costs.
    discovery::slots::install(&mut frame);
    discovery::hello::install(&mut frame);
    discovery::parting::install(&mut frame);
    discovery::conduct::install(&mut frame);
    // Section 6: the map, hop 1; what peers report for hops 2 and 3, and what is reported to them.
    discovery::map::install(&mut frame);
    discovery::map_sync::install(&mut frame);
    discovery::diff_applier::install(&mut frame);
    discovery::diff_builder::install(&mut frame);
    // Section 12: the map outlives the node.
    discovery::map_keeper::install(&mut frame);
    // Section 6: where somebody is, by those who are near, by worms, by anchors, by visits.
    discovery::resolver::install(&mut frame);
    discovery::left::install(&mut frame);
    discovery::worm::install(&mut frame);
    discovery::directory::install(&mut frame);
    discovery::visitor::install(&mut frame);
    // Section 6: wide peers, by order of ids and by diversity.
    discovery::wide::install(&mut frame);
    // Sections 6 and 11: whom to dial, where candidates come from.
    discovery::dialler::install(&mut frame);
    discovery::bootstrap::install(&mut frame);
    discovery::outer_map::install(&mut frame);
    // Section 3: keep-alive, pings, visits.
    discovery::liveness::install(&mut frame);

    // Section 9: the person's own posts, profile and follows.
    posts::stager::install(&mut frame);
    posts::composer::install(&mut frame);
    posts::succession::install(&mut frame);
    posts::profiles::install(&mut frame);
    social::follows::install(&mut frame);
    // Section 7: authors kept for others.
    files::hosting::install(&mut frame);
    // Sections 7 and 8: lists and posts of kept authors, pulled, pushed, told along the chain and served.
    social::follow_puller::install(&mut frame);
    files::recent_posts::install(&mut frame);
    files::gaps::install(&mut frame);
    posts::tombstones::install(&mut frame);
    files::intake::install(&mut frame);
    files::hearts::install(&mut frame);
    files::server::install(&mut frame);
    files::swarm::install(&mut frame);
    files::chain::install(&mut frame);
    files::holders::install(&mut frame);
    files::calls::install(&mut frame);
    // Section 7: blobs, what is evicted, and what the person sees of it.
    files::slice_server::install(&mut frame);
    files::eviction::install(&mut frame);
    files::proofs::install(&mut frame);
    files::fetcher::install(&mut frame);
    files::accounts::install(&mut frame);

    // The node at a glance.
    status::install(&mut frame);
    // Section 12: what was learned leaves for the disk; section 13: what was refused is judged.
    discovery::conduct::install_last(&mut frame);
    discovery::parting::install_last(&mut frame);
    storage::install_last(&mut frame);
}
