//! What of the map stands on the disk, and what of it must be written (PROTOCOL section 12, `discovery_map`).
//!
//! The disk has an image of the map by row: which id a row stands for, and which rows each reporter names. Reporters are written
//! one after another over several frames, and each keeps what changes from then on; so the image is whole only when the last
//! call ([`DiscoveryMap::write_rest`]) has written what changed in between, in one frame. A row that was given up has no id on
//! the disk any more, until whoever names it next is written.

use super::reporters::Reporter;
use super::snapshot::{Chunk, MapImage, ReporterChanges};
use super::{DiscoveryMap, MapEdit, MapEntry, NEW_IDS_PER_FRAME, ReportedHop, Row, make_room};
use crate::domain::NodeId;
use bevy_ecs::prelude::World;
use bevy_ecs::system::SystemState;
use roaring::RoaringBitmap;
use std::collections::BTreeSet;

/// What is known of the disk beside the reporters' own [`super::reporters::Unwritten`].
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Rows whose id is on the disk.
    defined: RoaringBitmap,
    /// Rows given up since the image was whole: they may stand for another id by now.
    vacated: RoaringBitmap,
    /// Reporters that are on the disk and report no more.
    gone: BTreeSet<NodeId>,
}

impl Journal {
    pub(super) fn vacate(&mut self, row: Row) {
        if self.defined.remove(row) {
            self.vacated.insert(row);
        }
    }
}

/// How far one call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Rows written.
    pub rows: usize,
    /// Whether nothing of this reporter is left.
    pub is_all: bool,
}

const HOPS: [ReportedHop; 2] = [ReportedHop::One, ReportedHop::Two];

impl DiscoveryMap {
    /// Nothing is on the disk: a new snapshot begins.
    pub fn begin_snapshot(&mut self) {
        self.journal = Journal::default();
        let reporters: Vec<Reporter> = self.reporters.iter().map(|(number, _)| number).collect();
        for reporter in reporters {
            self.reporters.set_written(reporter, false);
        }
    }

    /// Whether a reporter is on the disk, be it as it was.
    #[must_use]
    pub fn is_written(&self, reporter: Reporter) -> bool {
        self.reporters.unwritten(reporter).is_some()
    }

    /// Writes what of a reporter is other than on the disk: the ids of rows first, at most so many in a call, then its sets.
    pub fn write_reporter(
        &mut self,
        reporter: Reporter,
        ids_max: usize,
        entries: &[MapEntry],
        chunk: &mut Chunk,
    ) -> Written {
        let sets = &self.reporters;
        let Some(node) = sets.node(reporter) else {
            return Written {
                rows: 0,
                is_all: true,
            };
        };
        let [Some(hop_1), Some(hop_2)] = HOPS.map(|hop| sets.rows(reporter, hop)) else {
            unreachable!("a reporter has its sets");
        };
        let names_us = HOPS.map(|hop| sets.names_us(reporter, hop));
        let news = match sets.unwritten(reporter) {
            Some(unwritten) => [&unwritten.hops[0] & hop_1, &unwritten.hops[1] & hop_2],
            None => [hop_1.clone(), hop_2.clone()],
        };
        let without_id = (&news[0] | &news[1]) - &self.journal.defined;
        let ids: RoaringBitmap = without_id.iter().take(ids_max).collect();
        if !ids.is_empty() {
            chunk.ids(&ids, entries);
            self.journal.defined |= &ids;
        }
        if ids.len() < without_id.len() {
            return Written {
                rows: ids.len() as usize,
                is_all: false,
            };
        }
        let mut rows = (ids.len() + news[0].len() + news[1].len()) as usize;
        match sets.unwritten(reporter) {
            None => chunk.reporter(&node, names_us, [hop_1, hop_2]),
            Some(unwritten) if unwritten.hops.iter().all(|rows| rows.is_empty()) => {
                if unwritten.names_us {
                    chunk.changed(
                        &node,
                        &ReporterChanges {
                            names_us,
                            ..ReporterChanges::default()
                        },
                    );
                }
            }
            Some(unwritten) => {
                let removed = [&unwritten.hops[0] - hop_1, &unwritten.hops[1] - hop_2];
                rows += (removed[0].len() + removed[1].len()) as usize;
                let changes = ReporterChanges {
                    names_us,
                    added: news,
                    removed,
                };
                chunk.changed(&node, &changes);
            }
        }
        self.reporters.set_written(reporter, true);
        Written { rows, is_all: true }
    }

    /// What is left once every reporter is written: with it the image is whole.
    pub fn write_rest(&mut self, entries: &[MapEntry], chunk: &mut Chunk) {
        // Another id may have come into a row, and into the same sets as the one before, between two writings.
        let vacated = std::mem::take(&mut self.journal.vacated) - &self.journal.defined;
        let named = |row: &Row| entries[*row as usize].reporters() > 0;
        let ids: RoaringBitmap = vacated.iter().filter(named).collect();
        if !ids.is_empty() {
            chunk.ids(&ids, entries);
            self.journal.defined |= ids;
        }
        for node in std::mem::take(&mut self.journal.gone) {
            let is_back = self
                .reporters
                .by_node(&node)
                .is_some_and(|reporter| self.is_written(reporter));
            if !is_back {
                chunk.gone(&node);
            }
        }
    }

    /// A reporter is being forgotten: on the disk it goes with the next writing after its sets are empty.
    pub(super) fn note_forgetting(&mut self, reporter: Reporter) {
        if self.is_written(reporter) {
            self.journal.gone.extend(self.reporters.node(reporter));
        }
    }

    /// Takes an image in, as far as there is room: who reports from now on.
    fn restore(
        &mut self,
        image: &MapImage,
        reporters_max: usize,
        entries: &mut [MapEntry],
    ) -> Vec<(NodeId, Reporter)> {
        let rows = image.rows();
        self.reserve(rows.len() as usize, entries);
        let mut row_of: Vec<Option<Row>> = vec![None; image.rows_end()];
        for row in &rows {
            let (node, _) = image.id(row);
            row_of[row as usize] = self.take_row(node, self.entries_max, entries).ok();
        }
        let mut restored = Vec::new();
        for (node, sets) in image.reporters.iter().take(reporters_max) {
            let Some(reporter) = self.reporters.add(*node) else {
                break;
            };
            for (hop, rows) in HOPS.into_iter().zip(&sets.hops) {
                for old in rows {
                    if let Some(row) = row_of[old as usize] {
                        let is_anchor = hop == ReportedHop::One && image.id(old).1;
                        self.report_row(reporter, hop, row, is_anchor, entries);
                    }
                }
                let (names_us, own) = (sets.names_us[hop as usize], self.own);
                self.reporters.set_names_us(reporter, hop, names_us, &own);
            }
            restored.push((*node, reporter));
        }
        for row in row_of.into_iter().flatten() {
            if !entries[row as usize].is_known() {
                self.lapse(row, entries);
            }
        }
        self.settle(entries);
        restored
    }
}

/// Puts what was on the map when it was stored on it, before the first frame; at most so many reporters, who they are.
pub fn remember(
    world: &mut World,
    image: &MapImage,
    reporters_max: usize,
) -> Vec<(NodeId, Reporter)> {
    let ids = image.rows().len() as usize;
    world
        .resource_mut::<DiscoveryMap>()
        .ask_for_room(ids + NEW_IDS_PER_FRAME);
    make_room(world);
    let mut state: SystemState<MapEdit> = SystemState::new(world);
    let mut edit = state.get_mut(world).expect("every node has a map");
    let (map, entries) = edit.parts();
    map.restore(image, reporters_max, entries)
}
