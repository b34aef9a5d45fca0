//! What may be wrong, and what to do about it.

use distsoc_engine::io::{Standing, Status, StorageTrouble};
use distsoc_persistence::secret;
use serde_json::{Value, json};
use std::net::UdpSocket;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do, where it is not.
    pub next_step: Option<&'static str>,
}

impl Check {
    fn new(
        check: &'static str,
        ok: bool,
        detail: impl Into<String>,
        next_step: &'static str,
    ) -> Self {
        Self {
            check,
            ok,
            detail: detail.into(),
            next_step: (!ok).then_some(next_step),
        }
    }

    /// A node that holds its folder and does not answer.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(
            "node",
            false,
            "runs and does not answer",
            "wait if it has much to do; else end it and start it again",
        )
    }

    /// `{"check","ok","detail","next_step"}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({"check": self.check, "ok": self.ok, "detail": self.detail, "next_step": self.next_step})
    }
}

/// Before this nobody can have made the program: 2026-01-01, ms since the epoch.
const EARLIEST_MS: u128 = 1_767_225_600_000;

/// What to do where the disk is full.
const FREE_SPACE: &str =
    "the disk is full: free some space on it, or lower the budget with 'distsoc storage --budget'";

/// What can be seen without a running node.
#[must_use]
pub fn examine(dir: &Path) -> Vec<Check> {
    vec![folder(dir), key(dir), clock(), udp()]
}

fn folder(dir: &Path) -> Check {
    let next = "choose a folder that can be written with --data";
    if !dir.exists() {
        let detail = format!("{} is not there: the first start makes it", dir.display());
        return Check::new("data folder", true, detail, next);
    }
    let probe = dir.join(".doctor");
    let written = std::fs::write(&probe, b"x");
    // Where there was no room for its byte, the file is there.
    let removed = std::fs::remove_file(&probe);
    match written.and(removed) {
        Ok(()) => Check::new(
            "data folder",
            true,
            format!("{} can be written", dir.display()),
            next,
        ),
        Err(error) => {
            use std::io::ErrorKind;
            let next = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => FREE_SPACE,
                _ => next,
            };
            let detail = format!("{}: {error}", dir.display());
            Check::new("data folder", false, detail, next)
        }
    }
}

fn key(dir: &Path) -> Check {
    let next = "restore identity.key from a backup, readable by you alone (chmod 600)";
    match secret::load(dir) {
        Ok(Some(secret)) if !secret::has_database(dir) => Check::new(
            "key",
            false,
            format!("node {}, and no database beside it", secret.node_id()),
            "put the folder 'db' back if there is a copy: a start makes an empty one, without the posts of before",
        ),
        Ok(Some(secret)) => Check::new("key", true, format!("node {}", secret.node_id()), next),
        Ok(None) if secret::has_database(dir) => {
            Check::new("key", false, "missing, though there is a database", next)
        }
        Ok(None) => Check::new("key", true, "none yet: the first start makes one", next),
        Err(fault) => Check::new("key", false, fault.to_string(), next),
    }
}

fn clock() -> Check {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    let next = "set the clock: records from more than 10 minutes ahead are refused by everybody";
    Check::new(
        "clock",
        now_ms > EARLIEST_MS,
        format!("{now_ms} ms since 1970"),
        next,
    )
}

fn udp() -> Check {
    let next = "allow this program to open UDP sockets";
    match UdpSocket::bind("0.0.0.0:0") {
        Ok(_) => Check::new("udp", true, "a socket can be opened", next),
        Err(error) => Check::new("udp", false, error.to_string(), next),
    }
}

/// What a running node says of itself.
pub(crate) fn examine_running(status: &Status) -> Vec<Check> {
    let peers = status.peers_social + status.peers_wide;
    let connected = !matches!(status.standing, Standing::Offline | Standing::Connecting);
    let reach =
        "connect to somebody by hand with 'distsoc connect', or name anchors with --anchors";
    let storage = status
        .storage_trouble
        .map_or("takes writes".into(), |trouble| trouble.to_string());
    vec![
        Check::new(
            "connections",
            connected,
            format!("{peers} peers, {}", status.standing.name()),
            reach,
        ),
        Check::new(
            "storage",
            status.storage_trouble.is_none(),
            storage,
            match status.storage_trouble {
                Some(StorageTrouble::Full) => FREE_SPACE,
                Some(StorageTrouble::Budget) => {
                    "wait a minute, since some of what is kept of others goes for it; if this stays, raise the budget with 'distsoc storage --budget', or delete some of your posts"
                }
                Some(StorageTrouble::ReadOnly) => "make the data folder writable",
                Some(StorageTrouble::Corrupt) => {
                    "stop the node, move the data folder's 'db' away or restore a copy, and start again"
                }
                _ => "stop the node, copy the data folder to another disk, and start from there",
            },
        ),
        Check::new(
            "identity",
            !status.is_superseded,
            match status.is_superseded {
                true => "another machine writes under this identity, so nothing is written here",
                false => "no other machine is known to write under it",
            },
            "write on the other machine and stop this node; if you have no other, somebody else has your key: start anew with a new identity",
        ),
        Check::new(
            "addresses",
            !status.addresses.is_empty(),
            format!("{:?}", status.addresses),
            "check that the machine has a network",
        ),
    ]
}
