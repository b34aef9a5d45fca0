//! Pictures and other blobs over HTTP, from the upload to the last byte that a browser asks for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BOMB, Besieged, PATIENCE, status};
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Address, BlobRef, Content, Cut, Event, EventKind, NodeId, PostBody, PostId, PostText,
    PublicContent, RecentPosts, SignedPost,
};
use distsoc_engine::io::{Call, DialId, DialTarget, Effect, Input, Notice, Reply};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{FileResponse, Hello, Packet, PostNotification, Purpose};
use distsoc_net::runtime::{block_on, sleep, timeout};
use distsoc_net::{Endpoint, EndpointConfig};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

/// What a client was sent.
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        status(&self.head)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn said(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn result(said: &str) -> Value {
    let (_, body) = said.split_once("\r\n\r\n").unwrap();
    let mut answer: Value = serde_json::from_str(body).unwrap();
    assert!(answer.get("error").is_none(), "{said}");
    answer["result"].take()
}

impl Besieged {
    fn ask(&self, line: &str, more: &[(&str, &str)]) -> Answer {
        let mut text = format!(
            "{line} HTTP/1.1\r\nConnection: close\r\nHost: {}\r\nAuthorization: {}\r\n",
            self.file.addr,
            self.bearer()
        );
        for (name, value) in more {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = self.open();
        stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        let end = said
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        Answer {
            head: String::from_utf8(said[..end].to_vec()).unwrap(),
            body: said[end + 4..].to_vec(),
        }
    }

    fn get(&self, path: &str, range: Option<&str>) -> Answer {
        let range = range.map(|range| ("Range", range));
        self.ask(&format!("GET {path}"), range.as_slice())
    }

    /// A post with these blobs; its id.
    fn publish(&self, blobs: &[&[u8]]) -> String {
        let uploaded = blobs.iter().map(|bytes| {
            let of = result(&self.upload(bytes));
            serde_json::json!({"blob": of["blob"], "length": of["length"], "alt": ""})
        });
        let params = serde_json::json!({"pictures": uploaded.collect::<Vec<_>>()});
        let call = serde_json::json!({"method": "post", "params": params});
        let id = result(&self.call(&call.to_string()))["post_id"].clone();
        id.as_str().unwrap().to_owned()
    }
}

fn some_bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (place / 5 + place / 9_000) as u8)
        .collect()
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 9]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn a_blob_comes_whole_and_in_any_part() {
    let node = Besieged::start();
    // Slices of 64 KiB: three and a bit.
    let bytes = some_bytes(200_000);
    let path = format!("/v1/blobs/{}/0", node.publish(&[&bytes]));
    let whole = node.get(&path, None);
    assert_eq!(whole.status(), 200);
    assert!(whole.body == bytes);
    assert_eq!(whole.header("accept-ranges"), Some("bytes"));
    assert_eq!(whole.header("content-length"), Some("200000"));
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=0-11", 0..12),
        ("bytes=-100", 199_900..200_000),
        ("bytes=-999999", 0..200_000),
        ("bytes=65535-65536", 65_535..65_537),
        ("bytes=65000-132000", 65_000..132_001),
        ("bytes=131072-196607", 131_072..196_608),
        ("bytes=199999-", 199_999..200_000),
        ("bytes=199990-999999", 199_990..200_000),
    ] {
        let answer = node.get(&path, Some(range));
        assert_eq!(answer.status(), 206, "{range}");
        assert!(answer.body == bytes[part.clone()], "{range}");
        let said = format!("bytes {}-{}/200000", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(&*said));
        assert_eq!(
            answer.header("content-length"),
            Some(&*part.len().to_string())
        );
    }
    for range in [
        "bytes=200000-",
        "bytes=200000-300000",
        "bytes=-0",
        "bytes=9-3",
        "bytes=x-",
    ] {
        let answer = node.get(&path, Some(range));
        assert_eq!(answer.status(), 416, "{range}");
        assert_eq!(answer.header("content-range"), Some("bytes */200000"));
        assert!(answer.said().contains("the picture has 200000 bytes"));
    }
    // What is no request for one range is answered with everything.
    for range in ["bytes=0-1,5-6", "lines=0-1"] {
        assert!(node.get(&path, Some(range)).body == bytes, "{range}");
    }
    let tag = whole.header("etag").unwrap();
    let line = format!("GET {path}");
    let (weak, several) = (format!("W/{tag}"), format!("\"another\", {tag}"));
    for known in [tag, &weak, &several, "*", " * "] {
        let answer = node.ask(&line, &[("If-None-Match", known)]);
        assert!(answer.status() == 304 && answer.body.is_empty(), "{known}");
        assert_eq!(answer.header("etag"), Some(tag));
    }
    for other in ["\"another\"", "", "\"*\"", "**"] {
        let answer = node.ask(&line, &[("If-None-Match", other)]);
        assert!(answer.status() == 200 && answer.body == bytes, "{other}");
    }
    let part = ("Range", "bytes=0-9");
    assert_eq!(node.ask(&line, &[part, ("If-Range", tag)]).body.len(), 10);
    let other = node.ask(&line, &[part, ("If-Range", "\"another\"")]);
    assert!(other.status() == 200 && other.body == bytes);
    let head = node.ask(&format!("HEAD {path}"), &[]);
    assert!(head.status() == 200 && head.body.is_empty());
    assert_eq!(head.header("content-length"), Some("200000"));
    assert_eq!(node.ask(&format!("PUT {path}"), &[]).status(), 405);
}

