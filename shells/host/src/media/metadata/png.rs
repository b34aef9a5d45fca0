//! PNG (third edition, with animations): chunks by name. A note has many names, and a picture few.

use super::{Damaged, Shrinking, exif_of, profile};

/// What a chunk has beside its content: length, name, check sum.
const FRAME_BYTES: usize = 12;

/// How long the content of a chunk may be that is kept; `None` for all others.
const fn length_max(name: [u8; 4]) -> Option<usize> {
    match &name {
        b"IHDR" => Some(13),
        b"PLTE" => Some(768),
        b"tRNS" => Some(256),
        b"IDAT" | b"fdAT" => Some(usize::MAX),
        b"IEND" => Some(0),
        // How colours are meant, and on what ground.
        b"gAMA" | b"cICP" | b"sBIT" => Some(4),
        b"sRGB" => Some(1),
        b"cHRM" => Some(32),
        b"bKGD" => Some(6),
        b"mDCV" => Some(24),
        b"cLLI" => Some(8),
        // Pixels that are no squares.
        b"pHYs" => Some(9),
        b"acTL" => Some(8),
        b"fcTL" => Some(26),
        _ => None,
    }
}

pub(super) fn strip(file: &mut Shrinking) -> Result<(), Damaged> {
    let start = file.range(0, 8)?;
    let mut at = start.end;
    file.keep(start);
    let mut has_profile = false;
    loop {
        let length = u32::from_be_bytes(file.array(at)?) as usize;
        let name: [u8; 4] = file.array(at + 4)?;
        let whole = file.range(at, length.checked_add(FRAME_BYTES).ok_or(Damaged)?)?;
        let end = whole.end;
        match length_max(name) {
            Some(most) if length <= most => file.keep(whole),
            None if &name == b"eXIf" => {
                if let Some(exif) = exif_of(&file.bytes[at + 8..end - 4]) {
                    file.put(&chunk(name, &exif), end);
                }
            }
            None if &name == b"iCCP" && !has_profile => {
                if let Some(known) = profile::known_packed(&file.bytes[at + 8..end - 4]) {
                    has_profile = file.put(&chunk(name, &known), end);
                }
            }
            // A decoder may not pass over what begins with a capital.
            _ if name[0].is_ascii_uppercase() => return Err(Damaged),
            _ => {}
        }
        if &name == b"IEND" {
            return Ok(());
        }
        at = end;
    }
}

fn chunk(name: [u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [&name, content].concat();
    let length = (content.len() as u32).to_be_bytes();
    [&length, named.as_slice(), &check_sum(&named).to_be_bytes()].concat()
}

/// CRC-32 as PNG has it, of a few bytes.
pub(super) fn check_sum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
        })
    })
}
