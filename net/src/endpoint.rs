//! The endpoint of a node: sockets, handshakes, dials, and the connections that come of them.

use crate::accept::AcceptLimits;
use crate::event_loop::{EventLoops, OneLoop};
use crate::link::{Link, Pending};
use crate::meter::{Listener, Meter, TrafficRow};
use crate::one_port::{self, Tagged};
use crate::outgoing::Outgoing;
use crate::responses::Responses;
use crate::runtime::JoinHandle;
use crate::streams::{GIVEN_UP, end_packet, let_go, lock, write_open};
use crate::tls::{TlsIdentity, server_name};
use crate::{addresses, limits, runtime};
use async_channel::{Receiver, Sender};
use distsoc_engine::crypto::derive_key;
use distsoc_engine::domain::{Address, NodeId};
use distsoc_engine::io::{
    DialFailure, DialId, DialTarget, Effect, Input, LinkId, Origin, StreamToken,
};
use distsoc_engine::limits::{DIALS_IN_FLIGHT_MAX, LARGE_RESPONSE_TIMEOUT_MS};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::wire::{Code, FileRequest, GoodbyeReason, PacketBytes};
use s2n_quic::client::Connect;
use s2n_quic::connection::Connection;
use s2n_quic::provider::limits::{ConnectionInfo, Limiter, Limits};
use s2n_quic::provider::tls;
use s2n_quic::{Client, Server};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use zeroize::Zeroizing;

/// Why the endpoint did not start.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The address is taken or not this machine's.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key is no key.
    #[error("the TLS identity cannot be made: {0}")]
    Identity(#[from] rustls::Error),
    /// s2n-quic refused its configuration.
    #[error("QUIC does not start: {0}")]
    Quic(String),
}

/// What an endpoint is made from.
#[derive(Debug)]
pub struct EndpointConfig {
    /// The own key's seed.
    pub secret_seed: Zeroizing<[u8; 32]>,
    /// Where to accept; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Keep-alive and idle timeouts.
    pub profile: NodeProfile,
    /// 16 bytes nobody can guess, for connection ids.
    pub entropy: [u8; 16],
}

/// Figures of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Smoothed round trip, microseconds.
    pub rtt_us: u64,
    /// UDP bytes received, headers included.
    pub in_bytes: u64,
    /// UDP bytes sent, headers included.
    pub out_bytes: u64,
}

/// What the tasks of an endpoint share.
pub(crate) struct Shared {
    pub(crate) inputs: Sender<Input>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) pending: Mutex<BTreeMap<StreamToken, Pending>>,
    slices: Arc<Responses>,
    responses: Arc<Responses>,
    links: Mutex<BTreeMap<LinkId, Arc<Link>>>,
    last_id: AtomicU64,
    dials: AtomicUsize,
    stopping: Arc<AtomicBool>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    pub(crate) fn fresh(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }

    pub(crate) fn forget(&self, link: LinkId) {
        lock(&self.links).remove(&link);
        self.slices.forget(link);
        self.responses.forget(link);
        lock(&self.pending).retain(|_, pending| pending.link.id != link);
    }

    /// What responses to a request hold.
    pub(crate) fn responses_to(&self, code: Code) -> &Arc<Responses> {
        match code == FileRequest::SPEC.code {
            true => &self.slices,
            false => &self.responses,
        }
    }

    fn link(&self, link: LinkId) -> Option<Arc<Link>> {
        lock(&self.links).get(&link).cloned()
    }
}

/// A node's QUIC endpoint: a handle that can be cloned.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    client: Client,
    identity: TlsIdentity,
    local: SocketAddr,
    offered_idle_ms: Arc<AtomicU64>,
    event_loops: EventLoops,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.event_loops.end();
    }
}

/// Limits of new connections, with the idle timeout offered at the moment.
struct Offered {
    idle_ms: Arc<AtomicU64>,
    keep_alive_ms: u64,
}

