//! 0x05, 0x02: a reporter's sets, made the same at both ends (PROTOCOL section 6): all of them for whoever has nothing, what
//! differs for whoever has been away or has missed a diff. Every step leaves a valid state, so a sync that breaks off is
//! resumed by asking again.

use super::codec::{ByteVec, as_array};
use super::map_items::{MapCell, MapCells};
use super::routing_diff::example_item;
use super::{Check, Example};
use crate::refusal::Refusal;

/// The sets fall into this many cells, by the keyed hash of an id: so few ids in each of them that hardly more than what changed is told
/// again.
pub const CELLS: usize = 1024;
/// Bytes of a cell's sum on the wire. Two that agree by chance are found by the digest.
const SUM_BYTES: usize = 4;

/// Asks for the cells that differ, and for a diff every two minutes from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct MapReconcile {
    /// Keys the hash on this connection, for the digests too.
    pub salt: u64,
    /// Hop 2 is wanted, not hop 1 alone.
    pub with_hop_2: bool,
    /// The sender is to give every id in full again.
    pub afresh: bool,
    /// The first cell asked for; the ones before are done.
    pub first_cell: u16,
    /// The sum of the hashes in each cell from the first one on, the last four bytes of each, big-endian; empty where the asker has
    /// nothing.
    pub sums: ByteVec,
}

as_array!(MapReconcile {
    salt: u64,
    with_hop_2: bool,
    afresh: bool,
    first_cell: u16,
    sums: ByteVec,
});

impl MapReconcile {
    /// The sums of all cells from one on, as they travel; none where the asker has nothing.
    #[must_use]
    pub fn sums_of(sums: &[u64; CELLS], first_cell: u16, has_any: bool) -> ByteVec {
        let asked = sums[usize::from(first_cell)..].iter();
        let bytes = asked.flat_map(|sum| (*sum as u32).to_be_bytes());
        ByteVec(if has_any { bytes.collect() } else { Vec::new() })
    }

    /// Whether a cell may be the same at the asker.
    #[must_use]
    pub fn agrees(&self, cell: usize, sum: u64) -> bool {
        let at = cell.checked_sub(usize::from(self.first_cell));
        let sums = self.sums.0.as_chunks::<SUM_BYTES>().0;
        let at_asker = at.and_then(|at| sums.get(at));
        at_asker.map_or(0, |sum| u32::from_be_bytes(*sum)) == sum as u32
    }
}

impl Check for MapReconcile {
    fn check(&self) -> Result<(), Refusal> {
        let cells = CELLS.checked_sub(usize::from(self.first_cell));
        let fits =
            |cells| cells > 0 && (self.sums.0.is_empty() || self.sums.0.len() == cells * SUM_BYTES);
        cells
            .filter(|cells| fits(*cells))
            .map(|_| ())
            .ok_or(Refusal::OutOfRange)
    }
}

impl Example for MapReconcile {
    fn example() -> Self {
        Self {
            salt: 0xfeed_0000_0000_0001,
            with_hop_2: true,
            afresh: false,
            first_cell: CELLS as u16 - 6,
            sums: ByteVec(vec![3; 6 * SUM_BYTES]),
        }
    }
}

/// Cells that differ, in full; what the asker has in them beside is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct InitialMapSync {
    /// That of the last diff.
    pub seq: u64,
    /// Of the last diff.
    pub digest: u64,
    /// The cell to go on with; [`CELLS`] where this is all.
    pub next_cell: u16,
    /// The cells that differ, from the first one asked for to the one before the next.
    pub cells: MapCells,
}

as_array!(InitialMapSync {
    seq: u64,
    digest: u64,
    next_cell: u16,
    cells: MapCells,
});

impl Check for InitialMapSync {
    fn check(&self) -> Result<(), Refusal> {
        let next = usize::from(self.next_cell);
        let last = self
            .cells
            .as_slice()
            .last()
            .map_or(0, |cell| usize::from(cell.number));
        let fits = next > 0 && next <= CELLS && last < next;
        fits.then_some(()).ok_or(Refusal::OutOfRange)
    }
}

impl Example for InitialMapSync {
    fn example() -> Self {
        let cell = |number, at: usize| MapCell {
            number,
            hop_1: vec![example_item(at, true)],
            hop_2: vec![example_item(at + 1, true), example_item(at + 2, false)],
        };
        let cells = MapCells::new(vec![cell(250, 7), cell(1_000, 400)]).expect("ascending");
        Self {
            seq: 12,
            digest: 0x0123_4567_89ab_cdef,
            next_cell: 1_001,
            cells,
        }
    }
}
