//! `distsoc devnet`: real nodes in one process, each with its own port, identity, database and API.

mod display;
mod people;

use crate::cli::{DevnetArgs, Ui};
use crate::exit::Exit;
use crate::output;
use crate::run::interrupted;
use display::Display;
use distsoc_api::{Api, Server};
use distsoc_engine::crypto;
use distsoc_engine::domain::{ConnectString, NodeId};
use distsoc_engine::io::{Call, Notice, Reply};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_host::{Host, HostConfig};
use distsoc_net::runtime;
use serde_json::json;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Written into the folder, so that `--fresh` never deletes anything else.
const MARKER: &str = "devnet.marker";
/// Connections are counted this often while the network grows.
const LOOK: Duration = Duration::from_millis(250);
/// And it stands if there were no more for so long.
const SETTLED: Duration = Duration::from_secs(10);
/// Of this many nodes one is an anchor, at most three in all.
const NODES_PER_ANCHOR: usize = 10;

/// One node of the network.
pub(super) struct Member {
    /// Its number, from 1.
    pub(super) number: usize,
    pub(super) host: Host,
    pub(super) name: String,
    server: Server,
}

fn anchors_of(nodes: usize) -> usize {
    nodes.div_ceil(NODES_PER_ANCHOR).clamp(1, 3)
}

/// Makes the folder ready and takes it for this process. The lock goes when the file is dropped.
fn prepare_folder(dir: &Path, fresh: bool) -> Result<File, Exit> {
    let failed = |error: std::io::Error| Exit::failed(format!("{}: {error}", dir.display()));
    let exists = dir.exists() && std::fs::read_dir(dir).map_err(failed)?.next().is_some();
    if exists && !dir.join(MARKER).exists() {
        return Err(Exit::usage(format!(
            "{} holds something else: name an empty folder with --data",
            dir.display()
        )));
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut marker = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join(MARKER))
        .map_err(failed)?;
    match marker.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Exit::failed(format!(
                "a devnet runs on {}: stop that one first, or name another folder with --data",
                dir.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    marker
        .write_all(b"made by 'distsoc devnet'; 'devnet --fresh' empties this folder\n")
        .map_err(failed)?;
    if fresh {
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                std::fs::remove_dir_all(&path).map_err(failed)?;
            }
        }
    }
    Ok(marker)
}

/// The network and what happens in it, until Ctrl-C.
pub(crate) async fn run(dir: PathBuf, args: DevnetArgs, as_json: bool) -> Result<(), Exit> {
    let _folder = prepare_folder(&dir, args.fresh)?;
    let interrupt = interrupted()?;
    let mut display = Display::new(args.nodes, as_json);
    let (events, happened) = async_channel::bounded(4096);
    let mut members = Vec::new();
    let started = start_all(&dir, &args, &mut display, &mut members, &events).await;
    let result = match started {
        Ok(()) => {
            let live = live(&members, &args, &mut display, &happened, as_json);
            let stop = async {
                let _ = interrupt.recv().await;
                Ok(())
            };
            futures_lite::future::or(stop, live).await
        }
        Err(exit) => Err(exit),
    };
    display.stopping();
    for member in members {
        member.server.close();
        member.host.stop().await;
    }
    result
}

async fn start_all(
    dir: &Path,
    args: &DevnetArgs,
    display: &mut Display,
    members: &mut Vec<Member>,
    events: &async_channel::Sender<(usize, Notice)>,
) -> Result<(), Exit> {
    let mut anchors: Vec<ConnectString> = Vec::new();
    for number in 1..=args.nodes {
        let is_anchor = number <= anchors_of(args.nodes);
        let member = start_one(dir, args, number, is_anchor, &anchors).await?;
        if is_anchor {
            anchors.push(ConnectString::at(
                member.host.node_id(),
                member.host.listen(),
            ));
        }
        let notices = member.host.subscribe().expect("the first to watch");
        let events = events.clone();
        runtime::spawn(async move {
            while let Ok(notice) = notices.recv().await {
                if events.send((number, notice)).await.is_err() {
                    break;
                }
            }
        });
        display.node_up(&member, &dir.join(number.to_string()));
        members.push(member);
    }
    Ok(())
}

