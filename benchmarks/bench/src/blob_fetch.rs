//! A large blob (FIGURES, "Files"): from the dial until its last slice is proved, and until it is on the disk, between real nodes over
//! real QUIC and LMDB; beside the same bytes in one stream.

use crate::folder;
use crate::measure::Figure;
use crate::raw::RawStream;
use distsoc_engine::domain::{BlobRef, ConnectString, Cut};
use distsoc_engine::io::{Call, Write};
use distsoc_engine::profile::ProfileKind;
use distsoc_host::Host;
use distsoc_net::runtime::{block_on, sleep, spawn};
use std::path::Path;
use std::time::{Duration, Instant};

const BLOB_BYTES: usize = 11_200_000;
/// What is looked at how often.
const LOOK: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(90);
/// Slices in one batch of the folder that is made.
const SLICES_PER_BATCH: usize = 64;

fn content() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..BLOB_BYTES).map(next).collect()
}

/// Seconds since the dial.
struct Fetched {
    verified: f64,
    durable: f64,
}

fn slices_came(host: &Host) -> u64 {
    let rows = host.traffic();
    let row = rows.iter().find(|row| row.cause == "FileResponse");
    row.map_or(0, |row| row.in_bytes)
}

async fn fetch(holder: &Host, fetcher: &Host, blob: BlobRef) -> Fetched {
    let begun = Instant::now();
    let place = ConnectString::at(holder.node_id(), holder.listen());
    let dialling = {
        let fetcher = fetcher.clone();
        spawn(async move { fetcher.call(Call::Connect(place)).await })
    };
    let mut fetched = Fetched {
        verified: 0.0,
        durable: 0.0,
    };
    let last = |at: u64| (at + 1_000_000).min(blob.length);
    let slices = 0..blob.slices();
    let with_proofs: u64 = slices.map(|slice| blob.slice_bytes(slice) as u64).sum();
    let mut at = 0;
    while at < blob.length {
        assert!(begun.elapsed() < PATIENCE, "a fetch ends, {at} bytes came");
        sleep(LOOK).await;
        if fetched.verified == 0.0 {
            // Responses are counted once each of their slices is proved.
            if slices_came(fetcher) < with_proofs {
                continue;
            }
            fetched.verified = begun.elapsed().as_secs_f64();
        }
        while at < blob.length {
            match fetcher.has_blob_part(blob, at..last(at)).await {
                Ok(true) => at = last(at),
                Ok(false) => break,
                Err(fault) => panic!("{fault}"),
            }
        }
    }
    fetched.durable = begun.elapsed().as_secs_f64();
    assert!(dialling.await.is_ok(), "the holder answers");
    fetched
}

/// One who has the blob, and others who have the post that names it.
struct Folders {
    post: Write,
    list: [Write; 2],
    author: u16,
}

impl Folders {
    fn make(&self, dir: &Path, number: u16, slices: Vec<Vec<Write>>) {
        let mut rows = vec![self.post.clone()];
        rows.extend(self.list.clone());
        if number != self.author {
            rows.push(folder::follow(folder::secret(self.author).node_id()));
        }
        let batches = slices.into_iter().chain([rows]).collect();
        folder::make(dir, &folder::secret(number), batches);
    }
}

/// 11.2 MB from a cold connection.
pub(crate) fn large(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 5 } else { 21 };
    let content = content();
    let cut = Cut::new(&content).expect("a length within bounds");
    let author = folder::secret(1);
    let post = folder::post(&author, folder::wall_ms() - 1_000, "a film", &[cut.blob()]);
    let list = folder::list(&author, std::slice::from_ref(&post));
    let folders = Folders {
        post: folder::store_post(&post),
        list: folder::store_list(&list),
        author: 1,
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let holder_dir = dir.path().join("holder");
    let slices: Vec<Write> = cut.slices().map(Write::Slice).collect();
    let slices = slices.chunks(SLICES_PER_BATCH).map(<[Write]>::to_vec);
    folders.make(&holder_dir, 1, slices.collect());
    let raw = RawStream::of(content.clone());
    let (mut verified, mut durable, mut raw_ms) = (Vec::new(), Vec::new(), Vec::new());
    block_on(async {
        let holder = folder::start(&holder_dir, ProfileKind::Desktop);
        for round in 0..=rounds {
            let begun = Instant::now();
            assert_eq!(raw.fetch().await, BLOB_BYTES);
            let raw_s = begun.elapsed().as_secs_f64();
            let fetcher_dir = dir.path().join(format!("fetcher {round}"));
            folders.make(&fetcher_dir, 100 + round as u16, Vec::new());
            let fetcher = folder::start(&fetcher_dir, ProfileKind::Desktop);
            let fetched = fetch(&holder, &fetcher, cut.blob()).await;
            fetcher.stop().await;
            std::fs::remove_dir_all(&fetcher_dir).expect("a folder of this process");
            // The first round warms up.
            if round > 0 {
                verified.push(fetched.verified * 1000.0);
                durable.push(fetched.durable * 1000.0);
                raw_ms.push(raw_s * 1000.0);
            }
        }
        holder.stop().await;
    });
    let over = |ours: &[f64]| -> Vec<f64> {
        let pairs = ours.iter().zip(&raw_ms);
        pairs.map(|(ours, raw)| ours / raw).collect()
    };
    let (over_verified, over_durable) = (over(&verified), over(&durable));
    vec![
        Figure::of("11.2 MB blob, cold: every slice proved", "ms", verified).goal("≤ 65"),
        Figure::of("11.2 MB blob, cold: and on the disk", "ms", durable),
        Figure::of("the same bytes in one raw stream, cold", "ms", raw_ms),
        Figure::of("proved, over the raw stream", "×", over_verified).goal("≤ 1.2"),
        Figure::of("on the disk, over the raw stream", "×", over_durable),
    ]
}
