//! PROTOCOL section 4: where this node can be reached, and what it does when the way out changes.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::domain::{Address, NodeId, Scope};
use distsoc_engine::io::Effect;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::GoodbyeReason;
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::candidates::{Candidates, DialLimits};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Link;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Behind NAT: nobody on the other side of a connection sees this node at an address of its own. Before anybody said
/// anything, a machine with a global or only a loopback address counts as open.
fn is_behind_nat(local: &[Address], observed: &BTreeMap<NodeId, Address>) -> bool {
    let is_local = |address: &&Address| local.contains(address);
    if observed.is_empty() {
        return !local.is_empty()
            && !local
                .iter()
                .any(|address| matches!(address.scope(), Scope::Global | Scope::Loopback));
    }
    !observed.values().any(|address| is_local(&address))
}

/// Usable addresses of what the driver told, without duplicates.
fn usable(told: &[SocketAddr]) -> Vec<Address> {
    let mut usable: Vec<Address> = told
        .iter()
        .filter_map(|address| Address::new(*address).ok())
        .collect();
    usable.sort_unstable();
    usable.dedup();
    usable
}

fn learn_own_addresses(
    mut inbox: ResMut<Inbox>,
    mut own: ResMut<OwnAddresses>,
    mut candidates: ResMut<Candidates>,
    mut dial_limits: ResMut<DialLimits>,
    mut outbox: ResMut<Outbox>,
    links: Query<&Link>,
) {
    let Some(told) = inbox.own_addresses.take() else {
        return;
    };
    let local = usable(&told);
    if local == own.local {
        return;
    }
    let lost_one = own.local.iter().any(|address| !local.contains(address));
    own.local = local;
    if lost_one {
        // The client side of a QUIC connection cannot move: everybody is dialled anew, at once (section 6: back
        // within 5 s).
        own.observed.clear();
        candidates.forgive_all();
        dial_limits.forget_failures();
        for link in &links {
            outbox.close(link.id, GoodbyeReason::Stopping);
        }
    }
}

fn decide_reachability(
    mut own: ResMut<OwnAddresses>,
    profile: Res<NodeProfile>,
    mut outbox: ResMut<Outbox>,
) {
    let behind_nat = is_behind_nat(&own.local, &own.observed);
    if behind_nat != own.behind_nat || own.is_added() {
        own.behind_nat = behind_nat;
        let ms = if behind_nat {
            profile.idle_timeout_ms
        } else {
            profile.open_idle_timeout_ms
        };
        outbox.push(Effect::OfferIdleTimeout { ms });
    }
}

/// Own addresses and reachability.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::OWN_ADDRESSES, Phase::Ingest, learn_own_addresses);
    frame.due(
        |glance| at_once_if(glance.has_changed::<OwnAddresses>()),
        Phase::Plan,
        decide_reachability,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::new(text.parse().unwrap()).unwrap()
    }

    fn observers(addresses: &[&str]) -> BTreeMap<NodeId, Address> {
        let pair = |(number, text): (usize, &&str)| {
            (NodeId::from_bytes([number as u8; 32]), address(text))
        };
        addresses.iter().enumerate().map(pair).collect()
    }

    #[test]
    fn behind_nat_is_what_peers_see() {
        let private = [address("192.168.1.5:4000")];
        assert!(is_behind_nat(&private, &BTreeMap::new()));
        assert!(!is_behind_nat(
            &[address("127.0.0.1:4000")],
            &BTreeMap::new()
        ));
        assert!(is_behind_nat(&private, &observers(&["9.9.9.9:5000"])));
        assert!(!is_behind_nat(
            &private,
            &observers(&["9.9.9.9:5000", "192.168.1.5:4000"])
        ));
    }
}
