//! PROTOCOL sections 6 and 11: which peers a node names to somebody who looks for others.

use super::peers::{Link, Peer, Peers, proved_address};
use crate::domain::Network;
use crate::entropy::Entropy;
use crate::io::LinkId;
use crate::wire::Hint;
use bevy_ecs::prelude::World;
use std::collections::BTreeSet;

/// Connected peers whose address a handshake proved, for the peer behind this connection: of the same scope, listed, and not the
/// peer itself.
#[must_use]
pub fn hints_for(world: &mut World, link: LinkId, count: usize) -> Vec<Hint> {
    let asker = world.resource::<Peers>().by_link(link);
    let Some((asker, remote)) = asker
        .and_then(|entity| world.get::<Link>(entity))
        .map(|link| (link.node, link.remote.ip()))
    else {
        return Vec::new();
    };
    let mut known: Vec<Hint> = Vec::new();
    for (node_id, entity) in world.resource::<Peers>().up() {
        if let (Some(link), Some(peer)) = (world.get::<Link>(entity), world.get::<Peer>(entity))
            && let Some(address) = proved_address(link, peer)
            && address.fits_scope_of(remote)
            && node_id != asker
            && !peer.unlisted
        {
            known.push(Hint { node_id, address });
        }
    }
    chosen(known, count, &mut world.resource_mut::<Entropy>())
}

/// So many of those known, at random: whoever named the newest first would string the network along the order of arrival. As many
/// networks (/16, IPv6 /32) as there are before a second peer of any.
fn chosen(mut known: Vec<Hint>, count: usize, entropy: &mut Entropy) -> Vec<Hint> {
    entropy.shuffle(&mut known);
    let mut networks = BTreeSet::new();
    let is_first = |hint: &Hint| {
        Network::of(hint.address.socket().ip()).is_none_or(|network| networks.insert(network))
    };
    let (mut hints, more): (Vec<Hint>, Vec<Hint>) = known.into_iter().partition(is_first);
    hints.extend(more);
    hints.truncate(count);
    hints
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

    use super::*;
    use crate::domain::{Address, NodeId};

    fn known(number: u8, network: u8) -> Hint {
        let address = format!("20.{network}.{number}.1:4433").parse().unwrap();
        Hint {
            node_id: NodeId::from_bytes([number; 32]),
            address: Address::new(address).unwrap(),
        }
    }

    #[test]
    fn many_of_one_network_do_not_crowd_out_the_others() {
        let crowd = (0..100).map(|one| known(one, 7));
        let others = (100..108).map(|one| known(one, one));
        let hints = chosen(
            crowd.chain(others).collect(),
            16,
            &mut Entropy::from_seed([2; 32]),
        );
        let of_crowd = |hint: &&Hint| hint.node_id.as_bytes()[0] < 100;
        assert_eq!(hints.len(), 16);
        assert_eq!(hints.iter().filter(of_crowd).count(), 8);
    }

    #[test]
    fn nobody_is_named_twice() {
        let all: Vec<_> = (0..5).map(|one| known(one, one)).collect();
        let hints = chosen(all, 16, &mut Entropy::from_seed([3; 32]));
        let different: BTreeSet<_> = hints.iter().map(|hint| hint.node_id).collect();
        assert_eq!((hints.len(), different.len()), (5, 5));
    }
}
