//! A search as one node sees it: what it looks for, what was found, whom it was handed to, and which ways are left. Decides, and
//! sends nothing.

use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, Network, NodeId};
use distsoc_engine::io::{LinkId, RequestId, Slot, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{
    WormFinding, WormNear, WormOrigin, WormRequest, WormResponse, WormTarget,
};
use distsoc_engine::world::knowledge::{Knowledge, Way};
use distsoc_engine::world::peers::is_tellable;
use distsoc_engine::world::searches::SearchId;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Known ids closest to a target that a node considers as bearings.
const BEARINGS: usize = 8;
/// Nodes near the targets that a search remembers.
const NEAR_KEPT: usize = 16;

/// Who is told what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Own(SearchId),
    Peer { link: LinkId, stream: StreamToken },
}

/// A request of a worm's that has no answer yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) request: RequestId,
    pub(super) via: LinkId,
    pub(super) is_query: bool,
    /// The places of its targets in the worm's own list.
    pub(super) targets: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing was asked yet.
    Begun,
    /// So many peers were asked what they know.
    FannedOut {
        since_ms: u64,
        until_ms: u64,
        asked: usize,
    },
    /// The search is with others.
    HandedOn,
    /// Nobody leads closer: the peers nearest to the target were asked.
    InRegion { until_ms: u64 },
    /// They have answered.
    Last,
}

/// When the wait for those asked is over: once two thirds have answered, as long again as that took, for the dead and the slow
/// would take all of the time there is.
pub(super) fn wait_until_ms(
    since_ms: u64,
    until_ms: u64,
    asked: usize,
    open: usize,
    now_ms: u64,
) -> u64 {
    match open * 3 <= asked {
        true => until_ms.min(now_ms + (now_ms - since_ms)),
        false => until_ms,
    }
}

/// A search as this node sees it.
#[derive(Debug)]
pub(super) struct Worm {
    pub(super) asker: Asker,
    pub(super) asker_remote: SocketAddr,
    pub(super) search: u64,
    pub(super) path: u8,
    pub(super) ttl: u8,
    pub(super) budget: u16,
    pub(super) patience_ms: u64,
    pub(super) until_ms: u64,
    pub(super) targets: Vec<WormTarget>,
    /// Who may be told directly.
    pub(super) origin: Option<WormOrigin>,
    pub(super) found: Vec<Option<WormFinding>>,
    pub(super) near: Vec<AddressRecord>,
    pub(super) leads: Vec<(u8, Way)>,
    pub(super) open: Vec<Open>,
    pub(super) tried: BTreeSet<(u8, LinkId)>,
    pub(super) stage: Stage,
    pub(super) attempts: u8,
    /// Another way is tried then, though the one before may still answer: mono ms.
    pub(super) hedge_ms: u64,
    /// Nothing is to be done before: mono ms.
    pub(super) due_ms: u64,
    /// Peers are not all asked first.
    pub(super) is_quiet: bool,
}

/// The first three paths of a search begin in different networks (/16, IPv6 /32), and one of them at a social peer.
pub(super) fn is_disjoint(
    begun: &[(Slot, Option<Network>)],
    slot: Slot,
    network: Option<Network>,
) -> bool {
    let is_new = network.is_none() || begun.iter().all(|(_, other)| *other != network);
    let is_last = begun.len() + 1 == usize::from(limits::WORM_PATHS);
    let needs_social = is_last && begun.iter().all(|(slot, _)| *slot != Slot::Social);
    is_new && (!needs_social || slot == Slot::Social)
}

impl Worm {
    /// A search that begins at this node, or has come to it.
    pub(super) fn new(
        asker: Asker,
        asker_remote: SocketAddr,
        request: WormRequest,
        now: Now,
    ) -> Self {
        let targets = request.targets.into_vec();
        let patience_ms = u64::from(request.patience_ms);
        Self {
            asker,
            asker_remote,
            search: request.search,
            path: request.path,
            ttl: request.ttl,
            budget: request.budget,
            patience_ms,
            until_ms: now.after(patience_ms),
            found: vec![None; targets.len()],
            targets,
            origin: request.origin,
            near: Vec::new(),
            leads: Vec::new(),
            open: Vec::new(),
            tried: BTreeSet::new(),
            stage: Stage::Begun,
            attempts: 0,
            hedge_ms: 0,
            due_ms: 0,
            is_quiet: false,
        }
    }

    pub(super) fn is_own(&self) -> bool {
        matches!(self.asker, Asker::Own(_))
    }

    pub(super) fn unfound(&self) -> impl Iterator<Item = (u8, WormTarget)> {
        let all = self.targets.iter().zip(&self.found).enumerate();
        all.filter(|(_, (_, found))| found.is_none())
            .map(|(place, (target, _))| (place as u8, *target))
    }

    pub(super) fn has_found_all(&self) -> bool {
        self.found.iter().all(Option::is_some)
    }

    /// How many who were handed the search may still answer.
    pub(super) fn waits_for(&self) -> usize {
        self.open.iter().filter(|open| !open.is_query).count()
    }

    /// How many are to have it at once.
    pub(super) fn paths(&self) -> usize {
        match self.is_own() {
            true => usize::from(limits::WORM_PATHS),
            false => 1,
        }
    }

