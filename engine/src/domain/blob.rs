//! Blobs in slices (PROTOCOL section 7): what is stored, sent and checked of a picture at a time.
//!
//! A slice is 64 KiB of a blob with its proof before it: the values of its 16 KiB groups, and of what lies beside its path to the
//! blob's hash. So a slice is proved against the hash alone, before the rest is there and in whatever order; once the proof has
//! been read, each group is as soon as it is complete. What a holder stores of a slice is what it sends.

use super::post::BlobRef;
use super::{BlobHash, Verified};
use crate::crypto::tree::{ChainingValue, GROUP_BYTES, group_value, parent_value, root_of};
use crate::limits;
use crate::refusal::Refusal;
use std::sync::Arc;

/// A page of the disk's files, on every system that this runs on: whatever is longer than half of one takes whole pages.
pub const PAGE_BYTES: u64 = 4096;
/// What the disk keeps in the first page of such a value.
const PAGE_HEAD_BYTES: u64 = 16;

/// Pages of the disk that a value takes which is longer than half of one.
#[must_use]
pub fn pages_of(value_bytes: usize) -> u64 {
    (PAGE_HEAD_BYTES + value_bytes as u64).div_ceil(PAGE_BYTES)
}

/// Bytes of a blob in a slice; the last has what is left.
pub const SLICE_BYTES: usize = 4 * GROUP_BYTES;
const GROUPS: usize = SLICE_BYTES / GROUP_BYTES;
const VALUE_BYTES: usize = size_of::<ChainingValue>();

/// The places of the values beside the path of one of `count` neighbours, level by level: `None` where nobody is beside it.
fn beside(mut place: usize, mut count: usize) -> impl Iterator<Item = Option<usize>> {
    std::iter::from_fn(move || {
        if count <= 1 {
            return None;
        }
        let other = place ^ 1;
        let here = (other < count).then_some(other);
        (place, count) = (place / 2, count.div_ceil(2));
        Some(here)
    })
}

/// Neighbours become half as many; an odd one waits for the next level.
fn next_level(values: &[ChainingValue]) -> Vec<ChainingValue> {
    let pairs = values.chunks(2).map(|pair| match pair {
        [left, right] => parent_value(left, right),
        alone => alone[0],
    });
    pairs.collect()
}

impl BlobRef {
    /// How many slices it has.
    #[must_use]
    pub fn slices(&self) -> u32 {
        self.length.div_ceil(SLICE_BYTES as u64) as u32
    }

    /// Bytes of the blob in a slice.
    fn data_bytes(&self, slice: u32) -> usize {
        let before = u64::from(slice) * SLICE_BYTES as u64;
        self.length.saturating_sub(before).min(SLICE_BYTES as u64) as usize
    }

    /// Values in the proof of a slice: none where the blob is one group.
    fn proof_values(&self, slice: u32) -> usize {
        if self.length <= GROUP_BYTES as u64 {
            return 0;
        }
        let siblings = beside(slice as usize, self.slices() as usize).flatten();
        self.data_bytes(slice).div_ceil(GROUP_BYTES) + siblings.count()
    }

    /// Bytes of a slice with its proof.
    #[must_use]
    pub fn slice_bytes(&self, slice: u32) -> usize {
        self.proof_values(slice) * VALUE_BYTES + self.data_bytes(slice)
    }

    /// The part of the blob within the stored bytes of a slice; `None` where they are not as long as that slice is.
    #[must_use]
    pub fn data_in<'a>(&self, slice: u32, stored: &'a [u8]) -> Option<&'a [u8]> {
        let is_one = slice < self.slices() && stored.len() == self.slice_bytes(slice);
        is_one.then(|| &stored[self.proof_values(slice) * VALUE_BYTES..])
    }

    /// Bytes that a slice with its proof takes on the disk: whole pages.
    #[must_use]
    pub fn slice_disk_bytes(&self, slice: u32) -> u64 {
        pages_of(self.slice_bytes(slice)) * PAGE_BYTES
    }

    /// Bytes that all its slices take on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        let slices = self.length.div_ceil(SLICE_BYTES as u64);
        let Some(others) = slices.checked_sub(1) else {
            return 0;
        };
        // No proof is longer than what is left of a page, so that all but the last take as much as the first.
        let of_others = others.saturating_mul(self.slice_disk_bytes(0));
        of_others.saturating_add(self.slice_disk_bytes(others as u32))
    }
}

/// A part of a blob that was proved to be one.
#[derive(Clone, PartialEq, Eq)]
pub struct Slice {
    blob: BlobRef,
    number: u32,
    bytes: Arc<[u8]>,
}

