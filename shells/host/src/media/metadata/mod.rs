//! Takes out of a picture what tells of its maker: where it was made, when, with what, by whom, what it looked like before.
//!
//! What a file holds is kept by a list of what is needed to show it right, and never dropped by a list of what is bad: a kind of
//! metadata that nobody here has heard of goes too, as does whatever follows the picture's end. Nothing is decoded: the pixels and
//! the frames stay what they were, byte for byte. The orientation, and the colour profile where it is of a known space, are
//! written anew. A file whose parts cannot be followed to its end is damaged, since nobody could say what else it holds.
//!
//! What is kept moves to the front of the same buffer, so a picture costs no second one, and no part is remembered.

mod gif;
mod jpeg;
mod png;
mod profile;
mod webp;

use super::MediaType;
use image::metadata::Orientation;
use std::ops::Range;

/// The parts of a picture cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Whether a file of another type is one that cameras write (TIFF and the raw forms made of it; HEIC, AVIF and films), or has what they
/// write about a picture anywhere in it.
pub(super) fn is_of_a_camera(bytes: &[u8]) -> bool {
    let is_tiff = bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*");
    let is_media_container = bytes.get(4..8) == Some(b"ftyp");
    let has_exif = || bytes.windows(6).any(|window| window == b"Exif\0\0");
    is_tiff || is_media_container || has_exif()
}

/// The same picture without metadata; another file as it is.
pub(super) fn without_metadata(media_type: MediaType, bytes: Vec<u8>) -> Result<Vec<u8>, Damaged> {
    let mut file = Shrinking { bytes, written: 0 };
    match media_type {
        MediaType::Jpeg => jpeg::strip(&mut file)?,
        MediaType::Png => png::strip(&mut file)?,
        MediaType::Webp => webp::strip(&mut file)?,
        MediaType::Gif => gif::strip(&mut file)?,
        MediaType::Other => return Ok(file.bytes),
    }
    file.bytes.truncate(file.written);
    // What was a tenth of metadata need not hold its memory.
    file.bytes.shrink_to_fit();
    Ok(file.bytes)
}

/// A file that is read while what is kept of it moves to its front: never past the place of reading, so nothing unread is lost.
struct Shrinking {
    bytes: Vec<u8>,
    written: usize,
}

impl Shrinking {
    /// So many bytes from a place on, if the file has them.
    fn range(&self, at: usize, length: usize) -> Result<Range<usize>, Damaged> {
        let end = at.checked_add(length).ok_or(Damaged)?;
        match end <= self.bytes.len() {
            true => Ok(at..end),
            false => Err(Damaged),
        }
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Damaged> {
        let range = self.range(at, N)?;
        Ok(self.bytes[range].try_into().expect("a range of N bytes"))
    }

    /// Keeps what was read.
    fn keep(&mut self, range: Range<usize>) {
        assert!(self.written <= range.start, "what is kept was read");
        let length = range.len();
        self.bytes.copy_within(range, self.written);
        self.written += length;
    }

    /// Keeps other bytes in the place of what was read up to `read`; says whether there was room.
    fn put(&mut self, bytes: &[u8], read: usize) -> bool {
        let end = self.written + bytes.len();
        let has_room = end <= read;
        if has_room {
            self.bytes[self.written..end].copy_from_slice(bytes);
            self.written = end;
        }
        has_room
    }

    /// Changes what was kept.
    fn patch(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        assert!(end <= self.written, "what is changed was kept");
        self.bytes[at..end].copy_from_slice(bytes);
    }
}

/// Bytes of [`exif_of`].
const EXIF_BYTES: usize = 26;

/// An EXIF block that says the same orientation as this one and nothing else; `None` where that is upright or not told.
fn exif_of(block: &[u8]) -> Option<[u8; EXIF_BYTES]> {
    let orientation = Orientation::from_exif_chunk(block)?;
    let number = orientation.to_exif();
    // The head of a TIFF file, big-endian, its directory at 8: one entry, tag 0x0112, one number of 16 bits; no further directory.
    let mut exif = *b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0";
    exif[19] = number;
    (orientation != Orientation::NoTransforms).then_some(exif)
}

#[cfg(test)]
mod tests;
