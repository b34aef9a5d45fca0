//! What each peer reports (PROTOCOL section 6): two sets of rows a reporter, its hop 1 and its hop 2.

use super::ReportedHop;
use super::index::Row;
use crate::domain::NodeId;
use roaring::RoaringBitmap;

/// A reporter's number: small, and given again once it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reporter(u8);

#[derive(Clone, Debug)]
struct Sets {
    node: NodeId,
    hop_1: RoaringBitmap,
    hop_2: RoaringBitmap,
}

/// The sets of all reporters.
#[derive(Clone, Debug, Default)]
pub struct ReporterSets(Vec<Option<Sets>>);

impl ReporterSets {
    /// Reporters at once: an entry counts them in one byte.
    pub const REPORTERS_MAX: usize = 255;

    /// Who reports, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Reporter, NodeId)> {
        let all = self.0.iter().enumerate();
        all.filter_map(|(number, sets)| Some((Reporter(number as u8), sets.as_ref()?.node)))
    }

    /// The number of a node, if it reports.
    #[must_use]
    pub fn by_node(&self, node: &NodeId) -> Option<Reporter> {
        self.iter()
            .find(|(_, other)| other == node)
            .map(|(reporter, _)| reporter)
    }

    /// Who is behind a number.
    #[must_use]
    pub fn node(&self, reporter: Reporter) -> Option<NodeId> {
        self.sets(reporter).map(|sets| sets.node)
    }

    /// The rows it names at this hop.
    #[must_use]
    pub fn rows(&self, reporter: Reporter, hop: ReportedHop) -> Option<&RoaringBitmap> {
        self.sets(reporter).map(|sets| match hop {
            ReportedHop::One => &sets.hop_1,
            ReportedHop::Two => &sets.hop_2,
        })
    }

    /// Who names this row at this hop.
    pub fn who(&self, hop: ReportedHop, row: Row) -> impl Iterator<Item = NodeId> {
        self.iter().filter_map(move |(reporter, node)| {
            self.rows(reporter, hop)?.contains(row).then_some(node)
        })
    }

    /// Bytes of the sets, nearly: what they take when written down.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sets = self.0.iter().flatten();
        sets.map(|sets| sets.hop_1.serialized_size() + sets.hop_2.serialized_size())
            .sum()
    }

    fn sets(&self, reporter: Reporter) -> Option<&Sets> {
        self.0.get(usize::from(reporter.0))?.as_ref()
    }

    pub(super) fn add(&mut self, node: NodeId) -> Option<Reporter> {
        if let Some(reporter) = self.by_node(&node) {
            return Some(reporter);
        }
        let number = match self.0.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.0.len() < Self::REPORTERS_MAX => {
                self.0.push(None);
                self.0.len() - 1
            }
            None => return None,
        };
        self.0[number] = Some(Sets {
            node,
            hop_1: RoaringBitmap::new(),
            hop_2: RoaringBitmap::new(),
        });
        Some(Reporter(number as u8))
    }

    fn set_mut(&mut self, reporter: Reporter, hop: ReportedHop) -> Option<&mut RoaringBitmap> {
        let sets = self.0.get_mut(usize::from(reporter.0))?.as_mut()?;
        Some(match hop {
            ReportedHop::One => &mut sets.hop_1,
            ReportedHop::Two => &mut sets.hop_2,
        })
    }

    pub(super) fn insert(&mut self, reporter: Reporter, hop: ReportedHop, row: Row) -> bool {
        self.set_mut(reporter, hop)
            .is_some_and(|set| set.insert(row))
    }

    pub(super) fn remove(&mut self, reporter: Reporter, hop: ReportedHop, row: Row) -> bool {
        self.set_mut(reporter, hop)
            .is_some_and(|set| set.remove(row))
    }

    pub(super) fn first_rows(
        &self,
        reporter: Reporter,
        rows_max: usize,
    ) -> Vec<(ReportedHop, Row)> {
        let hops = [ReportedHop::One, ReportedHop::Two];
        let named = hops.into_iter().flat_map(|hop| {
            let rows = self.rows(reporter, hop).into_iter().flatten();
            rows.map(move |row| (hop, row))
        });
        named.take(rows_max).collect()
    }

    pub(super) fn remove_if_empty(&mut self, reporter: Reporter) -> bool {
        let is_empty = self
            .sets(reporter)
            .is_none_or(|sets| sets.hop_1.is_empty() && sets.hop_2.is_empty());
        if is_empty && let Some(place) = self.0.get_mut(usize::from(reporter.0)) {
            *place = None;
        }
        is_empty
    }
}
