//! 0x30, 0x31: slices of a blob, from whoever holds it (PROTOCOL section 7).
//!
//! A slice proves itself against the blob's hash, so that a response is proved by its own bytes, and while they come in
//! ([`FileReader`]): a wrong byte is found within its 16 KiB.

use super::codec::{self, ByteVec, BytesRef, as_array};
use super::{Admitted, Check, Example, Packet};
use crate::domain::{BlobRef, Slice, SliceReader, Verified};
use crate::limits;
use crate::refusal::Refusal;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Asks for a run of slices.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRequest {
    /// Of which blob.
    pub blob: BlobRef,
    /// The first slice.
    pub first: u32,
    /// How many, at most [`limits::FILE_SLICES_MAX`].
    pub count: u32,
}

as_array!(FileRequest {
    blob: BlobRef,
    first: u32,
    count: u32,
});

impl Check for FileRequest {
    fn check(&self) -> Result<(), Refusal> {
        let is_possible = (1..=limits::BLOB_BYTES_MAX).contains(&self.blob.length);
        let has_run = (1..=limits::FILE_SLICES_MAX).contains(&self.count);
        let end = self.first.checked_add(self.count);
        let is_inside = is_possible && end.is_some_and(|end| end <= self.blob.slices());
        (has_run && is_inside)
            .then_some(())
            .ok_or(Refusal::OutOfRange)
    }
}

impl Example for FileRequest {
    fn example() -> Self {
        let FileResponse {
            blob,
            first,
            slices,
        } = FileResponse::example();
        Self {
            blob,
            first,
            count: slices.len() as u32,
        }
    }
}

/// The slices asked for, up to the first that the sender does not have: none where it has not even that.
#[derive(Clone, Debug, PartialEq)]
pub struct FileResponse {
    /// Of which blob.
    pub blob: BlobRef,
    /// The first slice.
    pub first: u32,
    /// The slices, each proved.
    pub slices: Vec<Verified<Slice>>,
}

impl Serialize for FileResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.slices.iter().map(|slice| &**slice.bytes());
        let run: Vec<u8> = bytes.flatten().copied().collect();
        (&self.blob, self.first, BytesRef(&run)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FileResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (blob, first, run) = <(BlobRef, u32, ByteVec)>::deserialize(deserializer)?;
        let mut reader = RunReader::new(blob, first, run.0.len())
            .map_err(|refusal| de::Error::custom(refusal.code()))?;
        reader
            .take(&run.0)
            .map_err(|refusal| de::Error::custom(refusal.code()))?;
        Ok(reader.finish())
    }
}

impl Check for FileResponse {}

impl Example for FileResponse {
    fn example() -> Self {
        use crate::domain::Cut;
        let cut = Cut::new(b"a very small picture").expect("a length within bounds");
        Self {
            blob: cut.blob(),
            first: 0,
            slices: cut.slices().collect(),
        }
    }
}

impl FileResponse {
    /// The bytes of a response made of slices as they lie on the disk, which were proved before they were stored.
    #[must_use]
    pub fn encode_stored<'a>(
        blob: BlobRef,
        first: u32,
        slices: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> super::PacketBytes {
        let length: usize = slices.clone().map(<[u8]>::len).sum();
        let mut run = Vec::with_capacity(length);
        slices.for_each(|slice| run.extend_from_slice(slice));
        let mut bytes = Vec::with_capacity(1 + HEAD_BYTES_MAX + length);
        bytes.push(Self::SPEC.code);
        codec::encode_into(&(&blob, first, BytesRef(&run)), &mut bytes);
        bytes.into()
    }
}

/// A run of slices while its bytes come in.
#[derive(Debug)]
struct RunReader {
    blob: BlobRef,
    first: u32,
    slices: Vec<Verified<Slice>>,
    /// The slice that comes in, and how many come after it.
    current: Option<SliceReader>,
    rest: u32,
}

impl RunReader {
    /// Begins with nothing; the run's bytes must be those of whole slices.
    fn new(blob: BlobRef, first: u32, run_bytes: usize) -> Result<Self, Refusal> {
        let (mut bytes, mut count) = (0, 0);
        while bytes < run_bytes && count < limits::FILE_SLICES_MAX {
            SliceReader::check(blob, first.saturating_add(count))?;
            bytes += blob.slice_bytes(first + count);
            count += 1;
        }
        if bytes != run_bytes {
            return Err(Refusal::OutOfRange);
        }
        let mut reader = Self {
            blob,
            first,
            slices: Vec::with_capacity(count as usize),
            current: None,
            rest: count,
        };
        reader.begin_next()?;
        Ok(reader)
    }

