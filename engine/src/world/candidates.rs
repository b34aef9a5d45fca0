//! Whom this node could connect to: hints, people one has to do with, peers of before. PROTOCOL sections 4 and 6 bound
//! how often anybody is dialled, so that nobody can point the network at a victim.

use crate::domain::{Address, ConnectString, Host, NodeId, Prefix};
use crate::entropy::Entropy;
use crate::io::{CallError, DialId, DialTarget, Standing};
use crate::limits;
use crate::wire::Purpose;
use bevy_ecs::prelude::Resource;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Somebody to connect to.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    /// Where they may be.
    pub addresses: Vec<Address>,
    /// A DNS name to look up instead.
    pub host: Option<(String, u16)>,
    /// Kept and dialled again for ever: a person asked for it, or it is followed.
    pub wanted: bool,
    /// Listed in anchors.json, or was an anchor when last up.
    pub is_anchor: bool,
    /// A handshake proved the address: mono ms.
    pub proved_ms: Option<u64>,
    /// Dials that failed since the last that did not.
    pub failures: u32,
    /// Not dialled before this: mono ms.
    pub not_before_ms: u64,
}

impl Candidate {
    /// Where a dial goes, if anywhere.
    #[must_use]
    pub fn target(&self) -> Option<DialTarget> {
        match &self.host {
            Some((name, port)) => Some(DialTarget::Host {
                name: name.clone(),
                port: *port,
            }),
            None if self.addresses.is_empty() => None,
            None => Some(DialTarget::Addresses(self.addresses.clone())),
        }
    }

    /// Whether the person or an earlier handshake vouches for the address, so that only the back-off holds.
    #[must_use]
    pub fn is_vouched(&self) -> bool {
        self.wanted || self.is_anchor || self.proved_ms.is_some()
    }

    fn learn(&mut self, address: Address) {
        self.addresses.retain(|known| *known != address);
        self.addresses.insert(0, address);
        self.addresses.truncate(limits::CANDIDATE_ADDRESSES_MAX);
    }
}

/// The pause after so many failures in a row: doubling from [`limits::REDIAL_MS_MIN`] to [`limits::REDIAL_MS_MAX`].
#[must_use]
pub fn redial_pause_ms(failures: u32) -> u64 {
    limits::REDIAL_MS_MIN
        .saturating_mul(1 << failures.min(20))
        .min(limits::REDIAL_MS_MAX)
}

/// Everybody who could be dialled, at most [`limits::CANDIDATES_MAX`].
#[derive(Resource, Debug, Default)]
pub struct Candidates(BTreeMap<NodeId, Candidate>);

impl Candidates {
    /// The candidate of this id, made if there is room: an unwanted one leaves for a wanted one, the one with the most
    /// failures first.
    fn entry(&mut self, node: NodeId, wanted: bool) -> Option<&mut Candidate> {
        if !self.0.contains_key(&node) && self.0.len() >= limits::CANDIDATES_MAX {
            let weakest = self
                .0
                .iter()
                .filter(|(_, candidate)| !candidate.wanted && (wanted || candidate.failures > 0))
                .max_by_key(|(_, candidate)| candidate.failures)
                .map(|(node, _)| *node)?;
            self.0.remove(&weakest);
        }
        Some(self.0.entry(node).or_default())
    }

    /// Somebody said that this node may be there.
    pub fn hint(&mut self, node: NodeId, address: Address) -> bool {
        let is_new = !self.0.contains_key(&node);
        match self.entry(node, false) {
            // A hint never displaces what a handshake or the person vouches for.
            Some(candidate) if candidate.is_vouched() && !candidate.addresses.is_empty() => {
                if candidate.addresses.len() < limits::CANDIDATE_ADDRESSES_MAX
                    && !candidate.addresses.contains(&address)
                {
                    candidate.addresses.push(address);
                }
                false
            }
            Some(candidate) => {
                candidate.learn(address);
                is_new
            }
            None => false,
        }
    }

