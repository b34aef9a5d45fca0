//! A running node, as its front ends hold it.

use crate::blobs::{PART_BYTES_MAX, is_here};
use crate::fault::Fault;
use crate::loop_task::{Asked, Loop};
use crate::media::{Head, MediaFault, MediaType, Thumbnail, ThumbnailSide, Thumbnails};
use crate::random::random;
use crate::traffic::{DayTraffic, TrafficDays};
use async_channel::{Receiver, Sender};
use distsoc_engine::domain::{BlobRef, ConnectString, Name, NodeId};
use distsoc_engine::io::{Call, CallError, Input, LinkId, Notice, Reply};
use distsoc_engine::node::{Node, NodeConfig};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_net::{Endpoint, EndpointConfig, LinkStats, TrafficRow, runtime};
use distsoc_persistence::{Store, StoreConfig, View, secret};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroizing;

/// Calls and results of the disk that wait for the node.
const ASKED_MAX: usize = 4_096;
/// Notices that wait for one subscriber; a slower one is let go.
const NOTICES_MAX: usize = 1_024;
/// Subscribers at once.
const SUBSCRIBERS_MAX: usize = 64;

/// What a running node is made from.
#[derive(Debug)]
pub struct HostConfig {
    /// The data folder.
    pub dir: PathBuf,
    /// The column of PROTOCOL section 3.
    pub kind: ProfileKind,
    /// Where to accept; port 0 takes the port of last time if it is free.
    pub listen: SocketAddr,
    /// The anchors of anchors.json.
    pub anchors: Vec<ConnectString>,
    /// The display name to take if there is no profile yet.
    pub name: Option<Name>,
    /// The key's seed for a new folder; from the operating system where `None`.
    pub identity_seed: Option<[u8; 32]>,
}

/// A running node. Clones are the same node.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    node_id: NodeId,
    kind: ProfileKind,
    dir: PathBuf,
    endpoint: Endpoint,
    store: Store,
    asked: Sender<Box<Asked>>,
    ended: Receiver<()>,
    crash: Arc<Mutex<Option<String>>>,
    subscribers: Arc<Subscribers>,
    days: Arc<Mutex<TrafficDays>>,
    thumbnails: Thumbnails,
}

/// Who watches, each behind a bounded queue.
#[derive(Default)]
pub(crate) struct Subscribers(Mutex<Vec<Sender<Notice>>>);