#[test]
fn what_anybody_made_is_a_picture_or_nothing_that_a_browser_runs() {
    let node = Besieged::start();
    let html = b"<!doctype html><script>fetch('/v1/call')</script>";
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>";
    let hidden = [&png(8, 8), html.as_slice()].concat();
    let post = node.publish(&[html, svg, b"MZ\x90", &hidden]);
    for (index, media_type, way) in [
        (0, "application/octet-stream", "attachment"),
        (1, "application/octet-stream", "attachment"),
        (2, "application/octet-stream", "attachment"),
        (3, "image/png", "inline"),
    ] {
        let path = format!("/v1/blobs/{post}/{index}");
        for answer in [node.get(&path, None), node.get(&path, Some("bytes=0-2"))] {
            assert_eq!(answer.header("content-type"), Some(media_type));
            let shown = answer.header("content-disposition").unwrap();
            assert!(shown.starts_with(&format!("{way}; filename=\"")), "{shown}");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                (
                    "content-security-policy",
                    "default-src 'none'; frame-ancestors 'none'",
                ),
                ("cross-origin-resource-policy", "same-origin"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{index}");
            }
        }
        let thumbnail = node.get(&format!("/v1/thumbnails/{post}/{index}?size=64"), None);
        match media_type {
            "image/png" => assert_eq!(thumbnail.header("content-type"), Some("image/jpeg")),
            _ => {
                assert_eq!(thumbnail.status(), 415);
                assert!(
                    thumbnail
                        .said()
                        .contains("no PNG, JPEG, GIF or WebP picture")
                );
            }
        }
        for kind in ["blobs", "thumbnails"] {
            let host = node.file.addr.to_string();
            let line = format!("GET /v1/{kind}/{post}/{index}");
            assert_eq!(status(&node.request(&line, &[("Host", &host)], "")), 401);
        }
    }
    let past = node.get(&format!("/v1/blobs/{post}/4"), None);
    assert!(past.status() == 404 && past.said().contains("that post has 4 pictures"));
}

