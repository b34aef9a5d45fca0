//! WebP (RFC 9649): chunks of a RIFF file, and chunks within the frames of an animation.

use super::{Damaged, Shrinking, exif_of, profile};

/// Before the chunks of a file: RIFF, its size, WEBP.
const HEAD_BYTES: usize = 12;
/// Before the content of a chunk: name and size.
const CHUNK_HEAD_BYTES: usize = 8;
/// Before the chunks of a frame: its place, sides, duration, flags.
const FRAME_HEAD_BYTES: usize = 16;
/// Of the flags of an extended file: there is a colour profile, there is EXIF, there is XMP.
const HAS_PROFILE: u8 = 0x20;
const HAS_EXIF: u8 = 0x08;
const HAS_XMP: u8 = 0x04;

pub(super) fn strip(file: &mut Shrinking) -> Result<(), Damaged> {
    let size = u32::from_le_bytes(file.array(4)?) as usize;
    let all = file.range(8, size)?;
    let head = file.range(0, HEAD_BYTES)?;
    let mut at = head.end;
    file.keep(head);
    let mut flags_at = None;
    let mut has = 0;
    while at < all.end {
        let chunk = Chunk::read(file, at, all.end)?;
        match &chunk.name {
            // A simple file is one chunk; what comes behind it is read by nobody.
            b"VP8 " | b"VP8L" if flags_at.is_none() => {
                chunk.keep(file);
                break;
            }
            b"VP8X" if flags_at.is_none() && chunk.length >= 10 => {
                flags_at = Some(file.written + CHUNK_HEAD_BYTES);
                chunk.keep(file);
            }
            _ if flags_at.is_none() => return Err(Damaged),
            b"VP8 " | b"VP8L" | b"ALPH" | b"ANIM" => chunk.keep(file),
            b"ICCP" if has & HAS_PROFILE == 0 => {
                if let Some(known) = profile::known(&file.bytes[chunk.content()])
                    && put_chunk(file, &chunk, &known)
                {
                    has |= HAS_PROFILE;
                }
            }
            b"ANMF" => strip_frame(file, &chunk)?,
            b"EXIF" => {
                let exif = exif_of(&file.bytes[chunk.content()]);
                if let Some(exif) = exif
                    && put_chunk(file, &chunk, &exif)
                {
                    has |= HAS_EXIF;
                }
            }
            _ => {}
        }
        at = chunk.end;
    }
    if let Some(at) = flags_at {
        let flags = file.bytes[at] & !(HAS_PROFILE | HAS_EXIF | HAS_XMP);
        file.patch(at, &[flags | has]);
    }
    let size = (file.written - 8) as u32;
    file.patch(4, &size.to_le_bytes());
    Ok(())
}

/// Keeps a chunk with this content, of an even length, in the place of a longer or equal one; says whether there was room.
fn put_chunk(file: &mut Shrinking, chunk: &Chunk, content: &[u8]) -> bool {
    let length = (content.len() as u32).to_le_bytes();
    file.put(&[&chunk.name, &length, content].concat(), chunk.end)
}

/// A frame's own chunks: what it shows, and nothing else.
fn strip_frame(file: &mut Shrinking, frame: &Chunk) -> Result<(), Damaged> {
    let content = frame.content();
    let begins = file.written;
    let mut at = frame.at + CHUNK_HEAD_BYTES + FRAME_HEAD_BYTES;
    if at > content.end {
        return Err(Damaged);
    }
    file.keep(frame.at..at);
    while at < content.end {
        let chunk = Chunk::read(file, at, content.end)?;
        if matches!(&chunk.name, b"ALPH" | b"VP8 " | b"VP8L") {
            chunk.keep(file);
        }
        at = chunk.end;
    }
    let length = (file.written - begins - CHUNK_HEAD_BYTES) as u32;
    file.patch(begins + 4, &length.to_le_bytes());
    Ok(())
}

struct Chunk {
    at: usize,
    name: [u8; 4],
    length: usize,
    /// With the byte that makes an odd length even.
    end: usize,
}

impl Chunk {
    fn read(file: &Shrinking, at: usize, limit: usize) -> Result<Self, Damaged> {
        let (name, length) = (file.array(at)?, file.array(at + 4)?);
        let length = u32::from_le_bytes(length) as usize;
        let padded = length.checked_add(length % 2).ok_or(Damaged)?;
        let end = file.range(at + CHUNK_HEAD_BYTES, padded)?.end;
        let chunk = Self {
            at,
            name,
            length,
            end,
        };
        match end <= limit {
            true => Ok(chunk),
            false => Err(Damaged),
        }
    }

    fn content(&self) -> std::ops::Range<usize> {
        let from = self.at + CHUNK_HEAD_BYTES;
        from..from + self.length
    }

    fn keep(&self, file: &mut Shrinking) {
        file.keep(self.at..self.end);
        if self.length % 2 == 1 {
            // Nobody reads this byte, so it could say anything.
            let last = file.written - 1;
            file.patch(last, &[0]);
        }
    }
}
