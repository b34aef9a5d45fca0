//! Responses with files over loopback: proved while they come in, and given up where nobody reads them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{example, pair};
use distsoc_engine::domain::Cut;
use distsoc_engine::io::{Effect, RequestFailure};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{FileResponse, Packet, PacketBytes};
use distsoc_net::runtime::block_on;

/// The largest response of a picture that is larger still.
fn large() -> Packet {
    let picture: Vec<u8> = (0..1 << 20).map(|place: u32| (place / 7) as u8).collect();
    let cut = Cut::new(&picture).unwrap();
    let slices = cut.slices().take(limits::FILE_SLICES_MAX as usize);
    FileResponse {
        blob: cut.blob(),
        first: 0,
        slices: slices.collect(),
    }
    .into()
}

#[test]
fn a_large_response_arrives_and_wrong_ones_end_early() {
    block_on(async {
        let (a, link, b, link_b) = pair(21, 22).await;
        a.send(link, example("Hello").encode());
        b.packet().await;
        let right = large().encode();
        let mut wrong = right.to_vec();
        wrong[100_000] ^= 1;
        let mut long = right.to_vec();
        long.push(0);
        let mut endless = example("FileResponse").encode().to_vec();
        endless.resize(right.len(), 0);
        let cases: [(PacketBytes, Result<Packet, Refusal>); 4] = [
            (wrong.into(), Err(Refusal::WrongHash)),
            (endless.into(), Err(Refusal::TooLarge)),
            (long.into(), Err(Refusal::TooLarge)),
            (right.clone(), Ok(large())),
        ];
        let sent = || b.endpoint.link_stats(link_b).unwrap().out_bytes as usize;
        for (number, (bytes, expected)) in cases.into_iter().enumerate() {
            a.ask(link, example("FileRequest").encode());
            let (stream, bytes) = (b.packet().await.1.unwrap(), Some(bytes));
            b.endpoint.perform(Effect::Respond { stream, bytes });
            let response = a.response().await;
            let is_expected = response == expected.map_err(RequestFailure::Refused);
            assert!(is_expected, "case {number}");
            // A wrong response costs what its stream's window lets through, and its rest does not come later either.
            let whole = number + 1;
            assert!(sent() < whole * right.len(), "case {number}: {}", sent());
        }
        assert_eq!(b.endpoint.responses_dropped(), 0);
    });
}
