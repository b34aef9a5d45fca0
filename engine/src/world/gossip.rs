//! What two nodes tell each other of their maps (PROTOCOL section 6): what this node reports and to whom, and how far it has come
//! with what its peers report.

use crate::domain::NodeId;
use crate::io::{LinkId, RequestId};
use crate::limits;
use crate::wire::{InitialMapSync, MapItem, Named, RoutingDiff};
use crate::world::map::{
    MapEntry, NumberBook, ReportedHop, Reporter, Row, SetHash, Told, same_at_hop_1,
};
use bevy_ecs::prelude::{Component, Resource};
use roaring::RoaringBitmap;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// What this node reports: as of its last diff, the same to all peers.
#[derive(Resource, Debug, Default)]
pub struct Reported {
    /// Diffs so far.
    pub seq: u64,
    /// When the next diff is due: mono ms; `None` before the first frame.
    pub next_ms: Option<u64>,
    /// Rows of hop 1.
    pub hop_1: RoaringBitmap,
    /// Rows of hop 2.
    pub hop_2: RoaringBitmap,
    /// When the last one went out: mono ms.
    pub last_ms: u64,
    /// Where the peers of hop 1 were seen.
    pub addresses: BTreeMap<Row, SocketAddr>,
    /// Since when a peer of hop 1 has been away: mono ms.
    pub gone_ms: BTreeMap<Row, u64>,
    /// The numbers of their ids.
    pub book: NumberBook,
}

impl Reported {
    /// The rows of a hop.
    #[must_use]
    pub fn rows(&self, hop: ReportedHop) -> &RoaringBitmap {
        match hop {
            ReportedHop::One => &self.hop_1,
            ReportedHop::Two => &self.hop_2,
        }
    }

    /// Everything, with its hop; hop 1 alone if that is all that is wanted.
    pub fn all(&self, with_hop_2: bool) -> impl Iterator<Item = (ReportedHop, Row)> {
        let hop_2 = with_hop_2.then_some(&self.hop_2);
        let hop_1 = self.hop_1.iter().map(|row| (ReportedHop::One, row));
        hop_1.chain(
            hop_2
                .into_iter()
                .flatten()
                .map(|row| (ReportedHop::Two, row)),
        )
    }
}

/// A peer that has asked for this node's reports, on its connection's entity.
#[derive(Component, Debug)]
pub struct MapListener {
    /// Under the salt it drew.
    pub hash: SetHash,
    /// It wants hop 2 too.
    pub with_hop_2: bool,
    /// Which ids it has been told in full.
    pub told: Told,
    /// The sum of the hashes of all that is reported to it.
    pub digest: u64,
}

impl MapListener {
    /// Nothing told yet.
    #[must_use]
    pub fn new(salt: u64, with_hop_2: bool) -> Self {
        Self {
            hash: SetHash::new(salt),
            with_hop_2,
            told: Told::default(),
            digest: 0,
        }
    }

    /// How a row is named to this peer, who knows its number from now on.
    pub fn name(&mut self, row: Row, entry: &MapEntry, book: &NumberBook) -> MapItem {
        let named = match book.of(row) {
            Some(number) if self.told.knows(number) => Named::Known(number),
            Some(number) => {
                self.told.tell(number);
                Named::New(number, entry.node)
            }
            None => Named::Bare(entry.node),
        };
        MapItem {
            named,
            is_anchor: entry.is_anchor(),
        }
    }
}

/// How far a peer's report has come in.
#[derive(Debug)]
pub struct MapSync {
    /// Its sets.
    pub reporter: Reporter,
    /// Its connection; `None` while it is away.
    pub link: Option<LinkId>,
    /// Away since: mono ms.
    pub gone_ms: u64,
    /// When it last reported anything: mono ms.
    pub heard_ms: u64,
    /// The salt of this connection.
    pub salt: u64,
    /// The seq of the last diff, once the sets were the same.
    pub seq: Option<u64>,
    /// The digest it told last.
    pub told: u64,
    /// Its sets are larger than we take: digests say nothing of hop 2.
    pub is_capped: bool,
    /// Nor of hop 1.
    pub is_hop_1_capped: bool,
    /// It was asked for its hop 2 too: there was room for it.
    pub with_hop_2: bool,
    /// Syncs that failed or came too late, and diffs that made one necessary, since one last ended well.
    pub failures: u32,
    /// What comes next.
    pub step: SyncStep,
}

/// Where a sync stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStep {
    /// To be asked at this mono time, from this cell on.
    Due {
        /// Mono ms.
        at_ms: u64,
        /// The first cell that is not done.
        first_cell: u16,
    },
    /// Asked.
    Asked(RequestId),
    /// The answer came and waits to be applied.
    Answered,
    /// The sets are the same, as far as we know.
    Standing,
    /// It is away for good: its sets go, slice by slice.
    Forgetting,
}