async fn start_one(
    dir: &Path,
    args: &DevnetArgs,
    number: usize,
    is_anchor: bool,
    anchors: &[ConnectString],
) -> Result<Member, Exit> {
    let name = people::name(number);
    let seed = args
        .seed
        .map(|seed| crypto::hash(format!("distsoc devnet {seed} {number}").as_bytes()));
    let host = Host::start(HostConfig {
        dir: dir.join(number.to_string()),
        kind: if is_anchor {
            ProfileKind::Anchor
        } else {
            args.profile
        },
        listen: ([127, 0, 0, 1], 0).into(),
        anchors: anchors.to_vec(),
        name: (!args.empty)
            .then(|| distsoc_engine::domain::Name::new(&name).expect("example names are names")),
        identity_seed: seed,
    })
    .map_err(Exit::failed)?;
    let ui = if number == 1 { args.ui } else { Ui::Off };
    let server = match Server::start(Api::new(host.clone()), ui.listen()).await {
        Ok(server) => server,
        Err(error) => {
            host.stop().await;
            return Err(error.into());
        }
    };
    Ok(Member {
        number,
        host,
        name,
        server,
    })
}

/// Waits until everybody is well connected, or nobody has found another peer for a while: the last places of a network where all
/// are nearly full fill slowly.
async fn settle(
    members: &[Member],
    display: &mut Display,
    happened: &async_channel::Receiver<(usize, Notice)>,
) {
    let wanted: usize = members
        .iter()
        .map(|member| wanted_by(member, members.len()))
        .sum();
    let (mut most, mut grew) = (0, Instant::now());
    loop {
        let each = connections(members).await;
        let connected = each.iter().sum();
        display.connections(connected, wanted);
        if connected > most {
            (most, grew) = (connected, Instant::now());
        }
        let nobody_is_alone = each.iter().all(|peers| *peers > 0);
        if connected >= wanted || nobody_is_alone && grew.elapsed() >= SETTLED {
            return;
        }
        let next_look = Instant::now() + LOOK;
        loop {
            let left = next_look.saturating_duration_since(Instant::now());
            match runtime::timeout(left, happened.recv()).await {
                Some(Ok((number, notice))) => display.notice(members, number, &notice),
                Some(Err(_)) | None => break,
            }
        }
    }
}

/// Lets people live once the network stands.
async fn live(
    members: &[Member],
    args: &DevnetArgs,
    display: &mut Display,
    happened: &async_channel::Receiver<(usize, Notice)>,
    as_json: bool,
) -> Result<(), Exit> {
    settle(members, display, happened).await;
    let first = &members[0];
    if as_json {
        output::json(
            &json!({"ready": true, "ui": format!("http://{}/", first.server.file().addr)}),
        );
    }
    display.ready(members);
    if args.empty {
        return watch(members, display, happened).await;
    }
    let authors: Vec<NodeId> = members.iter().map(|member| member.host.node_id()).collect();
    let seed = match args.seed {
        Some(seed) => crypto::hash(&seed.to_be_bytes()),
        None => distsoc_host::random().map_err(Exit::failed)?,
    };
    let posting = people::live(members, &authors, seed);
    let watching = watch(members, display, happened);
    futures_lite::future::or(watching, posting).await
}

/// Connections that a node will soon have: three quarters of its social slots, or everybody else.
fn wanted_by(member: &Member, nodes: usize) -> usize {
    let profile = NodeProfile::of(member.host.kind());
    (profile.social_slots * 3 / 4).min(nodes - 1)
}

/// How many of the wanted connections each has.
async fn connections(members: &[Member]) -> Vec<usize> {
    let mut connected = Vec::with_capacity(members.len());
    for member in members {
        let peers = match member.host.call(Call::Status).await {
            Ok(Reply::Status(status)) => status.peers_social + status.peers_wide,
            _ => 0,
        };
        connected.push(peers.min(wanted_by(member, members.len())));
    }
    connected
}

async fn watch(
    members: &[Member],
    display: &mut Display,
    happened: &async_channel::Receiver<(usize, Notice)>,
) -> Result<(), Exit> {
    while let Ok((number, notice)) = happened.recv().await {
        display.notice(members, number, &notice);
        if let Notice::Post { id, author } = notice
            && members[number - 1].host.node_id() == author
        {
            let entry = members[number - 1]
                .host
                .view(move |view| view.post(id))
                .await;
            if let Ok(Some(entry)) = entry {
                display.post(&members[number - 1].name, &entry);
            }
        }
    }
    Err(Exit::failed("the nodes have ended by themselves"))
}

impl Member {
    /// The line of the contract.
    pub(super) fn to_json(&self, data: &Path) -> serde_json::Value {
        json!({
            "node": self.number,
            "node_id": self.host.node_id().to_string(),
            "connect": ConnectString::at(self.host.node_id(), self.host.listen()).to_string(),
            "data": data.display().to_string(),
            "profile": self.host.kind().name(),
            "ui": format!("http://{}/", self.server.file().addr),
        })
    }
}