impl Offered {
    fn limits(&self) -> Result<Limits, String> {
        let ms = Duration::from_millis;
        let build = || -> Result<Limits, Box<dyn std::error::Error>> {
            let limits = Limits::new()
                .with_max_idle_timeout(ms(self.idle_ms.load(Relaxed)))?
                .with_max_keep_alive_period(ms(self.keep_alive_ms))?
                .with_max_handshake_duration(ms(limits::HANDSHAKE_MS_MAX))?
                .with_data_window(limits::CONNECTION_WINDOW_BYTES)?
                .with_bidirectional_local_data_window(limits::RESPONSE_WINDOW_BYTES)?
                .with_bidirectional_remote_data_window(limits::STREAM_WINDOW_BYTES)?
                .with_unidirectional_data_window(limits::STREAM_WINDOW_BYTES)?
                .with_max_open_remote_unidirectional_streams(limits::STREAMS_UNI_MAX)?
                .with_max_open_local_unidirectional_streams(limits::STREAMS_UNI_MAX)?
                .with_max_open_remote_bidirectional_streams(limits::STREAMS_BIDI_MAX)?
                .with_max_open_local_bidirectional_streams(limits::STREAMS_BIDI_MAX)?
                .with_max_send_buffer_size(limits::SEND_BUFFER_BYTES)?
                .with_max_active_connection_ids(2)?;
            Ok(limits)
        };
        build().map_err(|error| error.to_string())
    }
}

impl Limiter for Offered {
    fn on_connection(&mut self, _: &ConnectionInfo<'_>) -> Limits {
        self.limits()
            .expect("the limits were checked when the endpoint started")
    }
}

impl Endpoint {
    /// Opens the sockets and begins to accept. Everything that happens comes out of the receiver, which is bounded: whoever
    /// does not read it makes peers wait.
    ///
    /// # Errors
    /// [`Fault`] where the address cannot be had.
    pub fn start(config: EndpointConfig) -> Result<(Endpoint, Receiver<Input>), Fault> {
        let identity = TlsIdentity::new(&config.secret_seed)?;
        let secrets = derive_key("distsoc/2 connection ids", &config.entropy);
        let tag = [secrets[0], secrets[1], secrets[2], secrets[3]];
        let seed = u64::from_be_bytes(std::array::from_fn(|i| secrets[8 + i]));
        let bind_fault = |source| Fault::Bind {
            address: config.listen,
            source,
        };
        let sockets = one_port::open(config.listen, tag).map_err(bind_fault)?;
        let local = sockets.accept.local_addr().map_err(bind_fault)?;
        let meter = Arc::new(Meter::default());
        let offered_idle_ms = Arc::new(AtomicU64::new(config.profile.idle_timeout_ms));
        let offered = || Offered {
            idle_ms: offered_idle_ms.clone(),
            keep_alive_ms: config.profile.keep_alive_ms,
        };
        offered().limits().map_err(Fault::Quic)?;
        let (dropped, stopping) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let event_loops = EventLoops::default();
        let server = start_server(
            &identity,
            event_loops.on(sockets.accept).map_err(bind_fault)?,
            offered(),
            &meter,
            AcceptLimits::new(dropped.clone(), stopping.clone()),
        )?;
        let client = start_client(
            &identity,
            event_loops.on(sockets.dial).map_err(bind_fault)?,
            offered(),
            &meter,
            Tagged::new(tag, seed),
        )?;
        let (inputs, receiver) = async_channel::bounded(limits::INPUTS_MAX);
        let shared = Arc::new(Shared {
            inputs: inputs.clone(),
            meter,
            pending: Mutex::default(),
            slices: Responses::new(limits::SLICE_RESPONSE_BYTES_MAX),
            responses: Responses::new(limits::RESPONSE_BYTES_MAX),
            links: Mutex::default(),
            last_id: AtomicU64::new(0),
            dials: AtomicUsize::new(0),
            stopping,
            accepting: Mutex::default(),
        });
        *lock(&shared.accepting) = Some(runtime::spawn(accept(server, shared.clone(), dropped)));
        runtime::spawn(addresses::watch(local, inputs));
        let inner = Inner {
            shared,
            client,
            identity,
            local,
            offered_idle_ms,
            event_loops,
        };
        Ok((Endpoint(Arc::new(inner)), receiver))
    }