    /// Takes in what one of those asked has answered. Refuses what names nobody who was looked for.
    pub(super) fn take(
        &mut self,
        request: RequestId,
        response: WormResponse,
        knowledge: &Knowledge<'_, '_>,
    ) -> Result<(), (LinkId, Refusal)> {
        let Some(at) = self.open.iter().position(|open| open.request == request) else {
            return Ok(());
        };
        let open = self.open.swap_remove(at);
        let now = knowledge.now();
        let told_by = knowledge.peer(open.via).map(|(link, _)| link.remote);
        let place_of = |target: u8| {
            let place = open.targets.get(usize::from(target)).copied();
            place.ok_or((open.via, Refusal::OutOfRange))
        };
        for finding in response.found.into_vec() {
            let place = place_of(finding.target)?;
            let target = self.targets[usize::from(place)];
            let is_it = match target {
                WormTarget::Node(node) => finding.record.node_id == node,
                WormTarget::Post(_) | WormTarget::Author(_) => true,
            };
            if !is_it {
                return Err((open.via, Refusal::WrongAuthor));
            }
            if !told_by.is_some_and(|by| is_tellable(&finding.record, by, now)) {
                continue;
            }
            let links = finding.links.saturating_add(1);
            let found = &mut self.found[usize::from(place)];
            if found.as_ref().is_none_or(|known| links < known.links) {
                *found = Some(WormFinding {
                    target: place,
                    links,
                    record: finding.record,
                });
            }
        }
        for near in response.near.into_vec() {
            let place = place_of(near.target)?;
            self.take_near(place, near, &open, told_by, knowledge);
        }
        Ok(())
    }

    fn take_near(
        &mut self,
        place: u8,
        near: WormNear,
        open: &Open,
        told_by: Option<SocketAddr>,
        knowledge: &Knowledge<'_, '_>,
    ) {
        let WormTarget::Node(target) = self.targets[usize::from(place)] else {
            return;
        };
        let peer = knowledge.peer(open.via).map(|(link, _)| link.node);
        let is_second = self
            .leads
            .iter()
            .any(|(of, way)| *of == place && way.via == open.via);
        if open.is_query && near.node != knowledge.own() && !is_second {
            let way = Way {
                distance: target.distance(&near.node),
                bearing: near.node,
                via: open.via,
                arrives: peer == Some(near.node),
            };
            self.leads.push((place, way));
        }
        if let Some(record) = near.record
            && told_by.is_some_and(|by| is_tellable(&record, by, knowledge.now()))
        {
            self.note_near(record);
        }
    }

    /// Remembers who is near one of the targets.
    fn note_near(&mut self, record: AddressRecord) {
        if self
            .near
            .iter()
            .any(|known| known.node_id == record.node_id)
        {
            return;
        }
        let targets: Vec<NodeId> = node_targets(&self.targets).collect();
        self.near.push(record);
        self.near.sort_by_key(|record| {
            let distances = targets
                .iter()
                .map(|target| target.distance(&record.node_id));
            distances.min()
        });
        self.near.truncate(NEAR_KEPT);
    }

    /// The ways to go on with a target, best first: by turns the closest of all that anybody named, and those of the own map.
    pub(super) fn ways(
        &self,
        place: u8,
        target: WormTarget,
        knowledge: &Knowledge<'_, '_>,
    ) -> Vec<Way> {
        let WormTarget::Node(target) = target else {
            return Vec::new();
        };
        let own = target.distance(&knowledge.own());
        let mut ways = knowledge.ways(&target, BEARINGS);
        // Every node on a path must be closer than the one that chose it: so no path goes round.
        ways.retain(|way| way.distance < own || self.is_own());
        let by_closeness = |way: &Way| (way.distance, !way.arrives);
        ways.sort_by_key(by_closeness);
        let own_map = ways.len();
        let of_place = self.leads.iter().filter(|(other, _)| *other == place);
        ways.extend(of_place.map(|(_, way)| *way));
        // Anybody can promise an id right beside the target: so every second attempt goes by the own map first.
        match self.attempts % 2 {
            0 => ways.sort_by_key(by_closeness),
            _ => ways[own_map..].sort_by_key(by_closeness),
        }
        ways
    }
}

pub(super) fn node_targets(targets: &[WormTarget]) -> impl Iterator<Item = NodeId> {
    targets.iter().filter_map(|target| match target {
        WormTarget::Node(node) => Some(*node),
        WormTarget::Post(_) | WormTarget::Author(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_third_is_waited_for_as_long_as_the_others_took() {
        let wait = |open, now_ms| wait_until_ms(1_000, 1_500, 90, open, now_ms);
        assert_eq!(wait(90, 1_010), 1_500);
        assert_eq!(wait(31, 1_090), 1_500);
        assert_eq!(wait(30, 1_100), 1_200);
        assert_eq!(wait(1, 1_400), 1_500);
    }

    #[test]
    fn three_paths_begin_in_three_networks_and_one_at_a_social_peer() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        let (a, b, c) = (network("8.8.1.1"), network("8.9.1.1"), network("9.8.1.1"));
        assert_eq!(a, network("8.8.200.1"));
        assert!(is_disjoint(&[], Slot::Wide, a));
        assert!(!is_disjoint(&[(Slot::Wide, a)], Slot::Social, a));
        let begun = [(Slot::Wide, a), (Slot::Wide, b)];
        assert!(!is_disjoint(&begun, Slot::Wide, c) && is_disjoint(&begun, Slot::Social, c));
        let local = network("127.0.0.1");
        assert!(is_disjoint(&[(Slot::Social, local)], Slot::Wide, local));
        assert_ne!(network("2001:500::1"), network("2001:501::1"));
    }
}
