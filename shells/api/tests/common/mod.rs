//! A node and its HTTP face, for the tests of this folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses some of it")]

use distsoc_api::{Api, ApiFile, Server};
use distsoc_engine::profile::ProfileKind;
use distsoc_host::{Host, HostConfig};
use distsoc_net::runtime::block_on;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node and its HTTP face.
pub(crate) struct Besieged {
    pub(crate) host: Host,
    pub(crate) server: Option<Server>,
    pub(crate) file: ApiFile,
    pub(crate) dir: tempfile::TempDir,
}

impl Besieged {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::start(HostConfig {
            dir: dir.path().into(),
            kind: ProfileKind::Desktop,
            listen: "127.0.0.1:0".parse().unwrap(),
            anchors: Vec::new(),
            name: None,
            identity_seed: None,
        })
        .unwrap();
        let api = Api::new(host.clone());
        let listen = "127.0.0.1:0".parse().unwrap();
        let server = block_on(Server::start(api, listen)).unwrap();
        let file = server.file().clone();
        Self {
            host,
            server: Some(server),
            file,
            dir,
        }
    }

    pub(crate) fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.file.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends these bytes and reads to the end of the connection.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.open();
        // The other side may have closed already; what it said is read all the same.
        let _ = stream.write_all(bytes);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    }

    pub(crate) fn request(&self, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut text = format!(
            "{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        self.raw(format!("{text}\r\n{body}").as_bytes())
    }

    pub(crate) fn call(&self, body: &str) -> String {
        let (host, token) = (self.file.addr.to_string(), self.bearer());
        self.request(
            "POST /v1/call",
            &[("Host", &host), ("Authorization", &token)],
            body,
        )
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.file.token)
    }

    pub(crate) fn still_serves(&self) {
        let said = self.call("{\"method\": \"status\"}");
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        assert!(said.contains("\"result\""), "{said}");
    }
}

impl Drop for Besieged {
    fn drop(&mut self) {
        self.server.take().unwrap().close();
        assert!(
            ApiFile::read(self.dir.path()).is_none(),
            "api.json is removed"
        );
        block_on(self.host.stop());
    }
}

pub(crate) fn status(said: &str) -> u16 {
    let code = said.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status in {said:?}"))
}

/// A PNG that says it has 100,000 × 100,000 pixels, up to where they would begin.
pub(crate) const BOMB: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\x01\x86\xa0\0\x01\x86\xa0\x08\x02\0\0\0\x27\x30\x9c\x9f\0\0\0\x04IDATnone";

impl Besieged {
    /// The head of an upload that says it has so many bytes.
    pub(crate) fn upload_head(&self, length: u64) -> String {
        let (host, token) = (self.file.addr, self.bearer());
        format!(
            "POST /v1/blobs HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
    }

    pub(crate) fn upload(&self, bytes: &[u8]) -> String {
        let head = self.upload_head(bytes.len() as u64);
        self.raw(&[head.as_bytes(), bytes].concat())
    }
}
