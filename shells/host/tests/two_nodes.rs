//! Two real nodes: real QUIC on loopback, real LMDB.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use distsoc_engine::domain::{ConnectString, PostText};
use distsoc_engine::io::{Call, Notice, Reply};
use distsoc_engine::profile::ProfileKind;
use distsoc_host::{Host, HostConfig};
use distsoc_net::runtime::{block_on, timeout};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);

fn start(dir: &Path, anchors: Vec<ConnectString>) -> Host {
    Host::start(HostConfig {
        dir: dir.into(),
        kind: ProfileKind::Desktop,
        listen: "127.0.0.1:0".parse().unwrap(),
        anchors,
        name: None,
        identity_seed: None,
    })
    .unwrap()
}

async fn wait_for(notices: &async_channel::Receiver<Notice>, wanted: impl Fn(&Notice) -> bool) {
    let found = timeout(PATIENCE, async {
        while !wanted(&notices.recv().await.expect("the node runs")) {}
    });
    found.await.expect("it happens within 30 s");
}

async fn post(host: &Host, text: &str) -> distsoc_engine::domain::PostId {
    let text = PostText::new(text).unwrap();
    match host
        .call(Call::Post {
            text,
            parent: None,
            media: Vec::new(),
        })
        .await
    {
        Ok(Reply::Posted(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_post_arrives_and_survives_restarts_of_both() {
    block_on(async {
        let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let a = start(dir_a.path(), Vec::new());
        let place = ConnectString::at(a.node_id(), a.listen());
        let b = start(dir_b.path(), Vec::new());
        let notices = b.subscribe().unwrap();
        assert_eq!(
            b.call(Call::Connect(place.clone())).await,
            Ok(Reply::Connected(a.node_id()))
        );
        let node = a.node_id();
        assert_eq!(
            b.call(Call::Follow { node, place: None }).await,
            Ok(Reply::Done)
        );
        let first = post(&a, "hello").await;
        wait_for(
            &notices,
            |notice| matches!(notice, Notice::Post { id, .. } if *id == first),
        )
        .await;
        b.stop().await;
        // While b is away, and after a restart of a.
        let second = post(&a, "missed").await;
        a.stop().await;
        drop((a, b));
        let a = start(dir_a.path(), Vec::new());
        assert_eq!(a.node_id(), node);
        let b = start(dir_b.path(), Vec::new());
        let notices = b.subscribe().unwrap();
        let place = ConnectString::at(a.node_id(), a.listen());
        assert_eq!(
            b.call(Call::Connect(place)).await,
            Ok(Reply::Connected(node))
        );
        wait_for(
            &notices,
            |notice| matches!(notice, Notice::Post { id, .. } if *id == second),
        )
        .await;
        assert!(
            b.view(move |view| view.post(first))
                .await
                .unwrap()
                .is_some()
        );
        a.stop().await;
        b.stop().await;
        assert!(
            b.view(move |view| view.post(second))
                .await
                .unwrap()
                .is_some()
        );
    });
}

#[test]
fn wrong_ids_and_dead_ports_are_told_apart() {
    block_on(async {
        let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (
            start(dir_a.path(), Vec::new()),
            start(dir_b.path(), Vec::new()),
        );
        let somebody = distsoc_engine::crypto::Secret::from_seed(&[77; 32]).node_id();
        let wrong = b
            .call(Call::Connect(ConnectString::at(somebody, a.listen())))
            .await;
        assert_eq!(
            wrong.unwrap_err().to_string(),
            "wrong id: another node answers there"
        );
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let dead = b
            .call(Call::Connect(ConnectString::at(
                somebody,
                silent.local_addr().unwrap(),
            )))
            .await;
        assert_eq!(
            dead.unwrap_err().to_string(),
            "no distsoc/2 node answers there"
        );
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn two_that_dial_each_other_at_once_keep_one_connection() {
    block_on(async {
        let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (
            start(dir_a.path(), Vec::new()),
            start(dir_b.path(), Vec::new()),
        );
        let (at_a, at_b) = (
            ConnectString::at(a.node_id(), a.listen()),
            ConnectString::at(b.node_id(), b.listen()),
        );
        let both =
            futures_lite::future::zip(a.call(Call::Connect(at_b)), b.call(Call::Connect(at_a)));
        let (there, back) = both.await;
        assert!(there.is_ok() && back.is_ok(), "{there:?} {back:?}");
        for host in [&a, &b] {
            let Ok(Reply::Status(status)) = host.call(Call::Status).await else {
                panic!("no status");
            };
            assert_eq!(status.peers_social + status.peers_wide, 1);
        }
        let node = a.node_id();
        assert_eq!(
            b.call(Call::Follow { node, place: None }).await,
            Ok(Reply::Done)
        );
        let notices = b.subscribe().unwrap();
        let id = post(&a, "over the one that stayed").await;
        wait_for(
            &notices,
            |notice| matches!(notice, Notice::Post { id: seen, .. } if *seen == id),
        )
        .await;
        a.stop().await;
        b.stop().await;
    });
}
