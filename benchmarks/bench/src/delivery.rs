//! How often content arrives for each time it is needed (FIGURES, "Files"): a small network of real nodes on loopback whose people follow
//! each other and post pictures.

use crate::folder;
use crate::measure::Figure;
use distsoc_engine::domain::{
    BlobRef, ConnectString, Cut, MediaDescription, NodeId, PostId, PostText,
};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Call, Reply};
use distsoc_engine::profile::ProfileKind;
use distsoc_host::Host;
use distsoc_net::runtime::{block_on, sleep};
use std::time::{Duration, Instant};

const PEOPLE: usize = 10;
const FOLLOWS: usize = 4;
const PICTURE_BYTES: u64 = 150_000;
/// Nothing more came for so long: what is to come has come.
const QUIET: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(120);
/// What brings content.
const CAUSES: [&str; 3] = ["FileResponse", "PullSyncResponse", "PostNotification"];

struct Posted {
    id: PostId,
    by: usize,
    blob: BlobRef,
}

fn came(hosts: &[Host]) -> u64 {
    let rows = hosts.iter().flat_map(Host::traffic);
    let content = rows.filter(|row| CAUSES.contains(&row.cause));
    content.map(|row| row.in_bytes).sum()
}

async fn say(host: &Host, by: usize, turn: usize, entropy: &mut Entropy) -> Posted {
    let length = PICTURE_BYTES / 2 + entropy.below(PICTURE_BYTES);
    let picture: Vec<u8> = (0..=length / 32).flat_map(|_| entropy.bytes32()).collect();
    let cut = Cut::new(&picture).expect("a length within bounds");
    let staged = host.call(Call::Stage(cut.slices().collect())).await;
    assert_eq!(staged, Ok(Reply::Done));
    let text = PostText::new(&format!("{turn} of {by}: {}", "x".repeat(280))).expect("a text");
    let shows = MediaDescription::new("").expect("none is one");
    let call = Call::Post {
        text,
        parent: None,
        media: vec![(cut.blob(), shows)],
    };
    match host.call(call).await {
        Ok(Reply::Posted(id)) => Posted {
            id,
            by,
            blob: cut.blob(),
        },
        other => panic!("the post was not taken: {other:?}"),
    }
}

/// Bytes that others than their authors hold.
async fn needed(hosts: &[Host], posts: &[Posted]) -> (u64, usize) {
    let (mut bytes, mut copies) = (0, 0);
    for (number, host) in hosts.iter().enumerate() {
        for Posted { id, by, blob } in posts {
            if number == *by {
                continue;
            }
            let id = *id;
            let post = host.view(move |view| view.post(id)).await;
            if post.expect("a view").is_none() {
                continue;
            }
            // A body of 300 letters, its other fields and its signature.
            bytes += 300 + 120 + 64;
            if let Ok(true) = host.has_blob_part(*blob, 0..blob.length).await {
                bytes += blob.length;
                copies += 1;
            }
        }
    }
    (bytes, copies)
}

/// Content that came, over what is held in the end.
pub(crate) fn factor(quick: bool) -> Vec<Figure> {
    let turns = if quick { 2 } else { 6 };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (factor, copies, expected) = block_on(async {
        let mut entropy = Entropy::from_seed([31; 32]);
        let hosts: Vec<Host> = (0..PEOPLE)
            .map(|number| {
                let dir = dir.path().join(number.to_string());
                folder::start(&dir, ProfileKind::Desktop)
            })
            .collect();
        let ids: Vec<NodeId> = hosts.iter().map(Host::node_id).collect();
        for (number, host) in hosts.iter().enumerate() {
            for step in 1..=3 {
                let other = &hosts[(number + step) % PEOPLE];
                let place = ConnectString::at(other.node_id(), other.listen());
                let connected = host.call(Call::Connect(place)).await;
                assert!(
                    matches!(connected, Ok(Reply::Connected(_))),
                    "{connected:?}"
                );
            }
            for step in 1..=FOLLOWS {
                let node = ids[(number + step * step) % PEOPLE];
                if node != host.node_id() {
                    let follow = Call::Follow { node, place: None };
                    assert_eq!(host.call(follow).await, Ok(Reply::Done));
                }
            }
        }
        let mut posts = Vec::new();
        for turn in 0..turns {
            for (by, host) in hosts.iter().enumerate() {
                posts.push(say(host, by, turn, &mut entropy).await);
                sleep(Duration::from_millis(200)).await;
            }
        }
        let begun = Instant::now();
        let (mut last, mut at) = (came(&hosts), Instant::now());
        while at.elapsed() < QUIET && begun.elapsed() < PATIENCE {
            sleep(Duration::from_millis(500)).await;
            let now = came(&hosts);
            if now > last {
                (last, at) = (now, Instant::now());
            }
        }
        let (bytes, copies) = needed(&hosts, &posts).await;
        for host in &hosts {
            host.stop().await;
        }
        (last as f64 / bytes as f64, copies, posts.len())
    });
    let name = "times content arrives, over the times it is held in the end";
    vec![
        Figure::of(name, "×", vec![factor]).goal("≤ 1.05"),
        Figure::of(
            format!("pictures held by others than their authors, of {expected}"),
            "",
            vec![copies as f64],
        ),
    ]
}