    fn begin_next(&mut self) -> Result<(), Refusal> {
        if self.rest > 0 {
            self.rest -= 1;
            let number = self.first + self.slices.len() as u32;
            self.current = Some(SliceReader::new(self.blob, number)?);
        }
        Ok(())
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let reader = self.current.as_mut().ok_or(Refusal::TooLarge)?;
            let (now, later) = bytes.split_at(bytes.len().min(reader.lacking()));
            reader.take(now)?;
            bytes = later;
            if reader.lacking() == 0 {
                let whole = self.current.take().and_then(SliceReader::finish);
                self.slices.extend(whole);
                self.begin_next()?;
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.current.is_none()
    }

    fn finish(self) -> FileResponse {
        FileResponse {
            blob: self.blob,
            first: self.first,
            slices: self.slices,
        }
    }
}

/// Code, array of three, array of two, hash, length, first slice, head of the run: never longer than this.
const HEAD_BYTES_MAX: usize = 1 + 1 + 1 + 34 + 9 + 5 + 5;

/// Takes a FileResponse apart while it comes in. What it lets through is what [`super::admit`] does, and it refuses as early as can be.
#[derive(Debug, Default)]
pub struct FileReader {
    head: Vec<u8>,
    run: Option<RunReader>,
}

impl FileReader {
    /// Takes what came, the code byte first.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::NotCanonical`], [`Refusal::OutOfRange`], [`Refusal::WrongHash`], [`Refusal::TooLarge`].
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        if self.run.is_none() {
            let lacking = HEAD_BYTES_MAX - self.head.len();
            let (now, later) = bytes.split_at(bytes.len().min(lacking));
            self.head.extend_from_slice(now);
            bytes = later;
            if self.head.len() < HEAD_BYTES_MAX {
                return Ok(());
            }
            self.read_head()?;
        }
        match &mut self.run {
            Some(run) => run.take(bytes),
            None => Err(Refusal::Malformed),
        }
    }

    /// The packet, once the stream has ended.
    ///
    /// # Errors
    /// As [`take`](Self::take); [`Refusal::Malformed`] for one that was cut short.
    pub fn finish(mut self) -> Result<Admitted<Packet>, Refusal> {
        if self.run.is_none() {
            self.read_head()?;
        }
        let run = self.run.filter(RunReader::is_whole);
        let run = run.ok_or(Refusal::Malformed)?;
        Ok(Admitted(run.finish().into()))
    }

    fn read_head(&mut self) -> Result<(), Refusal> {
        let head = std::mem::take(&mut self.head);
        let mut rest = head.as_slice();
        let mut literal = |expected: &[u8]| {
            let (found, later) = rest
                .split_at_checked(expected.len())
                .ok_or(Refusal::Malformed)?;
            rest = later;
            (found == expected).then_some(()).ok_or(Refusal::Malformed)
        };
        literal(&[FileResponse::SPEC.code, 0x83, 0x82, 0x58, 0x20])?;
        let (hash, later) = rest.split_first_chunk::<32>().ok_or(Refusal::Malformed)?;
        rest = later;
        let length = head_of(0, &mut rest)?;
        let first = head_of(0, &mut rest)?;
        let run_bytes = head_of(2, &mut rest)?;
        let blob = BlobRef {
            hash: crate::domain::BlobHash::from_bytes(*hash),
            length,
        };
        let first = u32::try_from(first).map_err(|_| Refusal::OutOfRange)?;
        let run_bytes = usize::try_from(run_bytes).map_err(|_| Refusal::OutOfRange)?;
        let mut run = RunReader::new(blob, first, run_bytes)?;
        run.take(rest)?;
        self.run = Some(run);
        Ok(())
    }
}

