//! A holder that serves wrong bytes, or far more than was asked for, over real QUIC: refused within bounds, cooled off, and what it
//! was asked for comes from another. A holder that stalls is tried in virtual time (systems/tests/files.rs).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use async_channel::Receiver;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Address, BlobHash, BlobRef, ConnectString, Cut, MediaDescription, NodeId, PostText,
};
use distsoc_engine::io::{Call, DialId, DialTarget, Effect, Input, LinkId, Notice, Reply};
use distsoc_engine::io::{RequestId, StreamToken};
use distsoc_engine::limits::{FETCHES_PER_PEER_MAX, MISCONDUCT_POINTS_MAX, POST_BLOBS_MAX};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{FileRequest, FileResponse, Hello, Packet, PacketBytes, Purpose};
use distsoc_host::{Host, HostConfig};
use distsoc_net::limits::RESPONSE_WINDOW_BYTES;
use distsoc_net::runtime::{block_on, sleep, spawn, timeout};
use distsoc_net::{Endpoint, EndpointConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(180);
/// Posts with as many pictures as one may have.
const POSTS: usize = 2;
const PICTURE_BYTES: usize = 1_024;
/// What the hostile holder hands to its transport for each of them.
const FLOOD_BYTES: usize = 2 * 1024 * 1024;
/// What it says that it is.
const CLAIMED_BYTES: u32 = 1 << 30;
/// Answers whose points are forgiven within the test's patience: half a point a second.
const FORGIVEN_MAX: u32 = 1;
/// Of a connection, beside the answers with files.
const OTHER_BYTES_MAX: u64 = 256 * 1024;

/// How it answers whoever asks for a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Malice {
    WrongBytes,
    Flood,
}

fn start(dir: &Path) -> Host {
    Host::start(HostConfig {
        dir: dir.into(),
        kind: ProfileKind::Desktop,
        listen: "127.0.0.1:0".parse().unwrap(),
        anchors: Vec::new(),
        name: None,
        identity_seed: None,
    })
    .unwrap()
}

fn place(host: &Host) -> ConnectString {
    ConnectString::at(host.node_id(), host.listen())
}

async fn done(host: &Host, what: Call) {
    let reply = host.call(what).await;
    assert!(
        matches!(
            reply,
            Ok(Reply::Done | Reply::Connected(_) | Reply::Posted(_))
        ),
        "{reply:?}"
    );
}

