//! Runs `cargo fuzz run connect_string`; the decoder itself is named in `distsoc_engine::wire::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| distsoc_engine::wire::hostile::connect_string(data));
