//! Packets: encoding, and admitting with every check and signature.

use crate::measure::{Figure, interleaved};
use distsoc_engine::wire::{Direction, Expected, Packet, admit};
use std::hint::black_box;

const TIMES: usize = 200;

/// Encode and admit, for every packet of the table.
pub(crate) fn packets(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 9 } else { 51 };
    let mut figures = Vec::new();
    for packet in Packet::examples() {
        let (spec, bytes) = (packet.spec(), packet.encode());
        let expected = match spec.direction {
            Direction::Notification => Expected::Notification,
            Direction::Request(_) => Expected::Request,
            Direction::Response => Expected::Response(spec.code),
        };
        let mut encode = || (0..TIMES).for_each(|_| drop(black_box(packet.encode())));
        let mut take_in = || (0..TIMES).for_each(|_| drop(black_box(admit(&bytes, expected))));
        let mut samples = interleaved(rounds, TIMES, &mut [&mut encode, &mut take_in]).into_iter();
        for what in ["encode", "admit"] {
            let micros = samples
                .next()
                .expect("two cases")
                .into_iter()
                .map(|ns| ns / 1000.0)
                .collect();
            figures.push(Figure::of(
                format!("{what} {} ({} bytes)", spec.name, bytes.len()),
                "µs",
                micros,
            ));
        }
    }
    figures
}