impl Slice {
    /// Of which blob.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Which, from 0 on.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The proof and the part of the blob: what is stored and sent.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The part of the blob.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.blob.proof_values(self.number) * VALUE_BYTES..]
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slice({:?}, {})", self.blob, self.number)
    }
}

/// Checks a slice while its bytes come in.
#[derive(Debug)]
pub struct SliceReader {
    blob: BlobRef,
    number: u32,
    bytes: Vec<u8>,
    /// Groups that are proved.
    groups: usize,
    has_proof: bool,
}

impl SliceReader {
    /// Whether there can be such a slice.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`] where the blob has no such slice, or is longer than any may be.
    pub fn check(blob: BlobRef, number: u32) -> Result<(), Refusal> {
        let is_possible = (1..=limits::BLOB_BYTES_MAX).contains(&blob.length);
        let is_one = is_possible && number < blob.slices();
        is_one.then_some(()).ok_or(Refusal::OutOfRange)
    }

    /// Begins with nothing.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn new(blob: BlobRef, number: u32) -> Result<Self, Refusal> {
        Self::check(blob, number)?;
        Ok(Self {
            blob,
            number,
            bytes: Vec::with_capacity(blob.slice_bytes(number)),
            groups: 0,
            has_proof: false,
        })
    }

    /// Bytes that are still to come.
    #[must_use]
    pub fn lacking(&self) -> usize {
        self.blob.slice_bytes(self.number) - self.bytes.len()
    }

    /// Takes what came, at most [`lacking`](Self::lacking); a wrong byte is found with the end of its group at the latest.
    ///
    /// # Errors
    /// [`Refusal::WrongHash`].
    ///
    /// # Panics
    /// On a bug: more bytes than are lacking.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        assert!(bytes.len() <= self.lacking(), "a slice has an end");
        self.bytes.extend_from_slice(bytes);
        let proof_bytes = self.blob.proof_values(self.number) * VALUE_BYTES;
        if !self.has_proof && self.bytes.len() >= proof_bytes {
            self.check_proof(proof_bytes)?;
            self.has_proof = true;
        }
        let is_whole = self.lacking() == 0;
        while self.has_proof {
            let start = proof_bytes + self.groups * GROUP_BYTES;
            let there = &self.bytes[start.min(self.bytes.len())..];
            let group = match there.len() {
                0 => break,
                GROUP_BYTES.. => &there[..GROUP_BYTES],
                _ if is_whole => there,
                _ => break,
            };
            let is_right = match proof_bytes {
                0 => crate::crypto::hash(group) == *self.blob.hash.as_bytes(),
                _ => {
                    let offset = u64::from(self.number) * SLICE_BYTES as u64
                        + (self.groups * GROUP_BYTES) as u64;
                    group_value(group, offset) == self.value(self.groups)
                }
            };
            if !is_right {
                return Err(Refusal::WrongHash);
            }
            self.groups += 1;
        }
        Ok(())
    }

    /// The slice, once all of it has come.
    #[must_use]
    pub fn finish(self) -> Option<Verified<Slice>> {
        let is_whole = self.lacking() == 0 && self.groups > 0;
        is_whole.then(|| {
            Verified(Slice {
                blob: self.blob,
                number: self.number,
                bytes: self.bytes.into(),
            })
        })
    }

    fn value(&self, place: usize) -> ChainingValue {
        let start = place * VALUE_BYTES;
        let value = &self.bytes[start..start + VALUE_BYTES];
        value.try_into().expect("a value is 32 bytes")
    }

    /// Whether the values lead to the hash.
    fn check_proof(&self, proof_bytes: usize) -> Result<(), Refusal> {
        if proof_bytes == 0 {
            return Ok(());
        }
        let slices = self.blob.slices() as usize;
        let groups = self.blob.data_bytes(self.number).div_ceil(GROUP_BYTES);
        let mut values: Vec<ChainingValue> = (0..groups).map(|place| self.value(place)).collect();
        let mut next = groups;
        while values.len() > 2 || values.len() == 2 && slices > 1 {
            values = next_level(&values);
        }
        let (mut place, mut count) = (self.number as usize, slices);
        let mut root = match values[..] {
            [left, right] => Some(root_of(&left, &right)),
            _ => None,
        };
        let mut here = values[0];
        for other in beside(self.number as usize, slices) {
            if let Some(other) = other {
                let beside = self.value(next);
                next += 1;
                let (left, right) = match other < place {
                    true => (beside, here),
                    false => (here, beside),
                };
                match count {
                    2 => root = Some(root_of(&left, &right)),
                    _ => here = parent_value(&left, &right),
                }
            }
            (place, count) = (place / 2, count.div_ceil(2));
        }
        match root == Some(*self.blob.hash.as_bytes()) {
            true => Ok(()),
            false => Err(Refusal::WrongHash),
        }
    }
}