    /// The person, or their anchors file, names a place.
    pub fn want(&mut self, node: NodeId, place: Option<&ConnectString>, is_anchor: bool) {
        let Some(candidate) = self.entry(node, true) else {
            return;
        };
        candidate.wanted |= !is_anchor;
        candidate.is_anchor |= is_anchor;
        candidate.failures = 0;
        candidate.not_before_ms = 0;
        if let Some(place) = place {
            match place.host() {
                Host::Name(name) => candidate.host = Some((name.clone(), place.port())),
                Host::Ip(_) => {
                    if let Some(address) = place.address() {
                        // What the person says now counts, not what was heard before.
                        candidate.host = None;
                        candidate.addresses.clear();
                        candidate.learn(address);
                    }
                }
            }
        }
    }

    /// The person does not ask for it any more.
    pub fn unwant(&mut self, node: &NodeId) {
        if let Some(candidate) = self.0.get_mut(node) {
            candidate.wanted = false;
        }
    }

    /// A handshake with this node at this address succeeded.
    pub fn proved(&mut self, node: NodeId, address: Option<Address>, is_anchor: bool, now_ms: u64) {
        let Some(candidate) = self.entry(node, false) else {
            return;
        };
        candidate.failures = 0;
        candidate.is_anchor |= is_anchor;
        if let Some(address) = address {
            candidate.learn(address);
            candidate.proved_ms = Some(now_ms);
        }
    }

    /// The connection went, or a dial failed: dialled again after a jittered pause.
    pub fn failed(&mut self, node: &NodeId, now_ms: u64, entropy: &mut Entropy) {
        let Some(candidate) = self.0.get_mut(node) else {
            return;
        };
        let pause_ms = redial_pause_ms(candidate.failures);
        candidate.failures += 1;
        candidate.not_before_ms = now_ms + entropy.jittered(pause_ms);
        // A stranger who fails again and again stays remembered, so that the next hint does not begin anew.
        // A good peer of before gets more chances: while it holds a connection that died with our last run, it may take
        // the first few new ones for duplicates.
        let failures_max = match candidate {
            Candidate { wanted: true, .. }
            | Candidate {
                is_anchor: true, ..
            } => u32::MAX,
            Candidate {
                proved_ms: Some(_), ..
            } => GOOD_PEER_FAILURES_MAX,
            _ => STRANGER_FAILURES_MAX,
        };
        if candidate.failures > failures_max {
            candidate.not_before_ms = now_ms + entropy.jittered(STRANGER_PAUSE_MS);
        }
    }

    /// Does not dial before this: mono ms.
    pub fn postpone(&mut self, node: &NodeId, until_ms: u64) {
        if let Some(candidate) = self.0.get_mut(node) {
            candidate.not_before_ms = candidate.not_before_ms.max(until_ms);
        }
    }

    /// Dials everybody again at once, as after a change of the own address.
    pub fn forgive_all(&mut self) {
        for candidate in self.0.values_mut() {
            candidate.failures = 0;
            candidate.not_before_ms = 0;
        }
    }

    /// The candidate of this id.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Candidate> {
        self.0.get(node)
    }

    /// Everybody, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Candidate)> {
        self.0.iter()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Dials of a stranger that may fail before a long pause.
const STRANGER_FAILURES_MAX: u32 = 3;
/// Dials of a peer of before that may fail, some minutes altogether.
const GOOD_PEER_FAILURES_MAX: u32 = 8;
/// The long pause.
const STRANGER_PAUSE_MS: u64 = 30 * 60 * 1000;

/// PROTOCOL section 4, whatever the NodeId: one dial per 10 min to an ip:port that failed, 4 a minute per /24 (/48).
#[derive(Resource, Debug, Default)]
pub struct DialLimits {
    failed_until_ms: BTreeMap<Address, u64>,
    prefixes: BTreeMap<Prefix, (u64, u32)>,
}

impl DialLimits {
    /// Whether this address may be dialled now; takes one dial of its prefix if so. Local scopes are exempt.
    pub fn permit(&mut self, address: Address, now_ms: u64) -> bool {
        if address.scope().is_local() {
            return true;
        }
        self.forget_old(now_ms);
        if self.failed_until_ms.contains_key(&address)
            || self.prefixes.len() >= limits::DIAL_MEMORY_MAX
        {
            return false;
        }
        let (_, dials) = self.prefixes.entry(address.prefix()).or_insert((now_ms, 0));
        *dials += 1;
        *dials <= limits::DIALS_PER_PREFIX_MINUTE_MAX
    }

