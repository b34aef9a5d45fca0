//! How ids of a map travel (PROTOCOL section 6): in full the first time on a connection, by a small number after that.

use super::codec::ByteVec;
use crate::domain::NodeId;
use crate::refusal::Refusal;
use crate::world::map::ReportedHop;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number that the sender gave an id on this connection, below [`Number::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u16);

impl Number {
    /// How many numbers there are.
    pub const MAX: usize = (1 << 14) - 1;
    const NONE: u16 = Self::MAX as u16;

    /// The number, if it is below [`Self::MAX`].
    #[must_use]
    pub fn new(number: usize) -> Option<Self> {
        (number < Self::MAX).then_some(Self(number as u16))
    }

    /// For use as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// An id as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The id that has had this number.
    Known(Number),
    /// An id, and the number it has from now on.
    New(Number, NodeId),
    /// An id without a number.
    Bare(NodeId),
}

/// One id and whether it serves as an anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapItem {
    /// Which id.
    pub named: Named,
    /// Meant at hop 1 only.
    pub is_anchor: bool,
}

const HAS_ID: u16 = 1 << 14;
const IS_ANCHOR: u16 = 1 << 15;

impl MapItem {
    /// Bytes of an item with its id.
    pub const BYTES_MAX: usize = 34;

    fn write(&self, bytes: &mut Vec<u8>) {
        let (number, id) = match self.named {
            Named::Known(number) => (number.0, None),
            Named::New(number, id) => (number.0 | HAS_ID, Some(id)),
            Named::Bare(id) => (Number::NONE | HAS_ID, Some(id)),
        };
        let anchor = if self.is_anchor { IS_ANCHOR } else { 0 };
        bytes.extend_from_slice(&(number | anchor).to_le_bytes());
        if let Some(id) = id {
            bytes.extend_from_slice(id.as_bytes());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let head = u16::from_le_bytes(reader.take()?);
        let number = head & Number::NONE;
        let named = match (head & HAS_ID != 0, number == Number::NONE) {
            (false, true) => return Err(Refusal::OutOfRange),
            (false, false) => Named::Known(Number(number)),
            (true, true) => Named::Bare(NodeId::from_bytes(reader.take()?)),
            (true, false) => Named::New(Number(number), NodeId::from_bytes(reader.take()?)),
        };
        let is_anchor = head & IS_ANCHOR != 0;
        Ok(Self { named, is_anchor })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Refusal::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }
}

fn write_list(items: &[MapItem], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(items.len() as u16).to_le_bytes());
    items.iter().for_each(|item| item.write(bytes));
}

fn read_list(reader: &mut Reader<'_>) -> Result<Vec<MapItem>, Refusal> {
    let count = u16::from_le_bytes(reader.take()?);
    // Each takes two bytes at least: nothing is set aside for a count that lies.
    (0..count).map(|_| MapItem::read(reader)).collect()
}

/// A type whose wire form is one byte string with a form of its own.
macro_rules! as_packed {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut bytes = Vec::new();
                self.write(&mut bytes);
                serializer.serialize_bytes(&bytes)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let ByteVec(bytes) = ByteVec::deserialize(deserializer)?;
                let mut reader = Reader(&bytes);
                let read = Self::read(&mut reader);
                let read = read.map_err(|refusal| de::Error::custom(refusal.code()))?;
                match reader.0.is_empty() {
                    true => Ok(read),
                    false => Err(de::Error::custom(Refusal::Malformed.code())),
                }
            }
        }
    };
}

/// What changed at the sender's hop 1 and hop 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapChanges {
    /// New at hop 1.
    pub hop_1_added: Vec<MapItem>,
    /// Gone from hop 1.
    pub hop_1_removed: Vec<MapItem>,
    /// Still at hop 1, at another address: ask for it.
    pub hop_1_moved: Vec<MapItem>,
    /// New at hop 2.
    pub hop_2_added: Vec<MapItem>,
    /// Gone from hop 2.
    pub hop_2_removed: Vec<MapItem>,
}

impl MapChanges {
    fn lists(&self) -> [&Vec<MapItem>; 5] {
        let Self {
            hop_1_added,
            hop_1_removed,
            hop_1_moved,
            hop_2_added,
            hop_2_removed,
        } = self;
        [
            hop_1_added,
            hop_1_removed,
            hop_1_moved,
            hop_2_added,
            hop_2_removed,
        ]
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lists().iter().map(|list| list.len()).sum()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        // One byte says which lists there are: mostly none.
        let present =
            |(number, list): (usize, &&Vec<MapItem>)| u8::from(!list.is_empty()) << number;
        bytes.push(self.lists().iter().enumerate().map(present).sum());
        for list in self.lists().into_iter().filter(|list| !list.is_empty()) {
            write_list(list, bytes);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let [present] = reader.take()?;
        if present >= 1 << 5 {
            return Err(Refusal::OutOfRange);
        }
        let mut list = |number: u8| match present & 1 << number {
            0 => Ok(Vec::new()),
            _ => read_list(reader),
        };
        Ok(Self {
            hop_1_added: list(0)?,
            hop_1_removed: list(1)?,
            hop_1_moved: list(2)?,
            hop_2_added: list(3)?,
            hop_2_removed: list(4)?,
        })
    }
}

as_packed!(MapChanges);

/// All of a cell: what of the sender's sets falls into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapCell {
    /// Which cell.
    pub number: u16,
    /// Its part of hop 1.
    pub hop_1: Vec<MapItem>,
    /// Its part of hop 2; empty where that was not asked for.
    pub hop_2: Vec<MapItem>,
}

impl MapCell {
    /// What it holds, with its hop.
    pub fn items(&self) -> impl Iterator<Item = (ReportedHop, &MapItem)> {
        let hop_1 = self.hop_1.iter().map(|item| (ReportedHop::One, item));
        hop_1.chain(self.hop_2.iter().map(|item| (ReportedHop::Two, item)))
    }
}

/// Cells in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapCells(Vec<MapCell>);

impl MapCells {
    /// Takes cells whose numbers ascend.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`] where they do not.
    pub fn new(cells: Vec<MapCell>) -> Result<Self, Refusal> {
        let ascend = cells.is_sorted_by(|a, b| a.number < b.number);
        ascend.then_some(Self(cells)).ok_or(Refusal::OutOfRange)
    }

    /// The cells.
    #[must_use]
    pub fn as_slice(&self) -> &[MapCell] {
        &self.0
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        for cell in &self.0 {
            bytes.extend_from_slice(&cell.number.to_le_bytes());
            write_list(&cell.hop_1, bytes);
            write_list(&cell.hop_2, bytes);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let mut cells = Vec::new();
        while !reader.0.is_empty() {
            let number = u16::from_le_bytes(reader.take()?);
            let (hop_1, hop_2) = (read_list(reader)?, read_list(reader)?);
            cells.push(MapCell {
                number,
                hop_1,
                hop_2,
            });
        }
        Self::new(cells)
    }
}

as_packed!(MapCells);
