//! Golden bytes, round trips and hostile bytes for every packet of the table.

#![allow(
    clippy::disallowed_methods,
    reason = "a test reads and blesses its golden files"
)]

use super::*;
use proptest::prelude::*;

fn expected_of(spec: &PacketSpec) -> Expected {
    match spec.direction {
        Notification => Expected::Notification,
        Request(_) => Expected::Request,
        Response => Expected::Response(spec.code),
    }
}

fn golden_path(spec: &PacketSpec) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{}.hex", spec.name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `DISTSOC_BLESS=1 cargo test -p distsoc-engine golden` writes the files anew; a change of them is a change of the
/// wire format.
#[test]
fn golden_bytes_of_every_packet() {
    let bless = std::env::var_os("DISTSOC_BLESS").is_some();
    for packet in Packet::examples() {
        let (spec, bytes) = (packet.spec(), packet.encode());
        let path = golden_path(spec);
        if bless {
            std::fs::write(&path, hex(&bytes) + "\n").unwrap();
        }
        let golden = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            hex(&bytes),
            golden.trim(),
            "{} changed on the wire",
            spec.name
        );
        assert_eq!(
            admit(&bytes, expected_of(spec)).unwrap().into_inner(),
            packet
        );
    }
}

#[test]
fn codes_are_distinct_and_requests_have_their_answers() {
    let mut codes: Vec<Code> = PACKETS.iter().map(|spec| spec.code).collect();
    codes.extend(RESERVED.iter().map(|(code, _)| *code));
    let count = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), count);
    assert_eq!(count, 40, "all codes of PROTOCOL section 5");
    for packet in PACKETS {
        if let Request(answer) = packet.direction {
            assert_eq!(spec(answer).unwrap().direction, Response);
        }
    }
}

#[test]
fn wrong_directions_and_codes_are_refused() {
    let hello = Packet::examples().remove(0).encode();
    assert_eq!(
        admit(&hello, Expected::Request),
        Err(Refusal::WrongDirection)
    );
    assert_eq!(
        admit(&hello, Expected::Response(0x41)),
        Err(Refusal::WrongDirection)
    );
    assert_eq!(admit(&[], Expected::Notification), Err(Refusal::Empty));
    assert_eq!(
        admit(&[0x42, 0x80], Expected::Notification),
        Err(Refusal::ReservedCode)
    );
    assert_eq!(
        admit(&[0xff, 0x80], Expected::Notification),
        Err(Refusal::UnknownCode)
    );
}

#[test]
fn hostile_bytes_of_every_packet() {
    for packet in Packet::examples() {
        let (spec, bytes) = (packet.spec(), packet.encode());
        let expected = expected_of(spec);
        for cut in 1..bytes.len() {
            assert!(
                admit(&bytes[..cut], expected).is_err(),
                "{} cut at {cut}",
                spec.name
            );
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(
            admit(&longer, expected),
            Err(Refusal::NotCanonical),
            "{}",
            spec.name
        );
        let mut oversized = bytes.to_vec();
        oversized.resize(spec.bytes_max + 1, 0);
        assert_eq!(
            admit(&oversized, expected),
            Err(Refusal::TooLarge),
            "{}",
            spec.name
        );
    }
}

#[test]
fn a_flipped_bit_in_a_signed_body_is_a_bad_signature_or_worse() {
    for packet in Packet::examples() {
        let bytes = packet.encode();
        let expected = expected_of(packet.spec());
        for index in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[index] ^= 0x10;
            if let Ok(admitted) = admit(&flipped, expected) {
                assert_ne!(
                    *admitted, packet,
                    "another packet, never the same one under other bytes"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn garbage_never_panics_and_what_is_admitted_round_trips(
        code in prop::sample::select(PACKETS.iter().map(|spec| spec.code).collect::<Vec<_>>()),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&[code], &body[..]].concat();
        let expected = expected_of(spec(code).unwrap());
        if let Ok(packet) = admit(&bytes, expected) {
            prop_assert_eq!(&packet.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn mutated_examples_never_panic(
        which in 0..PACKETS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let packet = Packet::examples().swap_remove(which);
        let mut bytes = packet.encode().to_vec();
        for (index, byte) in edits {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(admitted) = admit(&bytes, expected_of(packet.spec())) {
            prop_assert_eq!(&admitted.encode()[..], &bytes[..]);
        }
    }
}
