//! The command line, as its contract names it.

use crate::ids::Given;
use clap::{Parser, Subcommand};
use distsoc_engine::domain::{ConnectString, Name, NodeId, PostId};
use distsoc_engine::profile::ProfileKind;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A social network without a server: your node holds your key, your posts and a share of other people's.
#[derive(Debug, Parser)]
#[command(
    name = "distsoc",
    version,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// The data folder [default: the platform's]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Print JSON and nothing else on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the loopback API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ui {
    /// At an address for the person to open.
    At(SocketAddr),
    /// For the command line only.
    Off,
}

impl Ui {
    /// The address to listen at.
    pub(crate) fn listen(self) -> SocketAddr {
        match self {
            Self::At(address) => address,
            Self::Off => SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

fn ui(text: &str) -> Result<Ui, String> {
    if text == "off" {
        return Ok(Ui::Off);
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "it must be IP:PORT or 'off'".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(Ui::At(address)),
        false => Err("it must be a loopback address: the API is for this machine only".into()),
    }
}

fn profile(text: &str) -> Result<ProfileKind, String> {
    ProfileKind::from_name(text).ok_or_else(|| "it must be desktop, mobile or anchor".into())
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

fn node_count(text: &str) -> Result<usize, String> {
    let wrong = "a devnet has 2 to 200 nodes";
    let count: usize = text.parse().map_err(|_| wrong.to_owned())?;
    (2..=200)
        .contains(&count)
        .then_some(count)
        .ok_or_else(|| wrong.into())
}

/// Bytes as people write them.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        "it must be a whole number of bytes from 1 on, or with a unit as 500MB, 10GB or 4GiB (1500MB for one and a half GB)"
            .to_owned()
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let digits = digits.trim_end();
    // Rust takes "+1" for a number.
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = count.checked_mul(unit).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(wrong)
}

/// Whom to follow, as it was given.
fn who(text: &str) -> Result<String, String> {
    let wrong = "it must be NODE_ID@HOST:PORT, or the 64 hex digits of a NODE_ID, of which the first 6 or more will do";
    let checked = match text.contains('@') {
        true => text
            .parse::<ConnectString>()
            .map(drop)
            .map_err(|error| error.to_string()),
        false => text
            .parse::<Given<NodeId>>()
            .map(drop)
            .map_err(|_| wrong.to_owned()),
    };
    checked.map(|()| text.to_owned())
}

fn seed(text: &str) -> Result<u64, String> {
    let wrong = format!("it must be a whole number from 0 to {}", u64::MAX);
    text.parse().map_err(|_| wrong)
}

fn page(text: &str) -> Result<u64, String> {
    let wrong = format!("a page has 1 to {} posts", distsoc_api::methods::PAGE_MAX);
    let count: u64 = text.parse().map_err(|_| wrong.clone())?;
    (1..=distsoc_api::methods::PAGE_MAX)
        .contains(&count)
        .then_some(count)
        .ok_or(wrong)
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let wrong = "it must be IP:PORT, as 0.0.0.0:4000 or [::]:4000; the port 0, 443 or from 1024 on";
    let place: SocketAddr = text.parse().map_err(|_| wrong)?;
    // Nobody dials any other (PROTOCOL section 4).
    match place.port() {
        0 | 443 | 1024.. => Ok(place),
        _ => Err(wrong.into()),
    }
}

/// How to run one node.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// What the machine can give: desktop, mobile or anchor
    #[arg(long, default_value = "desktop", value_parser = profile)]
    pub(crate) profile: ProfileKind,
    /// UDP address to listen at; port 0 takes last time's if it is free
    #[arg(long, default_value = "0.0.0.0:0", value_name = "IP:PORT", value_parser = listen)]
    pub(crate) listen: SocketAddr,
    /// Anchors to begin with, instead of those shipped
    #[arg(long, value_name = "FILE")]
    pub(crate) anchors: Option<PathBuf>,
    /// Loopback address of the API, or off
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT|off", value_parser = ui)]
    pub(crate) ui: Ui,
    /// Display name to take if there is none yet
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<Name>,
}

/// How to run a network on this machine.
#[derive(Debug, clap::Args)]
pub(crate) struct DevnetArgs {
    /// How many nodes
    #[arg(long, default_value = "12", value_parser = node_count, allow_negative_numbers = true)]
    pub(crate) nodes: usize,
    /// Profile of those that are no anchors
    #[arg(long, default_value = "desktop", value_parser = profile)]
    pub(crate) profile: ProfileKind,
    /// Loopback address of the first node's API, or off
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT|off", value_parser = ui)]
    pub(crate) ui: Ui,
    /// The same identities and the same people for the same number
    #[arg(long, value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: Option<u64>,
    /// No example people
    #[arg(long)]
    pub(crate) empty: bool,
    /// Forget the network of last time
    #[arg(long)]
    pub(crate) fresh: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node until Ctrl-C
    Run(RunArgs),
    /// Run a network of real nodes on this machine until Ctrl-C
    Devnet(DevnetArgs),
    /// Your node's id and connect string
    Id,
    /// Connect to a node and stay connected
    Connect {
        /// NODE_ID@HOST:PORT
        connect_string: ConnectString,
    },
    /// The node at a glance
    Status,
    /// Connected peers
    Peers,
    /// The map in numbers, or what it says of one node
    Map {
        /// Whom to look up
        node_id: Option<Given<NodeId>>,
    },
    /// Find out where a node is
    Find {
        /// Whom to find
        node_id: Given<NodeId>,
    },
    /// Tell why a node is a peer, or on the map, or why a post is kept
    Explain {
        /// Which node or post
        id: Given<NodeId>,
    },
    /// Bytes by layer and cause
    Traffic,
    /// Check what may be wrong and say what to do
    Doctor,
    /// Publish a post
    Post {
        /// What it says
        text: String,
        /// What it replies to
        #[arg(long, value_name = "POST_ID")]
        reply: Option<Given<PostId>>,
        /// A picture to show with it; may be given several times
        #[arg(long = "picture", value_name = "FILE")]
        pictures: Vec<PathBuf>,
        /// What a picture shows, in words: one for each --picture, in their order
        #[arg(long = "alt", value_name = "TEXT")]
        descriptions: Vec<String>,
    },
    /// Give a heart to a post
    Heart {
        /// Which
        post_id: Given<PostId>,
    },
    /// Take a heart back
    Unheart {
        /// Which
        post_id: Given<PostId>,
    },
    /// Keep a post by all means
    Pin {
        /// Which
        post_id: Given<PostId>,
    },
    /// Keep a post no more than any other
    Unpin {
        /// Which
        post_id: Given<PostId>,
    },
    /// Take a post of yours back, for good and everywhere
    Delete {
        /// Which
        post_id: Given<PostId>,
    },
    /// Who uses how much of the disk, and what would go next
    Storage {
        /// Change what everything may take: bytes, or as 500MB, 10GB, 4GiB
        #[arg(long, value_name = "BYTES", value_parser = size, allow_hyphen_values = true)]
        budget: Option<u64>,
    },
    /// Posts of people you follow, newest first
    Feed {
        /// How many
        #[arg(long, default_value = "50", value_parser = page, allow_negative_numbers = true)]
        limit: u64,
        /// Only what is older than this entry's cursor
        #[arg(long, value_name = "CURSOR")]
        before: Option<String>,
        /// Go on with what comes
        #[arg(long, conflicts_with = "before")]
        live: bool,
    },
    /// One post
    Show {
        /// Which
        post_id: Given<PostId>,
    },
    /// Follow somebody; they never learn of it
    Follow {
        /// CONNECT_STRING or NODE_ID
        #[arg(value_parser = who)]
        who: String,
    },
    /// Stop following
    Unfollow {
        /// Whom
        node_id: Given<NodeId>,
    },
    /// Whom you follow
    Follows,
    /// Your profile or another's; 'profile set' changes yours
    #[command(args_conflicts_with_subcommands = true)]
    Profile {
        /// Whose
        node_id: Option<Given<NodeId>>,
        #[command(subcommand)]
        change: Option<ProfileCommand>,
    },
    /// Metrics as Prometheus text
    Metrics,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Change your profile
    Set {
        /// Display name
        #[arg(long, value_parser = name)]
        name: Option<Name>,
        /// A few words about you
        #[arg(long)]
        bio: Option<String>,
        /// An anchor that knows your address; may be given several times
        #[arg(long = "anchor", value_name = "CONNECT_STRING")]
        anchors: Vec<ConnectString>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("1", 1),
            ("500MB", 500_000_000),
            ("500 mb", 500_000_000),
            ("10GB", 10_000_000_000),
            ("4GiB", 4 << 30),
            ("7b", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "0",
            "0GB",
            "GB",
            "-1",
            "1.5GB",
            "5 G",
            "99999999TB",
            "+1",
            "MB5",
            "1é",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
