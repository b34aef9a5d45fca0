//! What other programs and web pages on this machine can try at the API's HTTP face (ARCHITECTURE, "Front ends").

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{BOMB, Besieged, status};
use std::io::{Read, Write};
use std::net::TcpStream;

const STATUS: &str = "{\"method\": \"status\"}";

#[test]
fn only_this_machines_own_with_the_token_get_in() {
    let node = Besieged::start();
    let (host, token) = (node.file.addr.to_string(), node.bearer());
    let localhost = format!("localhost:{}", node.file.addr.port());
    let own_origin = format!("http://{host}");
    let (host, token, localhost, own_origin) = (&*host, &*token, &*localhost, &*own_origin);
    let wrong = format!("{token}0");
    let other_token = format!("Bearer {}", "0".repeat(node.file.token.len()));
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[("Host", host), ("Authorization", token)], 200),
        (&[("Host", localhost), ("Authorization", token)], 200),
        (
            &[
                ("Host", host),
                ("Authorization", token),
                ("Origin", own_origin),
            ],
            200,
        ),
        (
            &[
                ("Host", host),
                ("Authorization", token),
                ("Sec-Fetch-Site", "same-origin"),
            ],
            200,
        ),
        (&[("Host", host)], 401),
        (&[("Host", host), ("Authorization", &wrong)], 401),
        (&[("Host", host), ("Authorization", &other_token)], 401),
        (&[("Host", host), ("Authorization", "Basic eDp5")], 401),
        (&[("Host", host), ("Authorization", "Bearer ")], 401),
        (&[("Host", "evil.example"), ("Authorization", token)], 421),
        (&[("Host", "127.0.0.1"), ("Authorization", token)], 421),
        (&[("Authorization", token)], 421),
        (
            &[
                ("Host", host),
                ("Authorization", token),
                ("Origin", "https://evil.example"),
            ],
            403,
        ),
        (
            &[("Host", host), ("Authorization", token), ("Origin", "null")],
            403,
        ),
        (
            &[
                ("Host", host),
                ("Authorization", token),
                ("Sec-Fetch-Site", "cross-site"),
            ],
            403,
        ),
        (
            &[
                ("Host", host),
                ("Authorization", token),
                ("Sec-Fetch-Site", "same-site"),
            ],
            403,
        ),
    ];
    for (headers, wanted) in cases {
        let said = node.request("POST /v1/call", headers, STATUS);
        assert_eq!(status(&said), *wanted, "{headers:?}: {said}");
        assert!(!said.contains(&node.file.token), "the token is never said");
        for header in [
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "frame-ancestors 'none'",
            "cache-control: no-store",
        ] {
            assert!(said.contains(header), "{header} lacks in {said}");
        }
        assert!(
            !said.to_lowercase().contains("access-control-allow"),
            "{said}"
        );
    }
    let events = node.request(
        "GET /v1/events",
        &[
            ("Host", host),
            ("Authorization", token),
            ("Origin", "https://evil.example"),
        ],
        "",
    );
    assert_eq!(status(&events), 403);
}