async fn until<T>(what: &str, mut is_so: impl AsyncFnMut() -> Option<T>) -> T {
    let found = timeout(PATIENCE, async {
        loop {
            if let Some(found) = is_so().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|| panic!("not within 30 s: {what}"))
}

fn pictures() -> Vec<Vec<u8>> {
    let picture = |seed: usize| (0..PICTURE_BYTES).map(move |place| (place ^ seed) as u8);
    (0..POSTS * POST_BLOBS_MAX)
        .map(|seed| picture(seed).collect())
        .collect()
}

fn blob_of(picture: &[u8]) -> BlobRef {
    Cut::new(picture).unwrap().blob()
}

async fn publish(author: &Host, pictures: &[Vec<u8>]) {
    for of_post in pictures.chunks(POST_BLOBS_MAX) {
        let mut media = Vec::new();
        for picture in of_post {
            let cut = Cut::new(picture).unwrap();
            done(author, Call::Stage(cut.slices().collect())).await;
            media.push((cut.blob(), MediaDescription::new("a picture").unwrap()));
        }
        let text = PostText::new("look").unwrap();
        done(
            author,
            Call::Post {
                text,
                parent: None,
                media,
            },
        )
        .await;
    }
}

/// How many of the pictures are here; each as it should be, or not at all.
async fn held(host: &Host, pictures: &[Vec<u8>]) -> usize {
    let mut count = 0;
    for picture in pictures {
        let blob = blob_of(picture);
        if let Some(bytes) = host.blob_part(blob, 0..blob.length).await.unwrap() {
            assert!(bytes == *picture, "what is stored is right");
            count += 1;
        }
    }
    count
}

/// A holder that passes on lists and posts as they are, so that it is believed to have the files too.
struct Hostile {
    endpoint: Endpoint,
    inputs: Receiver<Input>,
    id: NodeId,
    honest: LinkId,
    malice: Malice,
    pictures: BTreeMap<BlobHash, Vec<u8>>,
    asked_for_files: Arc<Mutex<usize>>,
}

impl Hostile {
    /// Connects to somebody honest, to have something to pass on.
    async fn start(seed: u8, malice: Malice, honest: &Host, pictures: &[Vec<u8>]) -> Self {
        let (endpoint, inputs) = Endpoint::start(EndpointConfig {
            secret_seed: zeroize::Zeroizing::new([seed; 32]),
            listen: "127.0.0.1:0".parse().unwrap(),
            profile: NodeProfile::of(ProfileKind::Desktop),
            entropy: [seed; 16],
        })
        .unwrap();
        let by_hash = pictures
            .iter()
            .map(|picture| (blob_of(picture).hash, picture.clone()));
        let mut hostile = Self {
            endpoint,
            inputs,
            id: Secret::from_seed(&[seed; 32]).node_id(),
            honest: LinkId(0),
            malice,
            pictures: by_hash.collect(),
            asked_for_files: Arc::default(),
        };
        hostile.dial(honest);
        hostile.honest = hostile.up().await;
        hostile.greet(hostile.honest);
        hostile
    }

    fn dial(&self, host: &Host) {
        self.endpoint.perform(Effect::Dial {
            dial: DialId(1),
            node: host.node_id(),
            target: DialTarget::Addresses(vec![Address::new(host.listen()).unwrap()]),
        });
    }

    fn greet(&self, link: LinkId) {
        let hello = Hello::new(
            ProfileKind::Desktop,
            Purpose::Social,
            false,
            false,
            None,
            None,
        );
        let bytes = Packet::from(hello).encode();
        self.endpoint.perform(Effect::Send { link, bytes });
    }

    async fn up(&self) -> LinkId {
        let found = timeout(PATIENCE, async {
            loop {
                if let Input::LinkUp { link, .. } = self.inputs.recv().await.unwrap() {
                    return link;
                }
            }
        });
        found.await.expect("a connection within 30 s")
    }

    fn answer(&self, request: &FileRequest) -> PacketBytes {
        let cut = Cut::new(&self.pictures[&request.blob.hash]).unwrap();
        let run_bytes: usize = cut.slices().map(|slice| slice.bytes().len()).sum();
        let right = FileResponse {
            blob: cut.blob(),
            first: 0,
            slices: cut.slices().collect(),
        };
        let mut bytes = Packet::from(right).encode().to_vec();
        match self.malice {
            Malice::WrongBytes => *bytes.last_mut().unwrap() ^= 1,
            Malice::Flood => {
                // A byte string of 2 bytes of length becomes one of 4.
                bytes.truncate(bytes.len() - run_bytes - 3);
                bytes.push(0x5a);
                bytes.extend_from_slice(&CLAIMED_BYTES.to_be_bytes());
                bytes.resize(FLOOD_BYTES, 0);
            }
        }
        bytes.into()
    }

    /// Serves whoever comes until the connection that came first is gone; the bytes that went over it.
    async fn serve(self) -> (Self, u64) {
        let mut passed_on: BTreeMap<RequestId, StreamToken> = BTreeMap::new();
        let mut victim = None;
        let mut sent = 0;
        loop {
            let respond = |stream, bytes| {
                self.endpoint.perform(Effect::Respond { stream, bytes });
            };
            match self.inputs.recv().await.unwrap() {
                Input::LinkUp { link, .. } => {
                    victim = Some(link);
                    self.greet(link);
                }
                Input::LinkDown { link, .. } if Some(link) == victim => return (self, sent),
                Input::Packet {
                    stream: Some(stream),
                    packet,
                    ..
                } => match packet.into_inner() {
                    Packet::FileRequest(request) => {
                        *self.asked_for_files.lock().unwrap() += 1;
                        respond(stream, Some(self.answer(&request)));
                    }
                    pull @ Packet::PullSyncRequest(_) => {
                        let request = RequestId(stream.0);
                        passed_on.insert(request, stream);
                        self.endpoint.perform(Effect::Request {
                            link: self.honest,
                            request,
                            bytes: pull.encode(),
                            timeout_ms: 10_000,
                        });
                    }
                    _ => respond(stream, None),
                },
                Input::Response { request, result } => {
                    if let Some(stream) = passed_on.remove(&request) {
                        respond(
                            stream,
                            result.ok().map(|packet| packet.into_inner().encode()),
                        );
                    }
                }
                _ => {}
            }
            let stats = victim.and_then(|link| self.endpoint.link_stats(link));
            sent = stats.map_or(sent, |stats| stats.out_bytes);
        }
    }
}

/// How often the node refused something, by reason and by what it was.
async fn refused(host: &Host, reason: Option<&str>, what: Option<&str>) -> u64 {
    let Ok(Reply::Counters(counters)) = host.call(Call::Counters).await else {
        panic!("no counters");
    };
    let of = |name: &str, wanted: Option<&str>, labels: &[(&str, String)]| {
        let is_it = |(label, value): &(&str, String)| *label == name && Some(&**value) == wanted;
        wanted.is_none() || labels.iter().any(is_it)
    };
    let refusals = counters.iter().filter(|counter| {
        counter.name == "refused_total"
            && of("reason", reason, &counter.labels)
            && of("what", what, &counter.labels)
    });
    refusals.map(|counter| counter.value).sum()
}

async fn gone(notices: &Receiver<Notice>, node: NodeId) {
    let found = timeout(PATIENCE, async {
        let is_it =
            |notice: &Notice| matches!(notice, Notice::PeerDown { node: of } if *of == node);
        while !is_it(&notices.recv().await.expect("the node runs")) {}
    });
    found.await.expect("it is sent away within 30 s");
}

async fn besieged(seed: u8, malice: Malice, author: NodeId, honest: &Host, pictures: &[Vec<u8>]) {
    let dir = tempfile::tempdir().unwrap();
    let hostile = Hostile::start(seed, malice, honest, pictures).await;
    let (id, at) = (hostile.id, hostile.endpoint.local_addr());
    let asked = hostile.asked_for_files.clone();
    let served = spawn(hostile.serve());
    let node = start(dir.path());
    let notices = node.subscribe().unwrap();
    done(&node, Call::Connect(ConnectString::at(id, at))).await;
    done(
        &node,
        Call::Follow {
            node: author,
            place: None,
        },
    )
    .await;
    gone(&notices, id).await;
    let asked = *asked.lock().unwrap();
    let wrong = refused(&node, None, Some("FileResponse")).await;
    assert!(
        wrong > 0 && wrong <= asked as u64,
        "{malice:?}: {wrong} of {asked} refused"
    );
    if malice == Malice::WrongBytes {
        // No more is asked of it while it is being sent away; what was asked beside the last may still come.
        let asked_max = MISCONDUCT_POINTS_MAX / Refusal::WrongHash.points() + FORGIVEN_MAX;
        let asked_max = asked_max as usize + FETCHES_PER_PEER_MAX;
        assert!(asked <= asked_max, "asked {asked} times");
        assert_eq!(refused(&node, Some("wrong-hash"), None).await, wrong);
    }
    assert_eq!(
        held(&node, pictures).await,
        0,
        "{malice:?}: nothing of it is stored"
    );
    let (hostile, sent) = served.await;
    // With headers, and what the network lost and was sent again.
    let sent_max = asked as u64 * 2 * RESPONSE_WINDOW_BYTES + OTHER_BYTES_MAX;
    assert!(
        sent <= sent_max,
        "{malice:?}: {sent} bytes for {asked} requests"
    );
    if malice == Malice::Flood {
        assert!(
            sent_max < asked as u64 * FLOOD_BYTES as u64 / 2,
            "the bound means something"
        );
    }
    // Cooled off: it may not come back.
    hostile.dial(&node);
    until("it is turned away", async || {
        (refused(&node, Some("cooling-off"), None).await > 0).then_some(())
    })
    .await;
    done(&node, Call::Connect(place(honest))).await;
    until("all comes from somebody else", async || {
        (held(&node, pictures).await == pictures.len()).then_some(())
    })
    .await;
    let Ok(Reply::Peers(peers)) = node.call(Call::Peers).await else {
        panic!("no peers");
    };
    assert!(peers.iter().all(|peer| peer.node_id != id));
    node.stop().await;
}

#[test]
fn wrong_bytes_and_a_gigabyte_for_a_kilobyte_are_refused_within_bounds_and_another_holder_is_used()
{
    block_on(async {
        let (dir_a, dir_h) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (author, honest) = (start(dir_a.path()), start(dir_h.path()));
        let pictures = pictures();
        publish(&author, &pictures).await;
        let node = author.node_id();
        done(
            &honest,
            Call::Follow {
                node,
                place: Some(place(&author)),
            },
        )
        .await;
        until("the honest holder has everything", async || {
            (held(&honest, &pictures).await == pictures.len()).then_some(())
        })
        .await;
        author.stop().await;
        besieged(71, Malice::WrongBytes, node, &honest, &pictures).await;
        besieged(72, Malice::Flood, node, &honest, &pictures).await;
        honest.stop().await;
    });
}