    /// Where it accepts.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Carries out an effect if it is one of the network; gives back any other. Never blocks.
    pub fn perform(&self, effect: Effect) -> Option<Effect> {
        let shared = &self.0.shared;
        match effect {
            Effect::Dial { dial, node, target } => {
                let inner = self.0.clone();
                runtime::spawn(async move { inner.dial(dial, node, target).await });
            }
            Effect::Send { link, bytes } => {
                if let Some(link) = shared.link(link) {
                    link.put(Outgoing::Notify(bytes), shared);
                }
            }
            Effect::Request {
                link,
                request,
                bytes,
                timeout_ms,
            } => self.request(link, request, bytes, timeout_ms),
            Effect::Respond { stream, bytes } => self.respond(stream, bytes),
            Effect::Close { link, reason } => {
                if let Some(link) = shared.link(link) {
                    link.put(Outgoing::Close(reason), shared);
                }
            }
            Effect::KeepAlive { link, on } => {
                if let Some(link) = shared.link(link) {
                    let _ = link.handle.clone().keep_alive(on);
                }
            }
            Effect::Ping { link } => {
                if let Some(link) = shared.link(link) {
                    let _ = link.handle.clone().ping();
                }
            }
            Effect::OfferIdleTimeout { ms } => self.0.offered_idle_ms.store(ms, Relaxed),
            other => return Some(other),
        }
        None
    }

    fn request(
        &self,
        link: LinkId,
        request: distsoc_engine::io::RequestId,
        bytes: PacketBytes,
        timeout_ms: u64,
    ) {
        let shared = self.0.shared.clone();
        match shared.link(link) {
            Some(link) => {
                runtime::spawn(async move { link.ask(request, bytes, timeout_ms, shared).await });
            }
            None => {
                runtime::spawn(async move {
                    let result = Err(distsoc_engine::io::RequestFailure::LinkDown);
                    let _ = shared
                        .inputs
                        .send(Input::Response { request, result })
                        .await;
                });
            }
        }
    }

    fn respond(&self, stream: StreamToken, bytes: Option<PacketBytes>) {
        let shared = self.0.shared.clone();
        let Some(mut pending) = lock(&shared.pending).remove(&stream) else {
            return;
        };
        let sent = bytes.and_then(|bytes| {
            let room = match pending.room.take() {
                Some(mut room) => {
                    room.shrink(bytes.len());
                    room
                }
                None => shared
                    .responses_to(pending.code)
                    .take(pending.link.id, bytes.len())?,
            };
            Some((bytes, room))
        });
        runtime::spawn(async move {
            match sent {
                Some((bytes, room)) => {
                    // Room is held no longer than whoever asked waits.
                    let end_ms = runtime::mono_ms() + LARGE_RESPONSE_TIMEOUT_MS;
                    let longest = Duration::from_millis(LARGE_RESPONSE_TIMEOUT_MS);
                    let written = write_open(&mut pending.stream, &bytes);
                    let written = runtime::timeout(longest, written).await;
                    // Before the peer can know that this was all, and ask for more.
                    pending.link.answered(pending.code);
                    if let Some(Ok(())) = written
                        && end_packet(&mut pending.stream, &bytes, &shared.meter).is_ok()
                    {
                        let rest_ms = end_ms.saturating_sub(runtime::mono_ms());
                        let_go(&mut pending.stream, Duration::from_millis(rest_ms)).await;
                    } else {
                        let _ = pending.stream.reset(GIVEN_UP);
                    }
                    drop(room);
                }
                None => {
                    pending.link.answered(pending.code);
                    let _ = pending.stream.reset(GIVEN_UP);
                }
            }
        });
    }

    /// Responses that were dropped since the start, because too many bytes of others were on their way.
    #[must_use]
    pub fn responses_dropped(&self) -> u64 {
        self.0.shared.slices.dropped() + self.0.shared.responses.dropped()
    }

    #[cfg(test)]
    pub(crate) fn handle(&self, link: LinkId) -> s2n_quic::connection::Handle {
        self.0.shared.link(link).expect("it stands").handle.clone()
    }

    #[cfg(test)]
    pub(crate) fn slices(&self) -> &Responses {
        &self.0.shared.slices
    }

    /// Bytes by layer and cause since the start.
    #[must_use]
    pub fn traffic(&self) -> Vec<TrafficRow> {
        self.0.shared.meter.rows()
    }

    /// Figures of a connection that is up.
    #[must_use]
    pub fn link_stats(&self, link: LinkId) -> Option<LinkStats> {
        self.0.shared.link(link)?.facts(|facts| LinkStats {
            rtt_us: facts.rtt_us.load(Relaxed),
            in_bytes: facts.in_bytes.load(Relaxed),
            out_bytes: facts.out_bytes.load(Relaxed),
        })
    }