#[test]
fn a_picture_is_stored_without_what_tells_of_its_maker_and_shown_small() {
    let node = Besieged::start();
    let note = b"52.5200 N, 13.4050 E";
    let plain = png(600, 300);
    let sent = [&plain, note.as_slice()].concat();
    let of = result(&node.upload(&sent));
    assert_eq!(
        (&of["media_type"], &of["width"], &of["height"]),
        (&"image/png".into(), &600.into(), &300.into())
    );
    assert_eq!(
        (&of["length"], &of["removed_bytes"]),
        (&plain.len().into(), &note.len().into())
    );
    let cut = Cut::new(&plain).unwrap();
    assert_eq!(of["blob"], cut.blob().hash.to_string());
    let post = node.publish(&[&sent]);
    assert!(node.get(&format!("/v1/blobs/{post}/0"), None).body == plain);
    let small = node.get(&format!("/v1/thumbnails/{post}/0?size=100"), None);
    let shown = image::load_from_memory(&small.body).unwrap();
    assert_eq!((shown.width(), shown.height()), (128, 64));
    let line = format!("GET /v1/thumbnails/{post}/0?size=100");
    assert_eq!(node.ask(&line, &[("If-None-Match", "*")]).status(), 304);
    // A notice in a chunk that never ends: what else it holds cannot be known.
    let said = node.upload(&sent[..plain.len() - 4]);
    assert_eq!(status(&said), 400);
    assert!(said.contains("\"code\":\"usage\""), "{said}");
    assert!(
        said.contains("damaged or cut short: open it in a picture program, save it anew"),
        "{said}"
    );
    // Whatever else is attached stays as it is.
    let other = [b"%PDF-1.7".as_slice(), note].concat();
    assert_eq!(result(&node.upload(&other))["removed_bytes"], 0);
}

#[test]
fn a_picture_that_shows_nothing_but_noise_is_refused_with_what_to_do() {
    let node = Besieged::start();
    let mut noise = png(200, 200);
    // Where the packed pixels begin.
    let at = noise.windows(4).position(|name| name == b"IDAT").unwrap() + 6;
    noise[at..at + 100].fill(0x5a);
    let said = node.upload(&noise);
    assert_eq!(status(&said), 400, "{said}");
    assert!(
        said.contains("damaged or cut short: open it in a picture program, save it anew"),
        "{said}"
    );
}

#[test]
fn a_bomb_of_64_megabytes_is_refused_with_its_size() {
    let node = Besieged::start();
    let mut bomb = BOMB.to_vec();
    bomb.resize(64 * 1024 * 1024, 0);
    let said = node.upload(&bomb);
    assert_eq!(status(&said), 400, "{said}");
    assert!(said.contains("100000 × 100000 pixels"), "{said}");
    assert!(
        said.contains("make it smaller in a picture program"),
        "{said}"
    );
}

/// An author who speaks the protocol by hand.
struct Author {
    endpoint: Endpoint,
    inputs: async_channel::Receiver<Input>,
    secret: Secret,
}

impl Author {
    const SEED: [u8; 32] = [91; 32];

    fn start() -> Self {
        let (endpoint, inputs) = Endpoint::start(EndpointConfig {
            secret_seed: Self::SEED.into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            profile: NodeProfile::of(ProfileKind::Desktop),
            entropy: [9; 16],
        })
        .unwrap();
        let secret = Secret::from_seed(&Self::SEED);
        Self {
            endpoint,
            inputs,
            secret,
        }
    }

    fn id() -> NodeId {
        Secret::from_seed(&Self::SEED).node_id()
    }

    /// A post with these blobs, and the notification of it.
    fn post(&self, blobs: Vec<BlobRef>) -> (PostId, Packet) {
        let at_ms = 1_700_000_000_000;
        let body = PostBody {
            author: self.secret.node_id(),
            created_at_ms: at_ms,
            content: Content::Public(PublicContent {
                text: PostText::new("look").unwrap(),
                parent: None,
                descriptions: Bounded::default(),
            }),
            blobs: Bounded::truncated(blobs),
        };
        let post = SignedPost::sign(body, &self.secret).unwrap();
        let event = Event {
            id: post.id(),
            created_at_s: (at_ms / 1000) as u32,
            kind: EventKind::Public,
        };
        let list = RecentPosts::append(None, event, 1_600_000_000, at_ms, &self.secret);
        let id = post.id();
        let told = PostNotification {
            head: list.head().clone(),
            newest: list.list().newest(1),
            post: Some(post),
        };
        (id, told.into())
    }

