//! kill −9 at random instants loses nothing acknowledged (PROTOCOL sections 12 and 13): a real process on a real disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use distsoc_api::Client;
use distsoc_engine::entropy::Entropy;
use distsoc_net::runtime::{block_on, spawn};
use harness::{Running, json};
use serde_json::json as value;
use std::collections::BTreeSet;

/// How often the process is killed.
const KILLS: usize = 50;

/// Posts side by side until the node is gone; gives the ids that were acknowledged.
async fn post_until_gone(
    client: Client,
    round: usize,
    kill_after: u64,
    mut kill: impl FnMut(),
) -> Vec<String> {
    let (send, acknowledged) = async_channel::unbounded();
    for writer in 0..3 {
        let (client, send) = (client.clone(), send.clone());
        spawn(async move {
            for number in 0.. {
                let text = format!("round {round}, writer {writer}, post {number}");
                let Ok(result) = client.call("post", value!({"text": text})).await else {
                    break;
                };
                if send
                    .send(result["post_id"].as_str().unwrap().to_owned())
                    .await
                    .is_err()
                {
                    break;
                }
            }
        });
    }
    drop(send);
    let mut ids = Vec::new();
    while let Ok(id) = acknowledged.recv().await {
        ids.push(id);
        if ids.len() as u64 == kill_after {
            kill();
        }
    }
    ids
}

#[test]
fn every_acknowledged_post_is_found_after_each_of_fifty_kills() {
    let seed = std::env::var("DISTSOC_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1u8);
    let mut entropy = Entropy::from_seed([seed; 32]);
    let dir = tempfile::tempdir().unwrap();
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for round in 0..KILLS {
        let mut node = Running::node(dir.path());
        let status = json(dir.path(), &["status"]);
        let stored = status["posts"].as_u64().unwrap() as usize;
        assert!(
            stored >= expected.len(),
            "round {round}, DISTSOC_SEED={seed}: {stored} of {} posts",
            expected.len()
        );
        // The kill falls at a random number of acknowledgements, while other posts are on their way.
        let kill_after = 1 + entropy.below(12);
        let client = block_on(Client::open(dir.path())).unwrap();
        let acknowledged = block_on(post_until_gone(client, round, kill_after, || node.kill()));
        assert!(!acknowledged.is_empty());
        expected.extend(acknowledged);
    }
    let _node = Running::node(dir.path());
    let mut found = BTreeSet::new();
    let mut before: Option<String> = None;
    loop {
        let mut args = vec!["feed", "--limit", "500"];
        if let Some(before) = &before {
            args.extend(["--before", before]);
        }
        let page = json(dir.path(), &args);
        let page = page.as_array().unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last["cursor"].as_str().unwrap().to_owned());
        found.extend(
            page.iter()
                .map(|post| post["post_id"].as_str().unwrap().to_owned()),
        );
    }
    let lost: Vec<&String> = expected.difference(&found).collect();
    assert!(
        lost.is_empty(),
        "DISTSOC_SEED={seed}: {} acknowledged posts are lost: {lost:?}",
        lost.len()
    );
}
