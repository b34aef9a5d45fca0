//! GIF 89a: blocks, each a chain of short ones. Colour profiles, which hardly any viewer reads in it, go.

use super::{Damaged, Shrinking};

/// What an extension that repeats an animation begins with.
const LOOPS: [&[u8; 12]; 2] = [b"\x0bNETSCAPE2.0", b"\x0bANIMEXTS1.0"];
/// Of a loop: its length, its kind, how often, and the end of the chain.
const LOOP_BYTES: usize = 5;

pub(super) fn strip(file: &mut Shrinking) -> Result<(), Damaged> {
    let head = file.range(0, 13)?;
    let colours = colour_bytes(file.bytes[10]);
    let head = file.range(0, head.end + colours)?;
    let mut at = head.end;
    file.keep(head);
    loop {
        let from = at;
        match file.array(at)? {
            [0x3b] => {
                file.keep(from..from + 1);
                return Ok(());
            }
            [0x2c] => {
                let packed = file.range(at, 10)?.end - 1;
                let colours = colour_bytes(file.bytes[packed]);
                // The colours of its own, and how long its codes are.
                let data = file.range(packed + 1, colours + 1)?.end;
                at = end_of_chain(file, data)?;
                file.keep(from..at);
            }
            [0x21] => {
                let [kind] = file.array(at + 1)?;
                at = end_of_chain(file, at + 2)?;
                let is_kept = match kind {
                    0xf9 => at - from == 8,
                    0xff => is_shown(file, from + 2, at),
                    _ => false,
                };
                if is_kept {
                    file.keep(from..at);
                }
            }
            _ => return Err(Damaged),
        }
    }
}

/// Whether an application's extension changes how the picture is shown.
fn is_shown(file: &Shrinking, from: usize, end: usize) -> bool {
    let content = &file.bytes[from..end];
    let mut rest = LOOPS.iter().filter_map(|name| content.strip_prefix(*name));
    rest.any(|rest| rest.len() == LOOP_BYTES && rest[..2] == [3, 1])
}

/// Bytes of the table of colours that these flags tell of.
fn colour_bytes(flags: u8) -> usize {
    match flags & 0x80 {
        0 => 0,
        _ => 3 << ((flags & 7) + 1),
    }
}

/// Past the last of a chain of short blocks.
fn end_of_chain(file: &Shrinking, mut at: usize) -> Result<usize, Damaged> {
    loop {
        let [length] = file.array(at)?;
        at = file.range(at + 1, usize::from(length))?.end;
        if length == 0 {
            return Ok(at);
        }
    }
}
