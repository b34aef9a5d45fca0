//! Runs `cargo fuzz run admit_request`; the decoder itself is named in `distsoc_engine::wire::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| distsoc_engine::wire::hostile::admit_request(data));
