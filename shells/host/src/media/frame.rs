//! The head of a JPEG (ITU-T T.81), read without a decoder: what its frame says before anything of the file is kept or decoded.
//!
//! The decoder takes in the whole file before it looks at any of it. Here segments are stepped over, so that a part of the file is in
//! memory at a time and each byte is looked at once.

use super::MediaFault;
use std::io::{BufRead, Error, ErrorKind, Seek, SeekFrom};

/// What the frame and the first scan of a JPEG say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Width and height.
    pub(super) pixels: (u32, u32),
    /// Colours.
    pub(super) components: u8,
    /// Whether pixels are made only once all scans were read, of coefficients that are remembered until then.
    is_gathered: bool,
}

impl Frame {
    /// Reads up to the first scan and goes back to the start.
    pub(super) fn read(reader: &mut (impl BufRead + Seek)) -> Result<Self, MediaFault> {
        let read = frame_of(reader).and_then(|frame| {
            reader.rewind()?;
            Ok(frame)
        });
        // Where the disk is what failed, the reader remembers it.
        read.map_err(|_| MediaFault::Damaged)
    }

    /// Bytes that a decoder needs for its pixels, and for coefficients of 16 bits where it gathers them.
    pub(super) fn decoder_bytes(&self) -> u64 {
        let pixels = u64::from(self.pixels.0) * u64::from(self.pixels.1);
        let components = u64::from(self.components);
        let shown = if components == 1 { 1 } else { 3 };
        let gathered = if self.is_gathered { 2 * components } else { 0 };
        pixels * (shown + gathered)
    }
}

fn frame_of(reader: &mut (impl BufRead + Seek)) -> std::io::Result<Frame> {
    reader.seek(SeekFrom::Start(2))?;
    let mut frame = None;
    loop {
        let marker = next_marker(reader)?;
        let [high, low] = bytes(reader)?;
        let length = i64::from(u16::from_be_bytes([high, low]));
        let content = length.checked_sub(2).filter(|length| *length >= 0);
        let content = content.ok_or(ErrorKind::InvalidData)?;
        let read = match marker {
            // All frames but 0xc4, 0xc8 and 0xcc, which are other segments.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let [_, h1, h0, w1, w0, components] = bytes(reader)?;
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                frame = Some(Frame {
                    pixels: (side(w1, w0), side(h1, h0)),
                    components,
                    is_gathered: marker == 0xc2,
                });
                6
            }
            0xda => {
                let frame = frame.ok_or(ErrorKind::InvalidData)?;
                let [of_scan] = bytes(reader)?;
                let is_gathered = frame.is_gathered || of_scan < frame.components;
                return Ok(Frame {
                    is_gathered,
                    ..frame
                });
            }
            0xd9 => return Err(ErrorKind::InvalidData.into()),
            _ => 0,
        };
        // Never back: a file of segments that are too short would be read for ever.
        if content < read {
            return Err(ErrorKind::InvalidData.into());
        }
        reader.seek(SeekFrom::Current(content - read))?;
    }
}

fn bytes<const N: usize>(reader: &mut impl BufRead) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What stands between segments, and filling, is skipped, as a decoder does.
fn next_marker(reader: &mut impl BufRead) -> std::io::Result<u8> {
    loop {
        if reader.skip_until(0xff)? == 0 {
            return Err(Error::from(ErrorKind::UnexpectedEof));
        }
        loop {
            match bytes(reader)? {
                [0xff] => {}
                [0x00] => break,
                [marker] => return Ok(marker),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    const START: &[u8] = b"\xff\xd8";
    const FRAME: &[u8] = b"\xff\xc0\0\x11\x08\x01\0\x02\x01\x03\x01\x22\0\x02\x11\0\x03\x11\0";
    const SCAN: &[u8] = b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0 and the rest";

    fn read(parts: &[&[u8]]) -> Result<Frame, MediaFault> {
        Frame::read(&mut Cursor::new(parts.concat()))
    }

    #[test]
    fn a_frame_is_found_behind_whatever_stands_before_it() {
        let plain = Frame {
            pixels: (513, 256),
            components: 3,
            is_gathered: false,
        };
        let tables = b"\xff\xc4\0\x04\xff\xc0\xff\xdb\0\x02";
        let long = [&b"\xff\xe1\xff\xff"[..], &[0xff; 0xffff - 2]].concat();
        for before in [&b""[..], tables, &long, b"\xff\xff\xff", b"junk\xff\0"] {
            let found = read(&[START, before, FRAME, b"\xff\xfe\0\x03\xda", SCAN]).unwrap();
            assert_eq!(found, plain, "{} bytes before", before.len());
        }
        assert_eq!(plain.decoder_bytes(), 513 * 256 * 3);
    }

    #[test]
    fn what_is_gathered_before_it_is_shown_takes_more() {
        let progressive = [b"\xff\xc2", &FRAME[2..]].concat();
        let one_of_three = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0 and the rest";
        for (frame, scan) in [(&progressive[..], SCAN), (FRAME, &one_of_three[..])] {
            let found = read(&[START, frame, scan]).unwrap();
            assert_eq!(found.decoder_bytes(), 513 * 256 * (3 + 2 * 3));
        }
    }

    #[test]
    fn what_has_no_frame_is_damaged_and_nothing_is_read_for_ever() {
        for parts in [
            &[START][..],
            &[START, FRAME],
            &[START, SCAN],
            &[START, FRAME, b"\xff\xd9"],
            &[START, b"\xff\xe0\0\0", FRAME, SCAN],
            &[START, b"\xff\xe0\0\x01", FRAME, SCAN],
            &[START, b"\xff\xc0\0\x02\x08\x01\0\x02\x01\x03", SCAN],
            &[START, b"\xff\xe0\xff\xff", FRAME, SCAN],
            &[START, &[0xff; 5_000]],
            &[START, &[0; 5_000]],
        ] {
            let found = read(parts);
            assert!(matches!(found, Err(MediaFault::Damaged)), "{found:?}");
        }
    }
}
