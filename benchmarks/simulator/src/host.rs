//! A machine of the swarm: its node while the program runs, its disk, its clock, its place in the network, its person.

use crate::cargo::Cargo;
use crate::delivery::Delivery;
use crate::disk::Disk;
use crate::frames::Waiting;
use crate::map_truth::Listed;
use crate::slots::Key;
use distsoc_engine::clock::Now;
use distsoc_engine::crypto::{self, Secret};
use distsoc_engine::domain::{BlobRef, NodeId, PostId, PostText};
use distsoc_engine::io::{Call, CallId, DownCause, Found, LinkId};
use distsoc_engine::node::Node;
use distsoc_engine::profile::ProfileKind;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The wall clock at the start of every run: 2027-01-15 08:00 UTC.
pub const EPOCH_MS: u64 = 1_800_000_000_000;
/// The port that nodes listen on.
pub const PORT: u16 = 4433;
/// The port that a NAT shows to the outside.
pub const NAT_PORT: u16 = 40_000;

/// Whether the program runs.
#[derive(Debug, Default)]
pub enum Power {
    /// It does.
    On(Box<Node>),
    /// Somebody with a script instead of a node: what they hear is kept for the script.
    Puppet(Vec<Heard>),
    /// It does not.
    #[default]
    Off,
}

/// What somebody with a script heard.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A connection is up.
    Up(LinkId),
    /// A connection is down.
    Down(LinkId, DownCause),
    /// A stream arrived.
    Stream(LinkId, Cargo),
}

/// A call of the person that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When, µs.
    pub at_us: u64,
    /// What.
    pub what: Call,
}

/// A machine.
#[derive(Debug, Default)]
pub struct Host {
    /// The name of its node.
    pub id: NodeIdOrNone,
    /// What the key of its node is made from, where it is a test's.
    pub key_seed: Option<[u8; 32]>,
    /// Its node answers searches falsely.
    pub lies: bool,
    /// By which profile it runs.
    pub kind: ProfileKind,
    /// What became of each search of its person, in the order of the answers.
    pub finds: Vec<Option<Found>>,
    /// The program.
    pub power: Power,
    /// How often the program was started; 0 before the first time.
    pub starts: u32,
    /// The disk.
    pub disk: Disk,
    /// Whether the machine is behind NAT.
    pub behind_nat: bool,
    /// How often the machine moved to another address.
    pub moves: u8,
    /// Groups of a partition do not reach each other.
    pub partition: u16,
    /// No network at all.
    pub offline: bool,
    /// By how much the wall clock is off, ms.
    pub skew_ms: i64,
    /// The virtual time at which this start's monotonic clock showed 0, ms; may be before the run.
    pub mono_zero_ms: i64,
    /// When the program was started last, µs.
    pub booted_us: u64,
    /// When the last frame was, µs.
    pub last_frame_us: Option<u64>,
    /// What waits for the next frame.
    pub inbox: Vec<Waiting>,
    /// The frame that is planned, µs.
    pub frame_at_us: Option<u64>,
    /// Frames in a row that were woken early for nothing.
    pub idle_frames: u32,
    /// Ends of connections that are open here.
    pub links: BTreeSet<LinkId>,
    /// Whom its node has told of as its peers.
    pub listed: Listed,
    /// Dials under way.
    pub dials: BTreeSet<Key>,
    /// When the uplink has sent everything handed to it, µs.
    pub uplink_free_us: u64,
    /// The idle timeout offered to new connections, ms.
    pub idle_timeout_ms: u64,
    /// Calls without an answer.
    pub asked: BTreeMap<CallId, Asked>,
    /// Posts that the person was told are durable, in order, with the time of it, µs.
    pub acknowledged: Vec<(PostId, u64)>,
    /// Whom the person was told they follow.
    pub follows: BTreeSet<u32>,
    /// Since when, µs.
    pub followed_us: BTreeMap<u32, u64>,
    /// Content that came and went.
    pub delivery: Delivery,
    /// Texts whose pictures are on their way to the disk, by that call.
    pub drafts: BTreeMap<CallId, (PostText, BlobRef)>,
    /// Pictures of posts that the person was told are durable.
    pub pictures: Vec<(PostId, BlobRef)>,
    /// Posts that the person was told are taken back.
    pub taken_back: Vec<PostId>,
    /// What the person has done so far: a name, follows, posts.
    pub deeds: u32,
    /// Posts the person has written.
    pub posts_made: u32,
    /// Calls that were refused or failed.
    pub calls_failed: u32,
    /// Bytes sent, headers included.
    pub sent_bytes: u64,
    /// When the first peer was up after the newest start, µs.
    pub first_peer_us: Option<u64>,
}

