//! JPEG (ITU-T T.81): segments, scans, and what may follow the end, such as a second picture or a film.

use super::{Damaged, EXIF_BYTES, Shrinking, exif_of, profile};

const EXIF: &[u8] = b"Exif\0\0";
/// A colour profile, and that this is part 1 of 1.
const PROFILE: &[u8] = b"ICC_PROFILE\0\x01\x01";
/// Of a JFIF segment up to the thumbnail, which may show what was cut away since.
const JFIF_BYTES: usize = 14;
/// Of an Adobe segment: how colours are coded.
const ADOBE_BYTES: usize = 12;

pub(super) fn strip(file: &mut Shrinking) -> Result<(), Damaged> {
    let start = file.range(0, 2)?;
    let mut at = start.end;
    file.keep(start);
    let mut has_scan = false;
    let mut has_profile = false;
    loop {
        let (marker, from) = next_marker(file, at)?;
        match marker {
            0xd9 if has_scan => {
                file.keep(from..from + 2);
                return Ok(());
            }
            0xc0..=0xcf | 0xda..=0xef | 0xfe => {}
            // What has no length has no place here, and what is reserved is skipped by some and read by others.
            _ => return Err(Damaged),
        }
        let length = usize::from(u16::from_be_bytes(file.array(from + 2)?));
        let end = file.range(from + 2, length)?.end;
        let said = length.checked_sub(2).ok_or(Damaged)?;
        let content = end - said;
        let begins = |with: &[u8]| file.bytes[content..end].starts_with(with);
        at = end;
        match marker {
            0xe0 if begins(b"JFIF\0") && said >= JFIF_BYTES => {
                let mut head: [u8; JFIF_BYTES] = file.array(content)?;
                head[12..].fill(0);
                put_segment(file, marker, &head, end);
            }
            0xe1 if begins(EXIF) => {
                let exif = exif_of(&file.bytes[content + EXIF.len()..end]);
                if let Some(exif) = exif {
                    let mut content = [0; EXIF.len() + EXIF_BYTES];
                    content[..EXIF.len()].copy_from_slice(EXIF);
                    content[EXIF.len()..].copy_from_slice(&exif);
                    put_segment(file, marker, &content, end);
                }
            }
            // One of several parts is of a profile that is too long to be known.
            0xe2 if begins(PROFILE) && !has_profile => {
                let known = profile::known(&file.bytes[content + PROFILE.len()..end]);
                if let Some(known) = known {
                    put_segment(file, marker, &[PROFILE, &known].concat(), end);
                    has_profile = true;
                }
            }
            0xee if begins(b"Adobe") && said >= ADOBE_BYTES => {
                let head: [u8; ADOBE_BYTES] = file.array(content)?;
                put_segment(file, marker, &head, end);
            }
            0xe0..=0xef | 0xfe => {}
            0xda => {
                at = end_of_scan(file, end)?;
                has_scan = true;
                file.keep(from..at);
            }
            _ => file.keep(from..end),
        }
    }
}

/// The next marker and the place of its 0xff. What stands between segments, and filling, is nothing that a decoder reads.
fn next_marker(file: &Shrinking, at: usize) -> Result<(u8, usize), Damaged> {
    let rest = file.bytes.get(at..).ok_or(Damaged)?;
    let first = rest.iter().position(|byte| *byte == 0xff).ok_or(Damaged)?;
    let filling = rest[first..].iter().position(|byte| *byte != 0xff);
    let marker = at + first + filling.ok_or(Damaged)?;
    Ok((file.bytes[marker], marker - 1))
}

/// Where the coded data of a scan ends: at the first marker other than a restart.
fn end_of_scan(file: &Shrinking, mut at: usize) -> Result<usize, Damaged> {
    loop {
        let (marker, from) = next_marker(file, at)?;
        match marker {
            0x00 | 0xd0..=0xd7 => at = from + 2,
            0x01..=0xbf => return Err(Damaged),
            _ => return Ok(from),
        }
    }
}

/// Keeps a segment with this content in the place of a longer or equal one.
fn put_segment(file: &mut Shrinking, marker: u8, content: &[u8], read: usize) {
    let length = content.len() as u16 + 2;
    let [high, low] = length.to_be_bytes();
    let whole = [&[0xff, marker, high, low], content].concat();
    file.put(&whole, read);
}
