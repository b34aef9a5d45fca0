//! One connection: its streams become inputs, in the order that matters.
//!
//! Unidirectional streams are read one after the other, so that notifications keep their order and the first, Hello, comes
//! before everything else; streams with requests wait for it, then run side by side up to the packet's limit in flight.

use crate::endpoint::Shared;
use crate::meter::ConnectionFacts;
use crate::outgoing::{Outgoing, Put, Queue};
use crate::responses::Room;
use crate::streams::{GIVEN_UP, NoPacket, lock, read_packet, write_packet};
use crate::{limits, runtime};
use distsoc_engine::io::{DownCause, Input, LinkId, RequestFailure, RequestId, StreamToken};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::gate::Gate;
use distsoc_engine::wire::{
    Code, Direction, Expected, GoodbyeReason, Packet, PacketBytes, PacketSpec, spec,
};
use s2n_quic::connection::{Error, Handle, StreamAcceptor};
use s2n_quic::stream::{BidirectionalStream, PeerStream, ReceiveStream, SendStream};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A connection as the endpoint knows it.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) handle: Handle,
    gate: Mutex<Gate>,
    incoming: Mutex<Incoming>,
    outgoing: Queue,
    closed_by_us: AtomicBool,
}

/// Streams that wait to be read.
#[derive(Default)]
struct Incoming {
    notifications: VecDeque<ReceiveStream>,
    reading: bool,
    /// Tasks that read streams.
    readers: usize,
    /// Why the connection ended; told once the last reader is done.
    ended: Option<DownCause>,
    /// Whoever waits for that end.
    end_waker: Option<Waker>,
    /// The first notification was delivered.
    greeted: bool,
    /// Requests that came before it.
    early: Vec<BidirectionalStream>,
}

/// Too many bytes of responses are on their way, for too long.
struct NoRoom;

/// A peer's request whose response is awaited.
pub(crate) struct Pending {
    pub(crate) link: Arc<Link>,
    pub(crate) code: Code,
    pub(crate) stream: SendStream,
    /// For a large response.
    pub(crate) room: Option<Room>,
}

impl Link {
    pub(crate) fn new(id: LinkId, handle: Handle) -> Arc<Self> {
        Arc::new(Self {
            id,
            handle,
            gate: Mutex::default(),
            incoming: Mutex::default(),
            outgoing: Queue::default(),
            closed_by_us: AtomicBool::new(false),
        })
    }

    pub(crate) fn facts<T>(&self, read: impl FnOnce(&ConnectionFacts) -> T) -> Option<T> {
        self.handle.query_event_context(read).ok()
    }

    /// Accepts streams until the connection ends, then says why it did.
    pub(crate) async fn run(self: Arc<Self>, mut acceptor: StreamAcceptor, shared: Arc<Shared>) {
        let cause = loop {
            match acceptor.accept().await {
                Ok(Some(PeerStream::Receive(stream))) => self.queue_notification(stream, &shared),
                Ok(Some(PeerStream::Bidirectional(stream))) => self.take_request(stream, &shared),
                Ok(None) => break DownCause::ClosedByPeer(None),
                Err(error) => break self.cause_of(error),
            }
        };
        shared.forget(self.id);
        {
            let mut incoming = lock(&self.incoming);
            incoming.early.clear();
            incoming.readers += 1;
            incoming.ended = Some(cause);
            if let Some(waker) = incoming.end_waker.take() {
                waker.wake();
            }
        }
        self.reader_done(&shared).await;
    }

    /// A task that reads for this connection is done. After the last one the node hears that the connection ended, never
    /// before something that came on it.
    async fn reader_done(&self, shared: &Shared) {
        let cause = {
            let mut incoming = lock(&self.incoming);
            incoming.readers -= 1;
            match incoming.readers {
                0 => incoming.ended,
                _ => None,
            }
        };
        if let Some(cause) = cause {
            let link = self.id;
            let _ = shared.inputs.send(Input::LinkDown { link, cause }).await;
        }
    }

