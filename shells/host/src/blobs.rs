//! Reading stored blobs in parts, so that memory stays bounded however long they are.

use crate::media::MediaFault;
use distsoc_engine::domain::{BlobRef, SLICE_BYTES};
use distsoc_persistence::{Fault, View};
use std::io::{BufRead, Error, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

/// Bytes of a blob that are read at once.
pub const PART_BYTES_MAX: u64 = 1024 * 1024;

/// Whether a range of a blob is here: a byte of each of its slices tells, since a slice is here whole or not.
pub(crate) fn is_here(view: &View, blob: BlobRef, range: Range<u64>) -> Result<bool, Fault> {
    let mut at = range.start;
    while at < range.end {
        if view.blob_part(blob, at..at + 1)?.is_none() {
            return Ok(false);
        }
        at = (at / SLICE_BYTES as u64 + 1) * SLICE_BYTES as u64;
    }
    Ok(true)
}

/// A blob as a decoder reads it, one part in memory at a time.
pub(crate) struct BlobReader<R> {
    read: R,
    length: u64,
    at: u64,
    held: Vec<u8>,
    held_from: u64,
    trouble: Option<MediaFault>,
}

/// Reads a range of one blob.
pub(crate) trait ReadPart: FnMut(Range<u64>) -> Result<Option<Vec<u8>>, Fault> {}

impl<F: FnMut(Range<u64>) -> Result<Option<Vec<u8>>, Fault>> ReadPart for F {}

impl BlobReader<()> {
    /// At the start of a stored blob.
    pub(crate) fn of_stored(view: View, blob: BlobRef) -> BlobReader<impl ReadPart> {
        BlobReader::of(blob.length, move |range| view.blob_part(blob, range))
    }

    /// At the start of so many bytes that are read like this.
    pub(crate) fn of<R: ReadPart>(length: u64, read: R) -> BlobReader<R> {
        BlobReader {
            read,
            length,
            at: 0,
            held: Vec::new(),
            held_from: 0,
            trouble: None,
        }
    }
}

impl<R: ReadPart> BlobReader<R> {
    /// Why a part could not be read, if one could not.
    pub(crate) fn trouble(self) -> Option<MediaFault> {
        self.trouble
    }

    /// What is held from the place of reading on.
    fn here(&self) -> &[u8] {
        let from = self
            .at
            .checked_sub(self.held_from)
            .map(|from| from as usize);
        from.and_then(|from| self.held.get(from..)).unwrap_or(&[])
    }

    fn load(&mut self) -> Result<(), MediaFault> {
        let end = self.length.min(self.at + PART_BYTES_MAX);
        let part = (self.read)(self.at..end)?.ok_or(MediaFault::NotHere)?;
        if part.len() as u64 != end - self.at {
            return Err(MediaFault::NotHere);
        }
        (self.held, self.held_from) = (part, self.at);
        Ok(())
    }
}

impl<R: ReadPart> BufRead for BlobReader<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.here().is_empty()
            && self.at < self.length
            && let Err(trouble) = self.load()
        {
            let told = Error::other(trouble.to_string());
            self.trouble = Some(trouble);
            return Err(told);
        }
        Ok(self.here())
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes as u64;
    }
}

impl<R: ReadPart> Read for BlobReader<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: ReadPart> Seek for BlobReader<R> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => Some(place),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = place.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|place| (place / 3) as u8).collect()
    }

    #[test]
    fn a_blob_is_read_in_parts_and_from_anywhere() {
        let whole = bytes(2 * PART_BYTES_MAX as usize + 77);
        let mut largest = 0;
        let mut reader = BlobReader::of(whole.len() as u64, |range: Range<u64>| {
            largest = largest.max(range.end - range.start);
            Ok(Some(
                whole[range.start as usize..range.end as usize].to_vec(),
            ))
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == whole);
        for place in [5, PART_BYTES_MAX as usize - 1, whole.len() - 3] {
            reader.seek(SeekFrom::Start(place as u64)).unwrap();
            let mut three = [0; 3];
            reader.read_exact(&mut three).unwrap();
            assert_eq!(three, whole[place..place + 3]);
        }
        reader.seek(SeekFrom::End(100)).unwrap();
        assert_eq!(reader.read(&mut [0; 3]).unwrap(), 0);
        assert!(reader.seek(SeekFrom::Current(i64::MIN)).is_err());
        drop(reader);
        assert_eq!(largest, PART_BYTES_MAX);
    }

    #[test]
    fn what_is_not_here_is_told() {
        let mut reader = BlobReader::of(10, |_| Ok(None));
        assert!(reader.read(&mut [0; 3]).is_err());
        assert!(matches!(reader.trouble(), Some(MediaFault::NotHere)));
        let mut short = BlobReader::of(10, |_| Ok(Some(vec![0; 9])));
        assert!(short.read(&mut [0; 3]).is_err());
        assert!(matches!(short.trouble(), Some(MediaFault::NotHere)));
    }
}
