//! PROTOCOL section 4: where this node can be reached, what it says about it to whom, and what it does when the way out
//! changes.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    Address, AddressBody, AddressRecord, NodeId, Scope, Signed, next_seq,
};
use distsoc_engine::io::Effect;
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::schedule::Phase;
use distsoc_engine::wire::GoodbyeReason;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::candidates::{Candidates, DialLimits};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Link;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Peers that must agree on an address of ours before it is told to others; a single one could lie.
const OBSERVERS_MIN: usize = 2;

/// The addresses that a peer in this scope may be told: global ones always, others within the same scope, local ones
/// first, then what several peers observe; at most 3 of a prefix and 8 in all.
fn addresses_for(
    scope: Scope,
    local: &[Address],
    observed: &BTreeMap<NodeId, Address>,
) -> Vec<Address> {
    let agreed = observed.values().filter(|address| {
        let observers = observed.values().filter(|other| other == address).count();
        address.scope() == Scope::Global && observers >= OBSERVERS_MIN
    });
    let mut told: Vec<Address> = Vec::new();
    for address in local.iter().chain(agreed) {
        let fits = address.scope() == Scope::Global || address.scope() == scope;
        let of_prefix = told
            .iter()
            .filter(|other| other.prefix() == address.prefix())
            .count();
        let crowded = !address.scope().is_local() && of_prefix >= limits::ADDRESSES_PER_PREFIX_MAX;
        if fits && !crowded && !told.contains(address) && told.len() < limits::ADDRESSES_MAX {
            told.push(*address);
        }
    }
    told
}

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

/// The own record for a peer seen at `remote`, signed anew where what it says has changed or half its life is over.
/// `None` where there is nothing to tell.
pub(super) fn record_for(
    own: &mut OwnAddresses,
    identity: &Identity,
    profile: &NodeProfile,
    remote: IpAddr,
    now: Now,
) -> Option<AddressRecord> {
    let scope = Scope::of(remote);
    let addresses = addresses_for(scope, &own.local, &own.observed);
    if addresses.is_empty() {
        return None;
    }
    if let Some(record) = own.records.get(&scope)
        && record.addresses[..] == addresses[..]
        && record.expiry_ms > now.wall_ms + limits::ADDRESS_RECORD_TTL_MS / 2
    {
        return Some(record.clone());
    }
    let seq = next_seq(own.last_seq, now);
    let body = AddressBody {
        node_id: identity.node_id(),
        addresses: Bounded::truncated(addresses),
        is_anchor: (profile.kind == ProfileKind::Anchor).into(),
        seq,
        expiry_ms: seq + limits::ADDRESS_RECORD_TTL_MS,
    };
    let record = Signed::sign(body, identity.secret());
    own.last_seq = Some(seq);
    own.records.insert(scope, record.clone());
    Some(record)
}

/// A peer told where it sees this node.
pub(super) fn observe(own: &mut OwnAddresses, by: NodeId, observed: Option<Address>) {
    match observed {
        Some(address) => own.observed.insert(by, address),
        None => own.observed.remove(&by),
    };
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
    if !own.is_changed() {
        return;
    }
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
    frame.add(Phase::Ingest, learn_own_addresses);
    frame.add(Phase::Plan, decide_reachability);
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
    fn local_addresses_are_told_within_their_scope_only() {
        let local = [
            address("127.0.0.1:4000"),
            address("192.168.1.5:4000"),
            address("8.8.8.8:4000"),
        ];
        let none = BTreeMap::new();
        assert_eq!(
            addresses_for(Scope::Loopback, &local, &none),
            [local[0], local[2]]
        );
        assert_eq!(
            addresses_for(Scope::Private, &local, &none),
            [local[1], local[2]]
        );
        assert_eq!(addresses_for(Scope::Global, &local, &none), [local[2]]);
    }

    #[test]
    fn one_observer_is_not_believed() {
        let liar = observers(&["9.9.9.9:5000"]);
        assert!(addresses_for(Scope::Global, &[], &liar).is_empty());
        let two = observers(&["9.9.9.9:5000", "9.9.9.9:5000"]);
        assert_eq!(
            addresses_for(Scope::Global, &[], &two),
            [address("9.9.9.9:5000")]
        );
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