    /// How many connections stand.
    #[must_use]
    pub fn link_count(&self) -> usize {
        lock(&self.0.shared.links).len()
    }

    /// Accepts nobody any more, closes every connection, waits, for a bounded time, until they are gone, and gives the port
    /// back.
    pub async fn shutdown(&self) {
        self.0.shared.stopping.store(true, Relaxed);
        let accepting = lock(&self.0.shared.accepting).take();
        if let Some(accepting) = accepting {
            accepting.cancel().await;
        }
        let links: Vec<Arc<Link>> = lock(&self.0.shared.links).values().cloned().collect();
        for link in links {
            link.put(Outgoing::Close(GoodbyeReason::Stopping), &self.0.shared);
        }
        for _ in 0..(limits::CLOSE_FLUSH_MS_MAX + limits::CLOSE_LINGER_MS_MAX) / 10 {
            if self.link_count() == 0 {
                break;
            }
            runtime::sleep(Duration::from_millis(10)).await;
        }
        // The last packets are with s2n-quic; it does not tell when they are out.
        runtime::sleep(Duration::from_millis(limits::LAST_PACKETS_MS)).await;
        self.0.event_loops.end();
        for _ in 0..limits::PORT_FREE_MS_MAX / 5 {
            if UdpSocket::bind(self.0.local).is_ok() {
                break;
            }
            runtime::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.0.local)
    }
}

impl Inner {
    async fn dial(&self, dial: DialId, node: NodeId, target: DialTarget) {
        let in_flight = self.shared.dials.fetch_add(1, Relaxed);
        let result = match in_flight < DIALS_IN_FLIGHT_MAX {
            true => self.try_addresses(node, target).await,
            false => Err(DialFailure::TooMany),
        };
        self.shared.dials.fetch_sub(1, Relaxed);
        match result {
            Ok(connection) => begin(connection, Some((dial, node)), &self.shared).await,
            Err(failure) => {
                let _ = self
                    .shared
                    .inputs
                    .send(Input::DialFailed { dial, failure })
                    .await;
            }
        }
    }

    async fn try_addresses(
        &self,
        node: NodeId,
        target: DialTarget,
    ) -> Result<Connection, DialFailure> {
        let addresses = match target {
            DialTarget::Addresses(addresses) => addresses,
            DialTarget::Host { name, port } => look_up(name, port).await,
        };
        let mut worst = DialFailure::NoSuchHost;
        for address in addresses {
            match self.try_address(node, address.socket()).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => worst = failure,
            }
        }
        Err(worst)
    }

    async fn try_address(
        &self,
        node: NodeId,
        address: SocketAddr,
    ) -> Result<Connection, DialFailure> {
        let name = server_name(&node);
        self.check_route(address)?;
        let connect = Connect::new(address).with_server_name(name.as_str());
        // The handshake limit ends it; this is for a connection attempt that s2n-quic forgets.
        let limit = Duration::from_millis(limits::HANDSHAKE_MS_MAX + 500);
        let result = runtime::timeout(limit, self.client.connect(connect)).await;
        let wrong_id = self.identity.strangers().take(&name);
        match result {
            Some(Ok(connection)) => Ok(connection),
            _ if wrong_id => Err(DialFailure::WrongId),
            Some(Err(
                s2n_quic::connection::Error::Application { .. }
                | s2n_quic::connection::Error::Closed { .. },
            )) => Err(DialFailure::Refused),
            Some(Err(s2n_quic::connection::Error::Transport { .. })) => Err(DialFailure::NoAnswer),
            Some(Err(_)) | None => Err(DialFailure::NoAnswer),
        }
    }

    /// Asks the system whether there is a way; sends nothing.
    fn check_route(&self, address: SocketAddr) -> Result<(), DialFailure> {
        if address.is_ipv4() != self.local.is_ipv4() && !self.local.ip().is_unspecified() {
            return Err(DialFailure::Unreachable);
        }
        let probe = SocketAddr::new(self.local.ip(), 0);
        let way = UdpSocket::bind(probe).and_then(|socket| socket.connect(address));
        way.map_err(|_| DialFailure::Unreachable)
    }
}