/// A blob of one's own, ready to be cut.
#[derive(Debug)]
pub struct Cut<'a> {
    bytes: &'a [u8],
    blob: BlobRef,
    /// The values level by level, from the groups up.
    levels: Vec<Vec<ChainingValue>>,
}

impl<'a> Cut<'a> {
    /// Hashes a blob.
    ///
    /// # Errors
    /// [`Refusal::OutOfRange`] where it is empty or longer than any may be.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let length = bytes.len() as u64;
        if !(1..=limits::BLOB_BYTES_MAX).contains(&length) {
            return Err(Refusal::OutOfRange);
        }
        let groups = bytes.chunks(GROUP_BYTES).zip(0u64..);
        let groups = groups.map(|(group, place)| group_value(group, place * GROUP_BYTES as u64));
        let mut levels = vec![groups.collect::<Vec<_>>()];
        while let Some(values) = levels.last().filter(|values| values.len() > 2) {
            let next = next_level(values);
            levels.push(next);
        }
        let hash = match levels.last().map(Vec::as_slice) {
            Some([left, right]) => root_of(left, right),
            _ => crate::crypto::hash(bytes),
        };
        let hash = BlobHash::from_bytes(hash);
        Ok(Self {
            bytes,
            blob: BlobRef { hash, length },
            levels,
        })
    }

    /// Its hash and length.
    #[must_use]
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Its slices, in order.
    pub fn slices(&self) -> impl Iterator<Item = Verified<Slice>> {
        (0..self.blob.slices()).map(|number| self.slice(number))
    }

    fn slice(&self, number: u32) -> Verified<Slice> {
        let start = number as usize * SLICE_BYTES;
        let data = &self.bytes[start..start + self.blob.data_bytes(number)];
        let mut bytes = Vec::with_capacity(self.blob.slice_bytes(number));
        if self.blob.length > GROUP_BYTES as u64 {
            let first = number as usize * GROUPS;
            let own = first..first + data.len().div_ceil(GROUP_BYTES);
            bytes.extend(self.levels[0][own].iter().flatten());
            let above = self.levels.iter().skip(GROUPS.ilog2() as usize);
            for (values, other) in above.zip(beside(number as usize, self.blob.slices() as usize)) {
                bytes.extend(other.into_iter().flat_map(|other| values[other]));
            }
        }
        bytes.extend(data);
        Verified(Slice {
            blob: self.blob,
            number,
            bytes: bytes.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place / 7) as u8).collect()
    }

    /// Reads a slice in pieces of so many bytes.
    fn read(
        blob: BlobRef,
        number: u32,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Option<Verified<Slice>>, Refusal> {
        let mut reader = SliceReader::new(blob, number)?;
        for piece in bytes.chunks(piece) {
            reader.take(piece)?;
        }
        Ok(reader.finish())
    }

    /// Lengths at every edge of the tree.
    fn lengths() -> Vec<usize> {
        let edges = [1, 1024, GROUP_BYTES, SLICE_BYTES];
        let around = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
        let more = (2..10).flat_map(|slices| {
            let edge = slices * SLICE_BYTES;
            [edge - 1, edge, edge + 1, edge + GROUP_BYTES + 5]
        });
        around.chain(more).filter(|length| *length > 0).collect()
    }

    #[test]
    fn every_slice_is_proved_by_the_hash_alone_and_makes_up_the_blob() {
        for length in lengths() {
            let bytes = bytes(length);
            let cut = Cut::new(&bytes).unwrap();
            let blob = cut.blob();
            assert_eq!(*blob.hash.as_bytes(), crate::crypto::hash(&bytes));
            let mut whole: Vec<u8> = Vec::new();
            for (number, slice) in (0..).zip(cut.slices()) {
                let there = read(blob, number, slice.bytes(), 1_000).unwrap();
                assert_eq!(there.as_ref(), Some(&slice), "{length} bytes, {number}");
                assert_eq!(slice.bytes().len(), blob.slice_bytes(number));
                assert_eq!(blob.data_in(number, slice.bytes()), Some(slice.data()));
                assert_eq!(blob.data_in(number, &slice.bytes()[1..]), None);
                whole.extend(slice.data());
            }
            assert_eq!(whole, bytes);
        }
    }

    #[test]
    fn a_wrong_byte_is_found_before_more_than_a_group_of_them_was_read() {
        for length in [100, GROUP_BYTES + 1, SLICE_BYTES, 5 * SLICE_BYTES + 3] {
            let bytes = bytes(length);
            let cut = Cut::new(&bytes).unwrap();
            let blob = cut.blob();
            for (number, slice) in (0..).zip(cut.slices()) {
                let proof_bytes = slice.bytes().len() - slice.data().len();
                for wrong in (0..slice.bytes().len()).step_by(997) {
                    let mut there = slice.bytes().to_vec();
                    there[wrong] ^= 1;
                    let mut reader = SliceReader::new(blob, number).unwrap();
                    let found = there
                        .chunks(512)
                        .position(|piece| reader.take(piece).is_err());
                    let read = (found.expect("it is found") + 1) * 512;
                    let most = match wrong < proof_bytes {
                        true => proof_bytes,
                        false => wrong + GROUP_BYTES,
                    };
                    assert!(read < most + 512, "byte {wrong} of slice {number}");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_off_proves_nothing_and_no_slice_stands_for_another() {
        let bytes = bytes(3 * SLICE_BYTES);
        let cut = Cut::new(&bytes).unwrap();
        let (blob, slices) = (cut.blob(), cut.slices().collect::<Vec<_>>());
        let first = slices[0].bytes();
        let short = read(blob, 0, &first[..first.len() - 1], 4096);
        assert_eq!(short, Ok(None));
        assert_eq!(read(blob, 1, first, 4096), Err(Refusal::WrongHash));
        assert_eq!(SliceReader::new(blob, 3).err(), Some(Refusal::OutOfRange));
        // Of a blob that is said to be longer, the last slice is never proved.
        let longer = BlobRef {
            length: blob.length + 1,
            ..blob
        };
        let last = [slices[2].bytes(), &[0; 64][..]].concat();
        let lacking = SliceReader::new(longer, 2).unwrap().lacking();
        let there = read(longer, 2, &last[..lacking.min(last.len())], 4096);
        assert!(!matches!(there, Ok(Some(_))));
        let lacking = SliceReader::new(longer, 3).unwrap().lacking();
        let end = read(longer, 3, &vec![7; lacking], 4096);
        assert!(!matches!(end, Ok(Some(_))));
    }

    #[test]
    fn blobs_have_a_length_that_somebody_may_keep() {
        assert_eq!(Cut::new(&[]).err(), Some(Refusal::OutOfRange));
        for length in [0, limits::BLOB_BYTES_MAX + 1, u64::MAX] {
            let hash = BlobHash::from_bytes([1; 32]);
            let reader = SliceReader::new(BlobRef { hash, length }, 0);
            assert_eq!(reader.err(), Some(Refusal::OutOfRange));
        }
    }

    fn disk_bytes_slice_by_slice(blob: BlobRef) -> u64 {
        let slices = 0..blob.slices();
        slices.map(|slice| blob.slice_disk_bytes(slice)).sum()
    }

    #[test]
    fn what_it_takes_of_the_disk_is_known_of_any_length_that_a_row_may_say() {
        let hash = BlobHash::from_bytes([7; 32]);
        let all = lengths().into_iter().map(|length| length as u64);
        for length in all.chain([0, limits::BLOB_BYTES_MAX]) {
            let blob = BlobRef { hash, length };
            assert_eq!(
                blob.disk_bytes(),
                disk_bytes_slice_by_slice(blob),
                "{length}"
            );
        }
        for length in [1 << 48, 1 << 63, u64::MAX] {
            assert!(BlobRef { hash, length }.disk_bytes() >= length);
        }
    }

    proptest! {
        #[test]
        fn it_takes_as_much_of_the_disk_as_its_slices_take(length in 0..=limits::BLOB_BYTES_MAX) {
            let blob = BlobRef { hash: BlobHash::from_bytes([7; 32]), length };
            prop_assert_eq!(blob.disk_bytes(), disk_bytes_slice_by_slice(blob));
        }

        #[test]
        fn pieces_of_any_size_make_the_same_slice(length in 1..300_000usize, piece in 1..70_000usize) {
            let bytes = bytes(length);
            let cut = Cut::new(&bytes).unwrap();
            for (number, slice) in (0..).zip(cut.slices()) {
                prop_assert_eq!(read(cut.blob(), number, slice.bytes(), piece), Ok(Some(slice)));
            }
        }

        #[test]
        fn whatever_comes_is_refused_or_true(length in 1..200_000u64, number in 0..4u32, noise in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let hash = BlobHash::from_bytes([7; 32]);
            let blob = BlobRef { hash, length };
            if let Ok(mut reader) = SliceReader::new(blob, number) {
                let noise = &noise[..noise.len().min(reader.lacking())];
                let is_refused = reader.take(noise).is_err();
                prop_assert!(is_refused || reader.finish().is_none());
            }
        }
    }
}
