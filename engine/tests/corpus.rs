//! Replays the corpus that fuzzing left in the repository, and every golden packet with every byte changed.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test reads its files and fails by panicking"
)]

use distsoc_engine::wire::Packet;
use distsoc_engine::wire::hostile::DECODERS;
use std::path::Path;

#[test]
fn the_corpus_makes_no_decoder_panic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, decode) in DECODERS {
        let folder = root.join(name);
        let mut replayed = 0;
        for entry in std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            decode(&bytes);
            replayed += 1;
        }
        assert!(replayed >= 10, "{name} has a corpus of {replayed} only");
    }
}

#[test]
fn golden_packets_with_any_byte_changed_make_no_decoder_panic() {
    for packet in Packet::examples() {
        let bytes = packet.encode();
        for index in 0..bytes.len().min(400) {
            for value in [0x00, 0x1b, 0x5f, 0x7f, 0x9f, 0xbf, 0xf6, 0xff] {
                let mut changed = bytes.to_vec();
                changed[index] = value;
                for (_, decode) in DECODERS {
                    decode(&changed);
                }
            }
        }
    }
}