async fn look_up(name: String, port: u16) -> Vec<Address> {
    let found = runtime::spawn_blocking(move || {
        (name.as_str(), port).to_socket_addrs().map(Vec::from_iter)
    })
    .await;
    let found = found.unwrap_or_default();
    let mut usable: Vec<Address> = found
        .into_iter()
        .filter_map(|address| Address::new(address).ok())
        .collect();
    usable.truncate(distsoc_engine::limits::ADDRESSES_MAX);
    usable
}

/// Accepts handshakes, and reports those that were dropped.
async fn accept(mut server: Server, shared: Arc<Shared>, dropped: Arc<AtomicU32>) {
    let reporter = {
        let (shared, dropped) = (shared.clone(), dropped.clone());
        runtime::spawn(async move {
            while !shared.inputs.is_closed() {
                runtime::sleep(Duration::from_millis(limits::DROPPED_REPORT_MS * 8)).await;
                let count = dropped.swap(0, Relaxed);
                if count > 0 {
                    let _ = shared.inputs.send(Input::HandshakesDropped { count }).await;
                }
            }
        })
    };
    while let Some(connection) = server.accept().await {
        if shared.inputs.is_closed() {
            break;
        }
        let shared = shared.clone();
        runtime::spawn(async move { begin(connection, None, &shared).await });
    }
    reporter.cancel().await;
}

/// A handshake is complete: the connection gets a name, and the node hears of it before anything on it.
async fn begin(connection: Connection, dialled: Option<(DialId, NodeId)>, shared: &Arc<Shared>) {
    let proved = connection
        .query_event_context(|facts: &crate::meter::ConnectionFacts| facts.peer)
        .ok()
        .flatten();
    let (Some(node), Ok(remote)) = (proved, connection.remote_addr()) else {
        connection.close(u32::from(GoodbyeReason::Misconduct.to_wire()).into());
        if let Some((dial, _)) = dialled {
            let failure = DialFailure::Refused;
            let _ = shared
                .inputs
                .send(Input::DialFailed { dial, failure })
                .await;
        }
        return;
    };
    if shared.stopping.load(Relaxed) {
        connection.close(u32::from(GoodbyeReason::Stopping.to_wire()).into());
        return;
    }
    let (mut handle, acceptor) = connection.split();
    let _ = handle.keep_alive(true);
    let id = LinkId(shared.fresh());
    let link = Link::new(id, handle);
    lock(&shared.links).insert(id, link.clone());
    let origin = dialled.map_or(Origin::Accepted, |(dial, _)| Origin::Dialled(dial));
    let up = Input::LinkUp {
        link: id,
        node,
        remote,
        origin,
    };
    if shared.inputs.send(up).await.is_err() {
        link.close(GoodbyeReason::Stopping);
        return;
    }
    runtime::spawn(link.run(acceptor, shared.clone()));
}

fn quic_fault(error: impl std::fmt::Display) -> Fault {
    Fault::Quic(error.to_string())
}

#[allow(
    deprecated,
    reason = "the rustls provider takes a configuration only through its deprecated constructor"
)]
fn start_server(
    identity: &TlsIdentity,
    event_loop: OneLoop,
    offered: Offered,
    meter: &Arc<Meter>,
    accept: AcceptLimits,
) -> Result<Server, Fault> {
    Server::builder()
        .with_io(event_loop)
        .map_err(quic_fault)?
        .with_tls(tls::rustls::Server::from(identity.server()?))
        .map_err(quic_fault)?
        .with_event(Listener(meter.clone()))
        .map_err(quic_fault)?
        .with_limits(offered)
        .map_err(quic_fault)?
        .with_endpoint_limits(accept)
        .map_err(quic_fault)?
        .start()
        .map_err(quic_fault)
}

#[allow(
    deprecated,
    reason = "the rustls provider takes a configuration only through its deprecated constructor"
)]
fn start_client(
    identity: &TlsIdentity,
    event_loop: OneLoop,
    offered: Offered,
    meter: &Arc<Meter>,
    ids: Tagged,
) -> Result<Client, Fault> {
    Client::builder()
        .with_io(event_loop)
        .map_err(quic_fault)?
        .with_tls(tls::rustls::Client::from(identity.client()?))
        .map_err(quic_fault)?
        .with_event(Listener(meter.clone()))
        .map_err(quic_fault)?
        .with_limits(offered)
        .map_err(quic_fault)?
        .with_connection_id(ids)
        .map_err(quic_fault)?
        .start()
        .map_err(quic_fault)
}
