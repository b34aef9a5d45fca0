//! PROTOCOL sections 4 and 5: this node's Hello, and the record in it, which names only what a peer of that scope may know.
//!
//! Whoever dialled says Hello first; whoever accepted answers with Hello once the peer has a slot and with Goodbye if there is
//! none, so that nobody counts as up for a moment only.

use crate::Installer;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{
    Address, AddressBody, AddressRecord, NodeId, Scope, Signed, next_seq,
};
use distsoc_engine::io::Slot;
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Hello, Purpose};
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Greeting, Link, PeerChanges, Peers, peers_changed};
use std::collections::{BTreeMap, BTreeSet};

/// Own records are looked at this often; they are signed anew when half their life is over.
const RENEWAL_MS: u64 = 60 * 60 * 1000;

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

/// The own record for peers in a scope, signed anew where what it says has changed or half its life is over.
/// `None` where there is nothing to tell.
fn record_for(
    own: &mut OwnAddresses,
    identity: &Identity,
    profile: &NodeProfile,
    scope: Scope,
    now: Now,
) -> Option<AddressRecord> {
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

fn purpose_of(slot: Slot) -> Purpose {
    match slot {
        Slot::Social => Purpose::Social,
        Slot::Wide => Purpose::Wide,
        Slot::Visit => Purpose::Visit,
    }
}

/// What a Hello is made of, and the way out.
#[derive(SystemParam)]
struct Speaker<'w> {
    now: Res<'w, Now>,
    profile: Res<'w, NodeProfile>,
    identity: Res<'w, Identity>,
    own: ResMut<'w, OwnAddresses>,
    outbox: ResMut<'w, Outbox>,
}

impl Speaker<'_> {
    fn say(&mut self, link: &Link, purpose: Purpose) {
        // The record is kept for the next Hello; nothing that others watch has changed.
        let own = self.own.bypass_change_detection();
        let remote = link.remote;
        let scope = Scope::of(remote.ip());
        let record = record_for(own, &self.identity, &self.profile, scope, *self.now);
        let observed = Address::new(remote).ok();
        let (kind, behind_nat) = (self.profile.kind, own.behind_nat);
        let hello = Hello::new(kind, purpose, behind_nat, false, record, observed);
        self.outbox.send(link.id, &hello.into());
    }
}

/// When the own records are looked at next: mono ms.
#[derive(Resource, Debug, Default)]
struct NextRenewal(u64);

fn say_hello(
    mut speaker: Speaker<'_>,
    peers: Res<Peers>,
    changes: Res<PeerChanges>,
    begun: Query<(&Link, &Greeting), Added<Greeting>>,
    links: Query<&Link>,
) {
    for (link, greeting) in begun.iter().filter(|(link, _)| link.dialled()) {
        speaker.say(link, greeting.purpose);
    }
    for (_, link, slot) in changes.came_up() {
        let link = peers
            .by_link(link)
            .and_then(|entity| links.get(entity).ok());
        if let Some(link) = link.filter(|link| !link.dialled()) {
            speaker.say(link, purpose_of(slot));
        }
    }
}

/// Signs the own records anew, long before they end and whenever peers see this node elsewhere.
fn renew_records(mut speaker: Speaker<'_>, links: Query<&Link>, mut next: ResMut<NextRenewal>) {
    let now = *speaker.now;
    next.0 = now.after(RENEWAL_MS);
    let scopes: BTreeSet<Scope> = links
        .iter()
        .map(|link| Scope::of(link.remote.ip()))
        .collect();
    let own = speaker.own.bypass_change_detection();
    for scope in scopes {
        // Kept beside the others: whoever tells it looks there.
        let _ = record_for(own, &speaker.identity, &speaker.profile, scope, now);
    }
}

/// The own Hello.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(NextRenewal::default());
    frame.on_or_due(Occasions::LINK, peers_changed, Phase::Ingest, say_hello);
    // Nobody is woken for it.
    frame.due(
        |glance| {
            let is_over = glance.at::<Now>().mono_ms >= glance.at::<NextRenewal>().0;
            at_once_if(is_over || glance.has_changed::<OwnAddresses>())
        },
        Phase::Plan,
        renew_records,
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
}