#[test]
fn requests_that_make_no_sense_have_an_answer_that_does() {
    let node = Besieged::start();
    let deep = format!(
        "{{\"method\": \"status\", \"params\": {}{}}}",
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    let id = "ab".repeat(32);
    let picture = |length: u64, alt: &str| {
        format!("{{\"blob\": \"{id}\", \"length\": {length}, \"alt\": \"{alt}\"}}")
    };
    let pictures =
        |list: &str| format!("{{\"method\": \"post\", \"params\": {{\"pictures\": [{list}]}}}}");
    let no_length = pictures(&picture(0, ""));
    let long_alt = pictures(&picture(5, &"x".repeat(1_025)));
    let seventeen = pictures(&vec![picture(5, ""); 17].join(","));
    let two_ids = format!(
        "{{\"method\": \"explain\", \"params\": {{\"id\": \"{id}\", \"post_id\": \"{id}\"}}}}"
    );
    let cases: &[(&str, u16)] = &[
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("null", 400),
        ("\u{0}\u{1}\u{2}", 400),
        ("{\"method\": 5}", 400),
        ("{\"params\": {}}", 400),
        ("{\"method\": \"status\", \"more\": 1}", 400),
        ("{\"method\": \"no_such_method\"}", 400),
        (
            "{\"method\": \"status\", \"params\": {\"unknown\": 1}}",
            400,
        ),
        ("{\"method\": \"status\", \"params\": []}", 400),
        ("{\"method\": \"post\", \"params\": {\"text\": 7}}", 400),
        ("{\"method\": \"post\", \"params\": {}}", 400),
        ("{\"method\": \"feed\", \"params\": {\"limit\": -1}}", 400),
        ("{\"method\": \"feed\", \"params\": {\"limit\": 1e99}}", 400),
        (
            "{\"method\": \"post\", \"params\": {\"pictures\": []}}",
            400,
        ),
        (
            "{\"method\": \"post\", \"params\": {\"pictures\": {}}}",
            400,
        ),
        (
            "{\"method\": \"post\", \"params\": {\"pictures\": [5]}}",
            400,
        ),
        (
            "{\"method\": \"post\", \"params\": {\"pictures\": [{\"blob\": \"ab\", \"length\": 1}]}}",
            400,
        ),
        (&no_length, 400),
        (&long_alt, 400),
        (&seventeen, 400),
        ("{\"method\": \"heart\", \"params\": {}}", 400),
        (
            "{\"method\": \"pin\", \"params\": {\"post_id\": \"x\"}}",
            400,
        ),
        (
            "{\"method\": \"delete\", \"params\": {\"post_id\": 7}}",
            400,
        ),
        (
            "{\"method\": \"storage\", \"params\": {\"preview\": 501}}",
            400,
        ),
        (
            "{\"method\": \"storage\", \"params\": {\"preview\": -1}}",
            400,
        ),
        ("{\"method\": \"storage_set\", \"params\": {}}", 400),
        (
            "{\"method\": \"storage_set\", \"params\": {\"budget_bytes\": 0}}",
            400,
        ),
        ("{\"method\": \"explain\", \"params\": {}}", 400),
        (
            "{\"method\": \"explain\", \"params\": {\"id\": \"x\"}}",
            400,
        ),
        (&two_ids, 400),
        (&deep, 400),
    ];
    for (body, wanted) in cases {
        let said = node.call(body);
        assert_eq!(
            status(&said),
            *wanted,
            "{}: {said}",
            body.chars().take(80).collect::<String>()
        );
        let json = said.split_once("\r\n\r\n").unwrap().1;
        let error: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(
            error["error"]["message"]
                .as_str()
                .is_some_and(|text| text.len() > 5),
            "{said}"
        );
    }
    let large = format!(
        "{{\"method\": \"post\", \"params\": {{\"text\": \"{}\"}}}}",
        "x".repeat(300_000)
    );
    assert_eq!(status(&node.call(&large)), 413);
    let (host, token) = (node.file.addr.to_string(), node.bearer());
    let headers = [("Host", &*host), ("Authorization", &*token)];
    for (line, wanted) in [
        ("GET /", 404),
        ("GET /v1/call/../../api.json", 404),
        ("GET /..%2f..%2fapi.json", 404),
        ("GET /api.json", 404),
        ("GET /v1/blobs/", 400),
        ("GET /v1/blobs/ab/0", 400),
        ("GET /v1/blobs/../../api.json", 400),
    ] {
        assert_eq!(status(&node.request(line, &headers, "")), wanted, "{line}");
    }
    for (line, takes) in [
        ("GET /v1/call", "POST"),
        ("DELETE /v1/call", "POST"),
        ("OPTIONS /v1/call", "POST"),
        ("POST /v1/events", "GET"),
        ("GET /v1/blobs", "POST"),
        ("PUT /v1/blobs", "POST"),
        ("DELETE /v1/blobs/ab/0", "GET, HEAD"),
        ("POST /v1/thumbnails/ab/0", "GET, HEAD"),
    ] {
        let said = node.request(line, &headers, "");
        assert_eq!(status(&said), 405, "{line}");
        assert!(said.contains(&format!("\r\nallow: {takes}\r\n")), "{said}");
    }
    node.still_serves();
}

#[test]
fn garbage_and_slow_clients_lose_their_connection_and_no_more() {
    let node = Besieged::start();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET\r\n\r\n",
        b"POST /v1/call HTTP/9.9\r\n\r\n",
        &[0xff; 4_096],
    ] {
        let said = node.raw(garbage);
        assert!(said.is_empty() || status(&said) == 400, "{said}");
    }
    let endless = format!(
        "POST /v1/call HTTP/1.1\r\nX: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    let said = node.raw(endless.as_bytes());
    assert!(said.is_empty() || status(&said) == 431, "{said}");
    // Half a head, and then nothing: the server ends it.
    let mut slow = node.open();
    slow.write_all(b"POST /v1/call HTTP/1.1\r\nHo").unwrap();
    let mut said = Vec::new();
    slow.read_to_end(&mut said).unwrap();
    // A body that is promised and never comes.
    let (host, token) = (node.file.addr.to_string(), node.bearer());
    let mut promising = node.open();
    write!(promising, "POST /v1/call HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\nContent-Length: 100\r\n\r\n{{").unwrap();
    let mut said = [0; 12];
    promising.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 408");
    node.still_serves();
}

#[test]
fn a_body_that_breaks_off_is_no_large_one() {
    let node = Besieged::start();
    let head = format!(
        "POST /v1/call HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        node.file.addr,
        node.bearer()
    );
    let broken = node.raw(format!("{head}zz\r\n{{}}\r\n").as_bytes());
    assert_eq!(status(&broken), 400, "{broken}");
    let large = format!("{head}100001\r\n{}\r\n0\r\n\r\n", "x".repeat(0x100_001));
    assert_eq!(status(&node.raw(large.as_bytes())), 413);
}

#[test]
fn only_so_many_may_watch() {
    let node = Besieged::start();
    let watching: Vec<_> = (0..64).map(|_| node.host.subscribe().unwrap()).collect();
    assert!(node.host.subscribe().is_none());
    let (host, token) = (node.file.addr.to_string(), node.bearer());
    let headers = [("Host", host.as_str()), ("Authorization", token.as_str())];
    let refused = node.request("GET /v1/events", &headers, "");
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(refused.contains("too many watch this node"), "{refused}");
    drop(watching);
    assert!(
        node.host.subscribe().is_some(),
        "those that left are forgotten"
    );
}

#[test]
fn three_hundred_connections_at_once_are_bounded_and_who_has_the_token_gets_in() {
    let node = Besieged::start();
    let mut watcher = node.open();
    let (host, token) = (node.file.addr, node.bearer());
    write!(
        watcher,
        "GET /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\n\r\n"
    )
    .unwrap();
    let mut said = [0; 15];
    watcher.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 200 OK");
    let mut open: Vec<TcpStream> = (0..300).map(|_| node.open()).collect();
    // Past the bound the oldest of those that say nothing are closed, so that a call gets in at once.
    node.still_serves();
    for stream in &mut open[..100] {
        let mut byte = [0];
        assert!(matches!(stream.read(&mut byte), Ok(0) | Err(_)));
    }
    // Who showed the token was older than all of them.
    watcher.set_nonblocking(true).unwrap();
    let mut left = Vec::new();
    let ended = watcher.read_to_end(&mut left);
    let is_open = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(is_open, "who showed the token stays");
}

#[test]
fn a_call_with_a_parameter_too_many_does_nothing() {
    let node = Besieged::start();
    let said = node.call(r#"{"method":"post","params":{"text":"an act","foo":1}}"#);
    assert_eq!(status(&said), 400, "{said}");
    assert!(said.contains("'foo' is no parameter"), "{said}");
    let said = node.call(r#"{"method":"feed"}"#);
    assert!(said.contains("\"result\":[]"), "{said}");
}

#[test]
fn uploads_that_make_no_sense_are_refused_with_a_reason() {
    let node = Besieged::start();
    let said = node.upload(b"");
    assert!(status(&said) == 400 && said.contains("must not be empty"));
    // What is too long is refused before its bytes come.
    let said = node.raw(node.upload_head(64 * 1024 * 1024 + 1).as_bytes());
    assert_eq!(status(&said), 413, "{said}");
    let chunked = node
        .upload_head(0)
        .replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let said = node.raw(format!("{chunked}zz\r\n").as_bytes());
    assert_eq!(status(&said), 400, "{said}");
    let said = node.upload(&BOMB[..20]);
    assert!(
        status(&said) == 400 && said.contains("damaged or cut short"),
        "{said}"
    );
    let said = node.upload(BOMB);
    assert!(
        status(&said) == 400 && said.contains("100000 × 100000 pixels"),
        "{said}"
    );
    let said = node.upload(b"\xff\xd8\xff\xe0 and nothing that follows");
    assert!(
        status(&said) == 400 && said.contains("damaged or cut short"),
        "{said}"
    );
    for (headers, wanted) in [
        (vec![("Host", node.file.addr.to_string())], 401),
        (
            vec![
                ("Host", "evil.example".to_owned()),
                ("Authorization", node.bearer()),
            ],
            421,
        ),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(a, b)| (*a, b.as_str())).collect();
        for line in [
            "POST /v1/blobs",
            "GET /v1/blobs/x/0",
            "GET /v1/thumbnails/x/0",
        ] {
            assert_eq!(status(&node.request(line, &headers, "")), wanted, "{line}");
        }
    }
    node.still_serves();
}

#[test]
fn what_is_too_long_is_read_off_so_that_its_sender_sees_why() {
    let node = Besieged::start();
    let some = vec![7; 1 << 20];
    for (head, megabytes) in [
        (node.upload_head(70 << 20), 70),
        (
            node.upload_head(5 << 20).replace("/v1/blobs", "/v1/call"),
            5,
        ),
        (
            node.upload_head(5 << 20)
                .replace("POST /v1/blobs", "PUT /v1/other"),
            5,
        ),
    ] {
        // As most clients do: everything is sent before anything is read.
        let mut stream = node.open();
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..megabytes {
            stream.write_all(&some).expect("what is sent is read");
        }
        let mut said = String::new();
        stream
            .read_to_string(&mut said)
            .expect("no broken connection");
        let wanted = if head.contains("/v1/other") { 404 } else { 413 };
        assert_eq!(status(&said), wanted, "{said}");
    }
    // Without end it is not read.
    let endless = node.upload_head(u64::MAX / 2);
    let mut stream = node.open();
    stream.write_all(endless.as_bytes()).unwrap();
    let sent = (0..2_000).take_while(|_| stream.write_all(&some).is_ok());
    assert!(sent.count() < 2_000);
    node.still_serves();
}

#[test]
fn only_so_many_upload_at_once_and_the_others_are_told() {
    let node = Besieged::start();
    let begin = || {
        let mut stream = node.open();
        let head = node.upload_head(1_000);
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut open = vec![begin(), begin()];
    // The two are seen in the server's own time. One that came while this asked found no place: another is begun then.
    let said = (1..10_000).find_map(|time| {
        if time % 1_000 == 0 {
            open.push(begin());
        }
        let said = node.upload(b"");
        (status(&said) == 503).then_some(said)
    });
    let said = said.expect("two are too many");
    assert!(said.contains("too many uploads at once"), "{said}");
    assert!(said.contains("retry-after: "), "{said}");
    open.clear();
    let is_free = (0..10_000).any(|_| status(&node.upload(b"")) == 400);
    assert!(is_free, "places come back");
    node.still_serves();
}

#[test]
fn pictures_that_are_not_there_are_told_apart() {
    let node = Besieged::start();
    let said = node.call(r#"{"method":"post","params":{"text":"no picture"}}"#);
    let body: serde_json::Value =
        serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
    let post = body["result"]["post_id"].as_str().unwrap();
    let (host, token) = (node.file.addr.to_string(), node.bearer());
    let headers = [("Host", &*host), ("Authorization", &*token)];
    let unknown = "ab".repeat(32);
    for kind in ["blobs", "thumbnails"] {
        for (place, wanted, why) in [
            (format!("{unknown}/0"), 404, "that post is not stored here"),
            (format!("{post}/0"), 404, "there is no picture 0"),
            (format!("{post}/x"), 400, "its index from 0 on"),
            (format!("{post}/-1"), 400, "its index from 0 on"),
            (format!("{post}/+0"), 400, "its index from 0 on"),
            (format!("{post}/00"), 400, "its index from 0 on"),
            (format!("{post}/"), 400, "its index from 0 on"),
            (post.to_owned(), 400, "POST_ID/INDEX"),
        ] {
            let said = node.request(&format!("GET /v1/{kind}/{place}"), &headers, "");
            assert_eq!(status(&said), wanted, "{said}");
            assert!(said.contains(why), "{said}");
        }
    }
    for wrong in ["?size=", "?size=15", "?size=1025", "?size=-1", "?width=5"] {
        let line = format!("GET /v1/thumbnails/{post}/0{wrong}");
        let said = node.request(&line, &headers, "");
        assert!(
            status(&said) == 400 && said.contains("size=16 to size=1024"),
            "{said}"
        );
    }
}