impl Subscribers {
    pub(crate) fn tell(&self, notice: &Notice) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever does not read is let go: its channel closes, which it sees.
        all.retain(|subscriber| subscriber.try_send(notice.clone()).is_ok());
    }

    fn add(&self) -> Option<Receiver<Notice>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|subscriber| !subscriber.is_closed());
        if all.len() >= SUBSCRIBERS_MAX {
            return None;
        }
        let (send, receive) = async_channel::bounded(NOTICES_MAX);
        all.push(send);
        Some(receive)
    }

    pub(crate) fn close(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// The UDP port of last time, if the folder remembers one.
#[must_use]
pub fn remembered_port(dir: &Path) -> Option<u16> {
    std::fs::read_to_string(dir.join("port"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn start_endpoint(
    config: &HostConfig,
    seed: &Zeroizing<[u8; 32]>,
) -> Result<(Endpoint, Receiver<Input>), Fault> {
    let start = |listen| -> Result<_, Fault> {
        let endpoint = EndpointConfig {
            secret_seed: seed.clone(),
            listen,
            profile: NodeProfile::of(config.kind),
            entropy: random()?,
        };
        Ok(Endpoint::start(endpoint)?)
    };
    let remembered = remembered_port(&config.dir).filter(|_| config.listen.port() == 0);
    if let Some(port) = remembered
        && let Ok(started) = start(SocketAddr::new(config.listen.ip(), port))
    {
        return Ok(started);
    }
    start(config.listen)
}

impl Host {
    /// Starts a node on a data folder.
    ///
    /// # Errors
    /// [`Fault`], a sentence for the person.
    pub fn start(config: HostConfig) -> Result<Host, Fault> {
        let secret = match secret::load(&config.dir)? {
            Some(secret) => secret,
            None => {
                let seed = Zeroizing::new(config.identity_seed.map_or_else(random, Ok)?);
                secret::create(&config.dir, &seed)?
            }
        };
        let (node_id, seed) = (secret.node_id(), secret.seed());
        let (asked, asked_receiver) = async_channel::bounded::<Box<Asked>>(ASKED_MAX);
        let from_disk = asked.clone();
        let store_config = StoreConfig {
            dir: config.dir.clone(),
            own: node_id,
            budget_bytes: NodeProfile::of(config.kind).file_budget_bytes,
        };
        let deliver = move |input| {
            // The loop is gone only after the store was closed; then nobody waits for this.
            let _ = from_disk.send_blocking(Box::new(Asked::Input(input)));
        };
        let (store, restored) = Store::open(store_config, deliver)?;
        let has_profile = restored.own_profile.is_some();
        let (endpoint, network) = start_endpoint(&config, &seed)?;
        // Only a convenience: without it the next start takes another port.
        let _ = std::fs::write(
            config.dir.join("port"),
            format!("{}\n", endpoint.local_addr().port()),
        );
        let node = Node::new(
            NodeConfig {
                secret,
                profile: NodeProfile::of(config.kind),
                seed: random()?,
                anchors: config.anchors,
                restored,
            },
            distsoc_systems::install,
        );
        let subscribers = Arc::new(Subscribers::default());
        let days = Arc::new(Mutex::new(TrafficDays::default()));
        let (ended_sender, ended) = async_channel::bounded(1);
        let crash = Arc::new(Mutex::new(None));
        let task = Loop::new(
            node,
            endpoint.clone(),
            store.clone(),
            network,
            asked_receiver,
            subscribers.clone(),
            days.clone(),
        );
        runtime::spawn(task.run_to_the_end(crash.clone(), ended_sender));
        let host = Host(Arc::new(Inner {
            node_id,
            kind: config.kind,
            dir: config.dir,
            endpoint,
            store,
            asked,
            ended,
            crash,
            subscribers,
            days,
            thumbnails: Thumbnails::default(),
        }));
        if let (false, Some(name)) = (has_profile, config.name) {
            let named = host.clone();
            let set = Call::SetProfile {
                name: Some(name),
                bio: None,
                anchors: None,
            };
            runtime::spawn(async move { named.call(set).await });
        }
        Ok(host)
    }

    /// Its name.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.0.node_id
    }

    /// Its profile.
    #[must_use]
    pub fn kind(&self) -> ProfileKind {
        self.0.kind
    }

    /// Its data folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Where it accepts connections.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.0.endpoint.local_addr()
    }

    /// Asks the node.
    ///
    /// # Errors
    /// [`CallError`], a sentence for the person.
    pub async fn call(&self, what: Call) -> Result<Reply, CallError> {
        let (answer, receiver) = async_channel::bounded(1);
        let gone = || CallError::Refused("the node is stopping");
        self.0
            .asked
            .send(Box::new(Asked::Call(what, answer)))
            .await
            .map_err(|_| gone())?;
        receiver.recv().await.map_err(|_| gone())?
    }

    /// What happens from now on; `None` where 64 watch already. A subscriber that does not read is let go: its channel closes.
    #[must_use]
    pub fn subscribe(&self) -> Option<Receiver<Notice>> {
        self.0.subscribers.add()
    }

    /// A page from the disk, on a thread that may block.
    ///
    /// # Errors
    /// What the query gives.
    pub async fn view<T: Send + 'static>(
        &self,
        query: impl FnOnce(View) -> Result<T, distsoc_persistence::Fault> + Send + 'static,
    ) -> Result<T, distsoc_persistence::Fault> {
        let view = self.0.store.view();
        runtime::spawn_blocking(move || query(view)).await
    }

    /// Bytes of a stored blob, at most [`PART_BYTES_MAX`]; `None` where not all of them have arrived.
    ///
    /// # Errors
    /// Where the disk cannot be read.
    ///
    /// # Panics
    /// On a bug: a range that is longer, or goes past the end.
    pub async fn blob_part(
        &self,
        blob: BlobRef,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, distsoc_persistence::Fault> {
        let is_within = range.start <= range.end && range.end <= blob.length;
        assert!(
            is_within && range.end - range.start <= PART_BYTES_MAX,
            "a part lies within its blob"
        );
        self.view(move |view| view.blob_part(blob, range)).await
    }

    /// Whether all bytes of a range of a blob have arrived.
    ///
    /// # Errors
    /// Where the disk cannot be read.
    pub async fn has_blob_part(
        &self,
        blob: BlobRef,
        range: Range<u64>,
    ) -> Result<bool, distsoc_persistence::Fault> {
        self.view(move |view| is_here(&view, blob, range)).await
    }

    /// What a stored blob is; `None` where its start has not arrived.
    ///
    /// # Errors
    /// Where the disk cannot be read.
    pub async fn media_type(
        &self,
        blob: BlobRef,
    ) -> Result<Option<MediaType>, distsoc_persistence::Fault> {
        self.view(move |view| MediaType::of_stored(&view, blob))
            .await
    }

    /// What is published of a file: all of it, or a picture that can be shown, without what tells of its maker.
    ///
    /// # Errors
    /// [`MediaFault`] where it says that it is a picture and nobody could show it, or say what else it holds.
    pub async fn publishable(&self, bytes: Vec<u8>) -> Result<(Head, Vec<u8>), MediaFault> {
        self.0.thumbnails.publishable(bytes).await
    }

    /// A small picture of a stored blob.
    ///
    /// # Errors
    /// [`MediaFault`], a sentence for the person.
    pub async fn thumbnail(
        &self,
        blob: BlobRef,
        side: ThumbnailSide,
    ) -> Result<Arc<Thumbnail>, MediaFault> {
        let view = self.0.store.view();
        self.0.thumbnails.get(view, blob, side).await
    }

    /// Bytes by layer and cause since the start.
    #[must_use]
    pub fn traffic(&self) -> Vec<TrafficRow> {
        self.0.endpoint.traffic()
    }

    /// Bytes by day, layer and cause: today, and the days before it since the start.
    #[must_use]
    pub fn traffic_by_day(&self) -> Vec<DayTraffic> {
        let days = self.0.days.lock().unwrap_or_else(PoisonError::into_inner);
        days.all(&self.traffic())
    }

    /// Answers that were dropped since the start, because others filled the room for what is on its way: whoever asked asks again.
    #[must_use]
    pub fn responses_dropped(&self) -> u64 {
        self.0.endpoint.responses_dropped()
    }

    /// Figures of one connection.
    #[must_use]
    pub fn link_stats(&self, link: LinkId) -> Option<LinkStats> {
        self.0.endpoint.link_stats(link)
    }

    /// Bytes that its tables and blobs take on the disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.0.store.disk_bytes()
    }

    /// Says goodbye, stores everything, and ends.
    pub async fn stop(&self) {
        if self.0.asked.send(Box::new(Asked::Stop)).await.is_ok() {
            self.ended().await;
        }
    }

    /// Waits until the node has ended, however it did; the reason, where it crashed.
    pub async fn ended(&self) -> Option<String> {
        let _ = self.0.ended.recv().await;
        self.0
            .crash
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({} at {})", self.0.node_id.short(), self.listen())
    }
}
