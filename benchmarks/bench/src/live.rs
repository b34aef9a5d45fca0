//! Real nodes in this process: real QUIC on loopback, real LMDB.

use crate::measure::{Figure, anonymous_bytes};
use distsoc_engine::domain::{ConnectString, PostText};
use distsoc_engine::io::{Call, Notice, Reply};
use distsoc_engine::profile::ProfileKind;
use distsoc_host::{Host, HostConfig};
use distsoc_net::runtime::{block_on, sleep, timeout};
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(dir: &Path, number: usize, kind: ProfileKind) -> Host {
    Host::start(HostConfig {
        dir: dir.join(number.to_string()),
        kind,
        listen: ([127, 0, 0, 1], 0).into(),
        anchors: Vec::new(),
        name: None,
        identity_seed: None,
    })
    .expect("a node starts on an empty folder")
}

async fn connect(from: &Host, to: &Host) {
    let place = ConnectString::at(to.node_id(), to.listen());
    let connected = timeout(PATIENCE, from.call(Call::Connect(place))).await;
    assert!(
        matches!(connected, Some(Ok(Reply::Connected(_)))),
        "a loopback node answers: {connected:?}"
    );
}

/// How many peers a node has.
async fn peers_of(host: &Host) -> usize {
    match host.call(Call::Status).await {
        Ok(Reply::Status(status)) => status.peers_social + status.peers_wide,
        other => panic!("a node tells its status: {other:?}"),
    }
}

/// 102 nodes in this process, each of which comes to 101 connections, by one that knows all of them: memory per connection and
/// side, QUIC, tasks and world included. The memory of the same nodes before they are connected is taken away.
pub(crate) fn connection_memory(_: bool) -> Vec<Figure> {
    block_on(async {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let hosts: Vec<Host> = (0..102)
            .map(|number| match number {
                // Two of the wide slots are for anchors.
                100.. => start(dir.path(), number, ProfileKind::Anchor),
                _ => start(dir.path(), number, ProfileKind::Desktop),
            })
            .collect();
        // The first connection pays for what all share.
        connect(&hosts[0], &hosts[1]).await;
        sleep(Duration::from_secs(2)).await;
        let before = anonymous_bytes();
        for other in &hosts[2..] {
            connect(&hosts[0], other).await;
        }
        let mut sides = 0;
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            let mut now = 0;
            for host in &hosts {
                now += peers_of(host).await;
            }
            if now == sides {
                break;
            }
            sides = now;
        }
        sleep(Duration::from_secs(5)).await;
        let per_side = (anonymous_bytes() - before) / (sides - 2) as f64 / 1000.0;
        let most = peers_of(&hosts[0]).await;
        for host in &hosts {
            host.stop().await;
        }
        vec![
            Figure::of(
                format!("idle connection, {most} at one node, {sides} sides: memory per side"),
                "kB",
                vec![per_side],
            )
            .goal("≤ 25"),
        ]
    })
}

/// A post on one node until it is in the feeds of all its connected followers.
pub(crate) fn push_latency(quick: bool) -> Vec<Figure> {
    let (followers, rounds) = if quick { (20, 20) } else { (100, 50) };
    block_on(async {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let author = start(dir.path(), 0, ProfileKind::Desktop);
        let mut hosts = Vec::new();
        for number in 1..=followers {
            let kind = match number {
                100.. => ProfileKind::Anchor,
                _ => ProfileKind::Desktop,
            };
            let host = start(dir.path(), number, kind);
            connect(&host, &author).await;
            let follow = Call::Follow {
                node: author.node_id(),
                place: None,
            };
            assert_eq!(host.call(follow).await, Ok(Reply::Done));
            hosts.push(host);
        }
        let watching: Vec<_> = hosts
            .iter()
            .map(|host| host.subscribe().expect("one subscriber each"))
            .collect();
        let (mut acknowledged, mut arrived) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let text = PostText::new(&format!("{round} {}", "x".repeat(1_000))).expect("a post");
            let begun = Instant::now();
            let Ok(Reply::Posted(wanted)) = author
                .call(Call::Post {
                    text,
                    parent: None,
                    media: Vec::new(),
                })
                .await
            else {
                panic!("the post was not taken");
            };
            acknowledged.push(begun.elapsed().as_secs_f64() * 1000.0);
            for notices in &watching {
                let seen = async {
                    while !matches!(notices.recv().await, Ok(Notice::Post { id, .. }) if id == wanted)
                    {
                    }
                };
                timeout(PATIENCE, seen).await.expect("the post arrives");
            }
            arrived.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        for host in hosts.iter().chain([&author]) {
            host.stop().await;
        }
        vec![
            Figure::of("durable acknowledgement of an own post", "ms", acknowledged),
            Figure::of(
                format!("1 KB post → in {followers} connected feeds"),
                "ms",
                arrived,
            )
            .goal("p99 ≤ 40 at 100"),
        ]
    })
}