    /// A dial there failed.
    pub fn failed(&mut self, address: Address, now_ms: u64) {
        if address.scope().is_local() || self.failed_until_ms.len() >= limits::DIAL_MEMORY_MAX {
            return;
        }
        self.failed_until_ms
            .insert(address, now_ms + limits::DIAL_FAILED_PAUSE_MS);
    }

    /// The way out has changed: failures of before say nothing.
    pub fn forget_failures(&mut self) {
        self.failed_until_ms.clear();
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.failed_until_ms.retain(|_, until| *until > now_ms);
        self.prefixes
            .retain(|_, (since, _)| *since + 60_000 > now_ms);
    }
}

/// A dial under way.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Whom.
    pub node: NodeId,
    /// What for.
    pub purpose: Purpose,
    /// Where.
    pub addresses: Vec<Address>,
}

/// Dials under way, at most [`limits::DIALS_IN_FLIGHT_MAX`], and what became of others in this frame.
#[derive(Resource, Debug, Default)]
pub struct Dialling {
    attempts: BTreeMap<DialId, Attempt>,
    /// Connections of this frame that did not come up.
    pub lost: Vec<Lost>,
}

/// A connection that was dialled and did not come up.
#[derive(Clone, Debug)]
pub struct Lost {
    /// To whom.
    pub node: NodeId,
    /// Where: another place may still be worth a try. `None` where the answer is the same everywhere.
    pub remote: Option<SocketAddr>,
    /// What a person who asked for it is told.
    pub why: CallError,
}

impl Dialling {
    /// A dial has begun.
    pub fn begin(&mut self, dial: DialId, attempt: Attempt) {
        self.attempts.insert(dial, attempt);
    }

    /// A dial has ended.
    pub fn finish(&mut self, dial: DialId) -> Option<Attempt> {
        self.attempts.remove(&dial)
    }

    /// Whether this node is being dialled.
    #[must_use]
    pub fn is_dialling(&self, node: &NodeId) -> bool {
        self.attempts.values().any(|attempt| attempt.node == *node)
    }

    /// Who is being dialled.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.attempts.values().map(|attempt| &attempt.node)
    }

    /// How many are under way.
    #[must_use]
    pub fn count(&self) -> usize {
        self.attempts.len()
    }
}

/// How well the node is connected, as last told.
#[derive(Resource, Debug)]
pub struct CurrentStanding(pub Standing);

/// PROTOCOL section 6: a peer that was dropped is not taken back for a time that doubles with each drop.
#[derive(Resource, Debug, Default)]
pub struct CoolOffs(BTreeMap<NodeId, CoolOff>);

#[derive(Clone, Copy, Debug)]
struct CoolOff {
    until_ms: u64,
    drops: u32,
}

/// How long a peer that was dropped so many times before stays away.
#[must_use]
pub fn cool_off_ms(drops_before: u32) -> u64 {
    limits::COOL_OFF_MS_MIN
        .saturating_mul(1 << drops_before.min(20))
        .min(limits::COOL_OFF_MS_MAX)
}

impl CoolOffs {
    /// Drops a peer; returns until when.
    pub fn drop_peer(&mut self, node: NodeId, now_ms: u64) -> u64 {
        if self.0.len() >= limits::COOL_OFF_MEMORY_MAX && !self.0.contains_key(&node) {
            let soonest = self
                .0
                .iter()
                .min_by_key(|(_, entry)| entry.until_ms)
                .map(|(node, _)| *node);
            soonest.and_then(|node| self.0.remove(&node));
        }
        let entry = self.0.entry(node).or_insert(CoolOff {
            until_ms: 0,
            drops: 0,
        });
        entry.until_ms = now_ms + cool_off_ms(entry.drops);
        entry.drops += 1;
        entry.until_ms
    }