    /// Over once the connection is.
    async fn end(&self) {
        std::future::poll_fn(|context| {
            let mut incoming = lock(&self.incoming);
            if incoming.ended.is_some() {
                return Poll::Ready(());
            }
            incoming.end_waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn cause_of(&self, error: Error) -> DownCause {
        if self.closed_by_us.load(Relaxed) {
            return DownCause::ClosedByUs;
        }
        match error {
            Error::Application { error, .. } => {
                let number = u8::try_from(u64::from(error)).ok();
                DownCause::ClosedByPeer(number.and_then(GoodbyeReason::from_wire))
            }
            Error::Closed { .. } | Error::StatelessReset { .. } => DownCause::ClosedByPeer(None),
            Error::IdleTimerExpired { .. } => DownCause::TimedOut,
            _ => DownCause::Failed,
        }
    }

    fn queue_notification(self: &Arc<Self>, stream: ReceiveStream, shared: &Arc<Shared>) {
        let mut incoming = lock(&self.incoming);
        incoming.notifications.push_back(stream);
        if !std::mem::replace(&mut incoming.reading, true) {
            incoming.readers += 1;
            let (link, shared) = (self.clone(), shared.clone());
            runtime::spawn(async move { link.read_notifications(shared).await });
        }
    }

    async fn read_notifications(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            let next = {
                let mut incoming = lock(&self.incoming);
                let next = incoming.notifications.pop_front();
                if next.is_none() {
                    incoming.reading = false;
                    incoming.notifications = VecDeque::new();
                }
                next
            };
            let Some(mut stream) = next else {
                return self.reader_done(&shared).await;
            };
            match read_packet(
                &mut stream,
                Expected::Notification,
                Some(&self.gate),
                &shared.meter,
            )
            .await
            {
                Ok(packet) => {
                    let code = packet.spec().code;
                    let parts = matches!(*packet, Packet::Goodbye(_));
                    let input = Input::Packet {
                        link: self.id,
                        stream: None,
                        packet,
                    };
                    let _ = shared.inputs.send(input).await;
                    lock(&self.gate).finish(code);
                    self.release_early(&shared);
                    // Both say Goodbye: nobody has to wait for the other to read it.
                    if let Some(reason) = self.outgoing.closing().filter(|_| parts) {
                        self.close(reason);
                    }
                }
                Err(problem) => self.report(problem, &shared).await,
            }
        }
    }

    fn release_early(self: &Arc<Self>, shared: &Arc<Shared>) {
        let early = {
            let mut incoming = lock(&self.incoming);
            if incoming.greeted {
                return;
            }
            incoming.greeted = true;
            std::mem::take(&mut incoming.early)
        };
        for stream in early {
            self.start_request(stream, shared);
        }
    }

    fn take_request(self: &Arc<Self>, stream: BidirectionalStream, shared: &Arc<Shared>) {
        {
            let mut incoming = lock(&self.incoming);
            if !incoming.greeted {
                // QUIC bounds how many a peer may open.
                incoming.early.push(stream);
                return;
            }
        }
        self.start_request(stream, shared);
    }

    fn start_request(self: &Arc<Self>, stream: BidirectionalStream, shared: &Arc<Shared>) {
        lock(&self.incoming).readers += 1;
        let (link, shared) = (self.clone(), shared.clone());
        runtime::spawn(async move {
            link.read_request(stream, &shared).await;
            link.reader_done(&shared).await;
        });
    }

    async fn read_request(self: &Arc<Self>, stream: BidirectionalStream, shared: &Shared) {
        let (mut receive, mut send) = stream.split();
        let expected = Expected::Request;
        let read = read_packet(&mut receive, expected, Some(&self.gate), &shared.meter);
        let packet = match read.await {
            Ok(packet) => packet,
            Err(problem) => return self.report(problem, shared).await,
        };
        let code = packet.spec().code;
        let room = match self.room_for(packet.spec(), shared).await {
            Ok(room) => room,
            Err(NoRoom) => {
                self.answered(code);
                let _ = send.reset(GIVEN_UP);
                return;
            }
        };
        let token = StreamToken(shared.fresh());
        let pending = Pending {
            link: self.clone(),
            code,
            stream: send,
            room,
        };
        lock(&shared.pending).insert(token, pending);
        let input = Input::Packet {
            link: self.id,
            stream: Some(token),
            packet,
        };
        let _ = shared.inputs.send(input).await;
    }

    /// Room for the response to such a request, where it may be large.
    async fn room_for(
        &self,
        request: &PacketSpec,
        shared: &Shared,
    ) -> Result<Option<Room>, NoRoom> {
        let Direction::Request(answer) = request.direction else {
            unreachable!("nothing else was expected");
        };
        if !request.asks_for_much() {
            return Ok(None);
        }
        let bytes = spec(answer).map_or(0, |answer| answer.bytes_max);
        let longest = Duration::from_millis(limits::ROOM_WAIT_MS_MAX);
        let responses = shared.responses_to(request.code);
        let room = responses.wait(self.id, bytes, longest).await;
        room.map(Some).ok_or(NoRoom)
    }

    async fn report(&self, problem: NoPacket, shared: &Shared) {
        let (code, refusal) = match problem {
            NoPacket::Refused(code, refusal) => (code, refusal),
            NoPacket::Stalled(code) => (code, Refusal::Malformed),
            NoPacket::Gone | NoPacket::Cut | NoPacket::Down => return,
        };
        let input = Input::Refused {
            link: self.id,
            code,
            refusal,
            count: 1,
        };
        let _ = shared.inputs.send(input).await;
    }

    /// Queues something to send.
    pub(crate) fn put(self: &Arc<Self>, outgoing: Outgoing, shared: &Arc<Shared>) {
        let is_packet = matches!(outgoing, Outgoing::Notify(_));
        match self.outgoing.put(outgoing) {
            Put::Start => {
                let (link, shared) = (self.clone(), shared.clone());
                runtime::spawn(async move { link.drain(shared).await });
            }
            Put::Waits => {}
            // A peer that does not read what is sent to it is no peer.
            Put::Refused if is_packet => self.close(GoodbyeReason::Misconduct),
            Put::Refused => {}
        }
    }

    async fn drain(self: Arc<Self>, shared: Arc<Shared>) {
        let mut handle = self.handle.clone();
        let mut unacknowledged: VecDeque<SendStream> = VecDeque::new();
        loop {
            let next = {
                let flush = pin!(acknowledged(&mut unacknowledged));
                self.outgoing.next(flush).await
            };
            match next {
                None => return,
                Some(Outgoing::Notify(bytes)) => {
                    let stall = Duration::from_millis(limits::STREAM_STALL_MS_MAX);
                    let Some(Ok(mut stream)) =
                        runtime::timeout(stall, handle.open_send_stream()).await
                    else {
                        self.close(GoodbyeReason::Misconduct);
                        continue;
                    };
                    if write_packet(&mut stream, &bytes, &shared.meter)
                        .await
                        .is_ok()
                    {
                        unacknowledged.push_back(stream);
                    }
                    if unacknowledged.len() > limits::UNACKNOWLEDGED_MAX {
                        unacknowledged.pop_front();
                    }
                }
                Some(Outgoing::Close(reason)) => {
                    if !unacknowledged.is_empty() && acknowledged(&mut unacknowledged).await {
                        // Acknowledged is not yet read: a peer that reads our Goodbye closes by itself.
                        let linger = Duration::from_millis(limits::CLOSE_LINGER_MS_MAX);
                        let _ = runtime::timeout(linger, self.end()).await;
                    }
                    self.close(reason);
                }
            }
        }
    }

    /// Closes at once.
    pub(crate) fn close(&self, reason: GoodbyeReason) {
        self.closed_by_us.store(true, Relaxed);
        self.handle.close(u32::from(reason.to_wire()).into());
    }

    /// Sends a request and waits for its response.
    pub(crate) async fn ask(
        self: Arc<Self>,
        request: RequestId,
        bytes: PacketBytes,
        timeout_ms: u64,
        shared: Arc<Shared>,
    ) {
        let exchange = self.exchange(&bytes, &shared);
        let result = match runtime::timeout(Duration::from_millis(timeout_ms), exchange).await {
            Some(result) => result,
            None => Err(RequestFailure::TimedOut),
        };
        let _ = shared
            .inputs
            .send(Input::Response { request, result })
            .await;
    }

    async fn exchange(
        &self,
        bytes: &PacketBytes,
        shared: &Shared,
    ) -> Result<distsoc_engine::wire::Admitted<distsoc_engine::wire::Packet>, RequestFailure> {
        let Some(Direction::Request(answer)) = spec(bytes[0]).map(|spec| spec.direction) else {
            unreachable!("the node asks with requests only");
        };
        let mut handle = self.handle.clone();
        let stream = handle
            .open_bidirectional_stream()
            .await
            .map_err(|_| RequestFailure::LinkDown)?;
        let (mut receive, mut send) = stream.split();
        write_packet(&mut send, bytes, &shared.meter)
            .await
            .map_err(|_| RequestFailure::NoResponse)?;
        // The rate of responses is that of our own requests: no gate.
        let response = read_packet(
            &mut receive,
            Expected::Response(answer),
            None,
            &shared.meter,
        )
        .await;
        response.map_err(|problem| match problem {
            NoPacket::Refused(_, Refusal::Empty) | NoPacket::Gone => RequestFailure::NoResponse,
            NoPacket::Refused(_, refusal) => RequestFailure::Refused(refusal),
            // Whoever has no room for an answer does not begin it.
            NoPacket::Stalled(_) | NoPacket::Cut => RequestFailure::TimedOut,
            NoPacket::Down => RequestFailure::LinkDown,
        })
    }

    /// A request of the peer is answered or dropped.
    pub(crate) fn answered(&self, code: Code) {
        lock(&self.gate).finish(code);
    }
}

/// Waits until the peer has acknowledged all of these streams, or takes too long; says which. May be dropped at any time.
async fn acknowledged(streams: &mut VecDeque<SendStream>) -> bool {
    if streams.is_empty() {
        return true;
    }
    let flush = Duration::from_millis(limits::CLOSE_FLUSH_MS_MAX);
    let all = async {
        while let Some(stream) = streams.front_mut() {
            let _ = stream.close().await;
            streams.pop_front();
        }
    };
    let in_time = runtime::timeout(flush, all).await.is_some();
    streams.clear();
    in_time
}