    /// Connects to a node, tells of a post, and gives what is here of it; everything else it keeps to itself.
    async fn serve(self, node: NodeId, at: std::net::SocketAddr, told: Packet, here: Vec<Vec<u8>>) {
        let here: BTreeMap<_, _> = here
            .iter()
            .map(|bytes| Cut::new(bytes).unwrap())
            .map(|cut| (cut.blob(), cut.slices().collect::<Vec<_>>()))
            .map(|(blob, slices)| (blob.hash, (blob, slices)))
            .collect();
        let target = DialTarget::Addresses(vec![Address::new(at).unwrap()]);
        let dial = DialId(1);
        self.endpoint.perform(Effect::Dial { dial, node, target });
        while let Ok(input) = self.inputs.recv().await {
            match input {
                Input::LinkUp { link, .. } => {
                    let kind = ProfileKind::Desktop;
                    let hello = Hello::new(kind, Purpose::Social, false, false, None, None);
                    for packet in [Packet::from(hello), told.clone()] {
                        let bytes = packet.encode();
                        self.endpoint.perform(Effect::Send { link, bytes });
                    }
                }
                Input::Packet {
                    stream: Some(stream),
                    packet,
                    ..
                } => {
                    let found = match packet.into_inner() {
                        Packet::FileRequest(request) => here.get(&request.blob.hash),
                        _ => None,
                    };
                    let bytes = found.map(|(blob, slices)| {
                        let response = FileResponse {
                            blob: *blob,
                            first: 0,
                            slices: slices.clone(),
                        };
                        Packet::from(response).encode()
                    });
                    self.endpoint.perform(Effect::Respond { stream, bytes });
                }
                _ => {}
            }
        }
    }
}

#[test]
fn what_came_from_a_peer_may_be_a_bomb_and_may_not_be_here_yet() {
    let node = Besieged::start();
    let missing = some_bytes(100_000);
    let script = b"<script>alert(1)</script>".to_vec();
    let author = Author::start();
    let blob = |bytes: &[u8]| Cut::new(bytes).unwrap().blob();
    let blobs = vec![blob(BOMB), blob(&missing), blob(&script)];
    let (id, told) = author.post(blobs);
    block_on(async {
        let notices = node.host.subscribe().unwrap();
        let follow = Call::Follow {
            node: Author::id(),
            place: None,
        };
        assert_eq!(node.host.call(follow).await, Ok(Reply::Done));
        let here = vec![BOMB.to_vec(), script];
        let (own, at) = (node.host.node_id(), node.host.listen());
        distsoc_net::runtime::spawn(author.serve(own, at, told, here));
        let arrives = timeout(PATIENCE, async {
            let is_it =
                |notice: &Notice| matches!(notice, Notice::Post { id: of, .. } if *of == id);
            while !is_it(&notices.recv().await.unwrap()) {}
        });
        arrives.await.expect("the post arrives within 30 s");
    });
    let get = |kind: &str, index: u8| node.get(&format!("/v1/{kind}/{id}/{index}"), None);
    // The post is told of before it and its blobs are on the disk.
    let until_here = |index| {
        let here = timeout(PATIENCE, async {
            while get("blobs", index).status() != 200 {
                sleep(Duration::from_millis(20)).await;
            }
        });
        block_on(here).expect("it arrives within 30 s");
    };
    until_here(0);
    until_here(2);
    let bomb = get("thumbnails", 0);
    assert_eq!(bomb.status(), 415);
    assert!(
        bomb.said().contains("100000 × 100000 pixels"),
        "{}",
        bomb.said()
    );
    assert!(
        get("blobs", 0).body == BOMB,
        "a browser has bounds of its own"
    );
    let script = get("blobs", 2);
    assert_eq!(
        script.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(script.header("x-content-type-options"), Some("nosniff"));
    for kind in ["blobs", "thumbnails"] {
        let answer = get(kind, 1);
        assert_eq!(answer.status(), 503, "{kind}");
        assert_eq!(answer.header("retry-after"), Some("5"));
        assert!(
            answer
                .said()
                .contains("has not arrived yet: it is being fetched")
        );
        let line = format!("GET /v1/{kind}/{id}/1");
        let any = node.ask(&line, &[("If-None-Match", "*")]);
        assert_eq!(any.status(), 503, "{kind}: there is none yet");
    }
    node.still_serves();
}