/// The head of a CBOR item of a major type, in the shortest form only: its number.
fn head_of(major: u8, bytes: &mut &[u8]) -> Result<u64, Refusal> {
    let (first, rest) = bytes.split_first().ok_or(Refusal::Malformed)?;
    let short = first & 0x1f;
    if first >> 5 != major || short > 27 {
        return Err(Refusal::Malformed);
    }
    let more = match short {
        24..=27 => 1 << (short - 24),
        _ => 0,
    };
    let (number, rest) = rest.split_at_checked(more).ok_or(Refusal::Malformed)?;
    *bytes = rest;
    let number = number
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    let is_shortest = match short {
        24 => number >= 24,
        25 => number > 0xff,
        26 => number > 0xffff,
        27 => number > 0xffff_ffff,
        _ => return Ok(u64::from(short)),
    };
    is_shortest.then_some(number).ok_or(Refusal::NotCanonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Cut;
    use crate::wire::{Expected, admit};
    use proptest::prelude::*;

    const EXPECTED: Expected = Expected::Response(FileResponse::SPEC.code);

    fn blob(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place / 7) as u8).collect()
    }

    fn response(length: usize, first: u32, count: usize) -> FileResponse {
        let bytes = blob(length);
        let cut = Cut::new(&bytes).unwrap();
        let slices = cut.slices().skip(first as usize).take(count);
        FileResponse {
            blob: cut.blob(),
            first,
            slices: slices.collect(),
        }
    }

    fn read(bytes: &[u8], step: usize) -> Result<Packet, Refusal> {
        let mut reader = FileReader::default();
        for chunk in bytes.chunks(step) {
            reader.take(chunk)?;
        }
        reader.finish().map(Admitted::into_inner)
    }

    #[test]
    fn a_response_fits_its_line_in_the_table() {
        let largest = response(
            limits::BLOB_BYTES_MAX as usize,
            8,
            limits::FILE_SLICES_MAX as usize,
        );
        let packet = Packet::from(largest.clone());
        let bytes = packet.encode();
        assert!(bytes.len() <= FileResponse::SPEC.bytes_max);
        assert_eq!(admit(&bytes, EXPECTED).unwrap().into_inner(), packet);
        let stored = largest.slices.iter().map(|slice| &**slice.bytes());
        assert_eq!(FileResponse::encode_stored(largest.blob, 8, stored), bytes);
    }

    #[test]
    fn a_wrong_byte_is_found_before_the_next_group() {
        let mut bytes = Packet::from(response(400_000, 1, 4)).encode().to_vec();
        let wrong = 100_000;
        bytes[wrong] ^= 1;
        let mut reader = FileReader::default();
        let mut taken = 0;
        let refusal = bytes.chunks(1000).find_map(|chunk| {
            taken += chunk.len();
            reader.take(chunk).err()
        });
        assert_eq!(refusal, Some(Refusal::WrongHash));
        assert!(taken <= wrong + 16 * 1024 + 1000, "{taken}");
    }

    #[test]
    fn a_response_without_end_is_refused_at_its_own_length() {
        let mut bytes = Packet::from(response(1000, 0, 1)).encode().to_vec();
        assert!(read(&bytes, 100).is_ok());
        bytes.push(0);
        assert_eq!(read(&bytes, 100), Err(Refusal::TooLarge));
        assert!(admit(&bytes, EXPECTED).is_err());
        let none = response(1000, 0, 0);
        assert_eq!(
            read(&Packet::from(none.clone()).encode(), 7),
            Ok(none.into())
        );
    }

    proptest! {
        /// While it comes in or at once, in whatever pieces: the same packets pass, and no others.
        #[test]
        fn both_ways_of_reading_agree(
            length in 1usize..300_000,
            first in 0u32..5,
            count in 0usize..6,
            step in 1usize..70_000,
            change in proptest::option::of((any::<prop::sample::Index>(), 1u8..)),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = Packet::from(response(length, first, count)).encode().to_vec();
            if let Some((place, by)) = change {
                // Mostly in the head, where there is the most to get wrong.
                let place = place.index(bytes.len().min(200));
                bytes[place] ^= by;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()) + 1);
            }
            let at_once = admit(&bytes, EXPECTED).map(Admitted::into_inner);
            let coming_in = read(&bytes, step);
            prop_assert_eq!(at_once.is_ok(), coming_in.is_ok());
            if let (Ok(at_once), Ok(coming_in)) = (at_once, coming_in) {
                prop_assert_eq!(at_once, coming_in);
            }
        }
    }
}