impl MapSync {
    /// Of a reporter that is away and whose sets stand as they are.
    #[must_use]
    pub fn standing(reporter: Reporter) -> Self {
        Self {
            reporter,
            link: None,
            gone_ms: 0,
            heard_ms: 0,
            salt: 0,
            seq: None,
            told: 0,
            is_capped: false,
            is_hop_1_capped: false,
            with_hop_2: true,
            failures: 0,
            step: SyncStep::Standing,
        }
    }

    /// Whether a digest says that what is here is all that is taken of what the reporter names.
    #[must_use]
    pub fn agrees(&self, own: u64, told: u64) -> bool {
        let at_hop_1 = self.is_hop_1_capped || same_at_hop_1(own, told);
        own == told || self.is_capped && at_hop_1
    }

    /// How long to wait after a sync that failed, ms: doubling, since all that a reporter names may be told each time.
    #[must_use]
    pub fn retry_ms(&self) -> u64 {
        (limits::MAP_SYNC_RETRY_MS << self.failures.min(20)).min(limits::MAP_SYNC_RETRY_MS_MAX)
    }
}

/// Every peer that reports.
#[derive(Resource, Debug, Default)]
pub struct MapSyncs {
    /// How far each has come.
    pub by_node: BTreeMap<NodeId, MapSync>,
    /// Requests under way, to whom and on which connection, and the first cell asked for. A peer's older ones go on when it has a
    /// new connection, and then mean nothing.
    pub asked: BTreeMap<RequestId, (NodeId, LinkId, u16)>,
}

/// What peers that have gone reported last (PROTOCOL section 6, "a reporter that returns is reconciled, not dumped again"): of the last
/// [`limits::GONE_REPORTERS_MAX`], in the order in which they went. On no map.
#[derive(Resource, Debug, Default)]
pub struct GoneReporters(VecDeque<(NodeId, Vec<(ReportedHop, MapItem)>)>);

impl GoneReporters {
    /// Remembers one, unless it named more than [`limits::GONE_REPORTER_IDS_MAX`].
    pub fn remember(&mut self, node: NodeId, named: Vec<(ReportedHop, MapItem)>) {
        self.0.retain(|(known, _)| *known != node);
        if named.is_empty() || named.len() > limits::GONE_REPORTER_IDS_MAX {
            return;
        }
        if self.0.len() >= limits::GONE_REPORTERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((node, named));
    }

    /// Takes what is remembered of one that is back.
    pub fn take(&mut self, node: &NodeId) -> Option<Vec<(ReportedHop, MapItem)>> {
        let at = self.0.iter().position(|(known, _)| known == node)?;
        self.0.remove(at).map(|(_, named)| named)
    }
}

/// Reports that wait to be applied: a burst is spread over frames.
#[derive(Resource, Debug, Default)]
pub struct ReportQueue(pub VecDeque<Report>);

/// One of them.
#[derive(Debug)]
pub struct Report {
    /// From whom.
    pub node: NodeId,
    /// On which connection.
    pub link: LinkId,
    /// What.
    pub content: ReportContent,
}

/// What a peer reports.
#[derive(Debug)]
pub enum ReportContent {
    /// What changed.
    Diff(RoutingDiff),
    /// What it named when it went, before it is asked what has changed since.
    Remembered(Vec<(ReportedHop, MapItem)>),
    /// Cells that differ, from this one on.
    Cells {
        /// The first cell that was asked for.
        first_cell: u16,
        /// The answer.
        sync: InitialMapSync,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Entropy;
    use crate::world::map::DiscoveryMap;

    fn sync(is_capped: bool, is_hop_1_capped: bool) -> MapSync {
        let mut entropy = Entropy::from_seed([1; 32]);
        let own = NodeId::from_bytes([1; 32]);
        let mut map = DiscoveryMap::new(own, 100, &mut entropy);
        let reporter = map.add_reporter(NodeId::from_bytes([2; 32]));
        MapSync {
            is_capped,
            is_hop_1_capped,
            ..MapSync::standing(reporter.expect("the first of them"))
        }
    }

    #[test]
    fn after_failures_it_is_asked_ever_more_rarely() {
        let waits = [1, 2, 6, 200].map(|failures| {
            MapSync {
                failures,
                ..sync(false, false)
            }
            .retry_ms()
        });
        assert_eq!(
            waits,
            [4_000, 8_000, 128_000, limits::MAP_SYNC_RETRY_MS_MAX]
        );
    }

    #[test]
    fn who_takes_a_part_of_hop_2_goes_by_hop_1_and_who_takes_a_part_of_that_by_nothing() {
        let (own, other_hop_2, other_hop_1) = (0x7_0000_0005, 0x8_0000_0005, 0x7_0000_0006);
        let agrees = |is_capped, is_hop_1_capped| {
            let sync = sync(is_capped, is_hop_1_capped);
            [own, other_hop_2, other_hop_1].map(|told| sync.agrees(own, told))
        };
        assert_eq!(agrees(false, false), [true, false, false]);
        assert_eq!(agrees(true, false), [true, true, false]);
        assert_eq!(agrees(true, true), [true, true, true]);
    }
}