/// A node's name; all zero before the machine was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeIdOrNone(pub NodeId);

impl Default for NodeIdOrNone {
    fn default() -> Self {
        Self(NodeId::from_bytes([0; 32]))
    }
}

/// 32 bytes that depend on the run, the machine and the purpose only.
#[must_use]
pub fn seed_of(run_seed: u64, purpose: &str, host: u32, start: u32) -> [u8; 32] {
    let mut material = Vec::with_capacity(64);
    material.extend_from_slice(purpose.as_bytes());
    material.push(0);
    material.extend_from_slice(&run_seed.to_be_bytes());
    material.extend_from_slice(&host.to_be_bytes());
    material.extend_from_slice(&start.to_be_bytes());
    crypto::hash(&material)
}

/// The key of a machine's node.
#[must_use]
pub fn secret_of(run_seed: u64, host: u32) -> Secret {
    Secret::from_seed(&seed_of(run_seed, "identity", host, 0))
}

/// Where the internet sees a machine: each in a /24 of its own, and the first 16,384 in a /16 of their own, so that the limits per
/// prefix and per network meet nobody by accident.
#[must_use]
pub fn public_address(host: u32, moves: u8, behind_nat: bool) -> SocketAddr {
    let ip = [
        20 + (host >> 8) as u8 % 64,
        host as u8,
        (host >> 14) as u8,
        10 + moves % 200,
    ];
    SocketAddr::from((ip, if behind_nat { NAT_PORT } else { PORT }))
}

/// Which machine has this public address, if the address is one of a machine: its number and how often it had moved.
#[must_use]
pub fn host_at(address: SocketAddr) -> Option<(u32, u8, bool)> {
    let std::net::IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let [a, b, c, d] = ip.octets();
    let high = a.checked_sub(20).filter(|high| *high < 64)?;
    let host = u32::from(c) << 14 | u32::from(high) << 8 | u32::from(b);
    let behind_nat = match address.port() {
        PORT => false,
        NAT_PORT => true,
        _ => return None,
    };
    Some((host, d.checked_sub(10)?, behind_nat))
}

impl Host {
    /// The name of its node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.id.0
    }

    /// The node, while the program runs.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        match &self.power {
            Power::On(node) => Some(node),
            Power::Puppet(_) | Power::Off => None,
        }
    }

    /// Whether the program runs.
    #[must_use]
    pub fn is_on(&self) -> bool {
        matches!(self.power, Power::On(_))
    }

    /// What its clocks show at this virtual time.
    #[must_use]
    pub fn now(&self, at_us: u64) -> Now {
        let at_ms = (at_us / 1000) as i64;
        Now {
            mono_ms: (at_ms - self.mono_zero_ms).max(0) as u64,
            wall_ms: (EPOCH_MS as i64 + at_ms + self.skew_ms).max(0) as u64,
        }
    }

    /// The virtual time at which its monotonic clock shows this, µs.
    #[must_use]
    pub fn at_us(&self, mono_ms: u64) -> u64 {
        let at_ms = i64::try_from(mono_ms)
            .unwrap_or(i64::MAX)
            .saturating_add(self.mono_zero_ms);
        (at_ms.max(0) as u64).saturating_mul(1000)
    }

    /// What the machine can tell of its own addresses.
    #[must_use]
    pub fn own_addresses(&self, number: u32) -> Vec<SocketAddr> {
        if self.offline {
            return Vec::new();
        }
        vec![match self.behind_nat {
            true => SocketAddr::from(([192, 168, 1 + self.moves % 200, 2], PORT)),
            false => public_address(number, self.moves, false),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_place_of_its_own() {
        for (host, moves, behind_nat) in [(0, 0, false), (300, 7, true), (3_999_999, 199, false)] {
            let address = public_address(host, moves, behind_nat);
            assert_eq!(host_at(address), Some((host, moves, behind_nat)));
            assert!(
                distsoc_engine::domain::Address::new(address)
                    .unwrap()
                    .scope()
                    == distsoc_engine::domain::Scope::Global
            );
        }
        assert_eq!(host_at("1.2.3.4:4433".parse().unwrap()), None);
    }

    #[test]
    fn clocks_go_there_and_back() {
        let host = Host {
            mono_zero_ms: -5_000,
            skew_ms: -20,
            ..Host::default()
        };
        let now = host.now(3_000_000);
        assert_eq!((now.mono_ms, now.wall_ms), (8_000, EPOCH_MS + 3_000 - 20));
        assert_eq!(host.at_us(now.mono_ms), 3_000_000);
    }
}