    /// Whether a peer is not welcome now. What was long ago is forgotten.
    pub fn is_cooling(&mut self, node: &NodeId, now_ms: u64) -> bool {
        match self.0.get(node) {
            Some(entry) if entry.until_ms > now_ms => true,
            Some(entry) if entry.until_ms + limits::COOL_OFF_MS_MAX <= now_ms => {
                self.0.remove(node);
                false
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        NodeId::from_bytes(crate::crypto::hash(&number.to_be_bytes()))
    }

    fn address(text: &str) -> Address {
        Address::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn pauses_double_and_end() {
        assert_eq!(redial_pause_ms(0), 1_000);
        assert_eq!(redial_pause_ms(3), 8_000);
        assert_eq!(redial_pause_ms(99), limits::REDIAL_MS_MAX);
        assert_eq!(cool_off_ms(0), 5 * 60_000);
        assert_eq!(cool_off_ms(1), 10 * 60_000);
        assert_eq!(cool_off_ms(40), limits::COOL_OFF_MS_MAX);
    }

    #[test]
    fn invented_hints_cannot_grow_the_memory_nor_displace_the_wanted() {
        let mut candidates = Candidates::default();
        candidates.want(node(0), None, false);
        for number in 1..10_000 {
            candidates.hint(node(number), address("8.8.8.8:4000"));
        }
        assert_eq!(candidates.len(), limits::CANDIDATES_MAX);
        assert!(candidates.get(&node(0)).is_some());
        candidates.want(node(20_000), None, false);
        assert!(candidates.get(&node(20_000)).is_some());
        assert_eq!(candidates.len(), limits::CANDIDATES_MAX);
    }

    #[test]
    fn a_victim_is_dialled_rarely_whatever_the_ids() {
        let mut dials = DialLimits::default();
        let victim = address("8.8.8.8:4000");
        let permitted = (0..1000).filter(|_| dials.permit(victim, 0)).count();
        assert_eq!(permitted, 4);
        dials.failed(victim, 0);
        assert!(!dials.permit(victim, 599_999));
        assert!(dials.permit(victim, 600_000));
        assert!(
            (0..100).all(|_| dials.permit(address("127.0.0.1:4000"), 0)),
            "development scope"
        );
    }

    #[test]
    fn strangers_get_a_long_pause_that_no_hint_ends() {
        let (mut candidates, mut entropy) = (Candidates::default(), Entropy::from_seed([1; 32]));
        candidates.hint(node(1), address("8.8.8.8:4000"));
        candidates.want(node(2), None, false);
        candidates.proved(node(3), Some(address("9.9.9.9:4000")), false, 0);
        // Longer than a peer may hold a connection that died with our last run.
        for _ in 0..8 {
            candidates.failed(&node(3), 0, &mut entropy);
        }
        let of_before = candidates.get(&node(3)).unwrap().not_before_ms;
        assert!(of_before < STRANGER_PAUSE_MS / 2);
        for _ in 0..50 {
            candidates.failed(&node(1), 0, &mut entropy);
            candidates.failed(&node(2), 0, &mut entropy);
        }
        candidates.hint(node(1), address("8.8.8.8:4000"));
        assert!(candidates.get(&node(1)).unwrap().not_before_ms > STRANGER_PAUSE_MS / 2);
        let wanted = candidates.get(&node(2)).unwrap().not_before_ms;
        assert!(wanted <= limits::REDIAL_MS_MAX + limits::REDIAL_MS_MAX / 4);
    }

    #[test]
    fn cooling_off_doubles_and_its_memory_is_bounded() {
        let mut cool_offs = CoolOffs::default();
        assert_eq!(cool_offs.drop_peer(node(1), 0), 5 * 60_000);
        assert!(cool_offs.is_cooling(&node(1), 5 * 60_000 - 1));
        assert!(!cool_offs.is_cooling(&node(1), 5 * 60_000));
        assert_eq!(
            cool_offs.drop_peer(node(1), 1_000_000),
            1_000_000 + 10 * 60_000
        );
        for number in 0..10_000 {
            cool_offs.drop_peer(node(number), 0);
        }
        assert!(cool_offs.0.len() <= limits::COOL_OFF_MEMORY_MAX);
    }
}
