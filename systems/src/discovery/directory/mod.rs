//! PROTOCOL section 6, global lookup (open question 6): every node leaves its record with a few anchors, which answer for it where
//! worms fail. A directory of address records, nothing more.
//!
//! An anchor keeps a record only of the node that brings it, and only at an address where a handshake has reached that node: on
//! the very connection, or by dialling back once it has gone.

mod asking;
mod keeping;

use crate::Installer;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use distsoc_engine::domain::{AddressRecord, ConnectString, Host, NodeId, Prefix};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{DialTarget, RequestFailure};
use distsoc_engine::limits;
use distsoc_engine::wire::Packet;
use distsoc_engine::world::authors::KeptProfiles;
use distsoc_engine::world::candidates::Candidates;
use distsoc_engine::world::identity::{Anchors, OwnProfile};
use std::collections::BTreeSet;

/// Somebody who serves as an anchor, and where.
#[derive(Clone, Debug, PartialEq)]
struct KnownAnchor {
    node: NodeId,
    target: DialTarget,
    network: Option<Prefix>,
}

fn listed(place: &ConnectString) -> KnownAnchor {
    let target = match (place.host(), place.address()) {
        (Host::Name(name), _) => DialTarget::Host {
            name: name.clone(),
            port: place.port(),
        },
        (Host::Ip(_), address) => DialTarget::Addresses(address.into_iter().collect()),
    };
    KnownAnchor {
        node: place.node_id(),
        target,
        network: None,
    }
}

/// PROTOCOL section 6: the anchors of the profile, two of anchors.json, the 3 closest (XOR) known ones of distinct prefix.
fn anchors_for(
    target: &NodeId,
    of_profile: Vec<KnownAnchor>,
    of_file: Vec<KnownAnchor>,
    mut known: Vec<KnownAnchor>,
) -> Vec<KnownAnchor> {
    let mut chosen = of_profile;
    chosen.extend(of_file.into_iter().take(limits::DIRECTORY_LISTED));
    known.sort_by_key(|anchor| target.distance(&anchor.node));
    let mut networks = BTreeSet::new();
    let distinct = known.into_iter().filter(|anchor| {
        anchor
            .network
            .is_none_or(|network| networks.insert(network))
    });
    chosen.extend(distinct.take(limits::DIRECTORY_CLOSEST));
    let mut seen = BTreeSet::new();
    chosen.retain(|anchor| seen.insert(anchor.node));
    chosen
}

/// Who serves as an anchor, as far as known.
#[derive(SystemParam)]
struct AnchorBook<'w> {
    anchors: Res<'w, Anchors>,
    profile: Res<'w, OwnProfile>,
    others: Res<'w, KeptProfiles>,
    candidates: Res<'w, Candidates>,
}

impl AnchorBook<'_> {
    fn for_target(&self, target: &NodeId, own: NodeId, entropy: &mut Entropy) -> Vec<KnownAnchor> {
        let own_profile = self.profile.0.as_ref().filter(|_| *target == own);
        let of_profile = own_profile
            .into_iter()
            .flat_map(|profile| profile.anchors.iter())
            .chain(self.others.anchors_of(target));
        let mut of_file: Vec<KnownAnchor> = self.anchors.0.iter().map(listed).collect();
        entropy.shuffle(&mut of_file);
        let known = self.candidates.iter().filter(|(_, one)| one.is_anchor);
        let known = known.filter_map(|(node, one)| {
            let network = one
                .addresses
                .first()
                .filter(|first| !first.scope().is_local());
            Some(KnownAnchor {
                node: *node,
                target: one.target()?,
                network: network.map(|first| first.prefix()),
            })
        });
        let of_profile = of_profile.map(listed).collect();
        let mut anchors = anchors_for(target, of_profile, of_file, known.collect());
        anchors.retain(|anchor| anchor.node != own);
        anchors
    }
}

fn record_in(answer: Result<Packet, RequestFailure>) -> Option<AddressRecord> {
    match answer {
        Ok(Packet::AddressResponse(response)) => response.record,
        _ => None,
    }
}

/// Records left with anchors, and asked for.
pub(crate) fn install(frame: &mut Installer<'_>) {
    keeping::install(frame);
    asking::install(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(number: u8, network: Option<&str>) -> KnownAnchor {
        let network = network.map(|ip| Prefix::of(ip.parse().unwrap()));
        KnownAnchor {
            node: NodeId::from_bytes([number; 32]),
            target: DialTarget::Addresses(Vec::new()),
            network,
        }
    }

    #[test]
    fn a_record_is_left_with_the_profile_s_anchors_two_of_the_file_and_the_three_closest() {
        let target = NodeId::from_bytes([0; 32]);
        let of_file = vec![anchor(100, None), anchor(101, None), anchor(102, None)];
        let known = vec![
            anchor(8, Some("8.8.8.1")),
            anchor(1, Some("9.9.9.1")),
            anchor(2, Some("9.9.9.2")),
            anchor(4, Some("7.7.7.1")),
            anchor(16, Some("6.6.6.1")),
            anchor(100, None),
        ];
        let chosen = anchors_for(&target, vec![anchor(200, None)], of_file, known);
        let numbers: Vec<u8> = chosen.iter().map(|one| one.node.as_bytes()[0]).collect();
        // 2 lives in the same network as 1.
        assert_eq!(numbers, [200, 100, 101, 1, 4, 8]);
    }
}
