//! What responses hold in memory while they are sent: bounded over all connections, and shared among them, so that peers that
//! ask and do not read cost no more than their share. A large response has its room before it is made: who asks for one while
//! there is none waits in line.

use crate::runtime;
use crate::streams::lock;
use async_channel::{Receiver, Sender};
use distsoc_engine::io::LinkId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request in line.
#[derive(Debug)]
struct Waiting {
    link: LinkId,
    bytes: usize,
    room: Sender<Room>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    bytes_max: usize,
    by_link: BTreeMap<LinkId, usize>,
    /// In the order in which they came.
    line: BTreeMap<u64, Waiting>,
    tickets: u64,
    dropped: u64,
}

impl Held {
    /// Room for a response, where as much as its connection then holds is still free: so one connection takes half at most, and
    /// small responses find room where large ones do not.
    fn take(&mut self, link: LinkId, bytes: usize) -> bool {
        let of_link = self.by_link.get(&link).copied().unwrap_or_default() + bytes;
        let free = self.bytes_max.saturating_sub(self.bytes + bytes);
        let fits = of_link <= free;
        if fits {
            self.bytes += bytes;
            self.by_link.insert(link, of_link);
        }
        fits
    }

    fn give_back(&mut self, link: LinkId, bytes: usize) {
        self.bytes -= bytes;
        if let Some(of_link) = self.by_link.get_mut(&link) {
            *of_link -= bytes;
            if *of_link == 0 {
                self.by_link.remove(&link);
            }
        }
    }

    /// Those in line for whom there is room now: it is taken for them. Whose connection holds least comes first, then who has waited
    /// longest; nobody overtakes these, or a large one would wait for ever.
    fn admit(&mut self) -> Vec<Waiting> {
        let mut admitted = Vec::new();
        loop {
            let of_link = |link: &LinkId| self.by_link.get(link).copied().unwrap_or_default();
            let places = self.line.iter();
            let next = places.min_by_key(|(ticket, waiting)| (of_link(&waiting.link), **ticket));
            let Some((ticket, link, bytes)) =
                next.map(|(ticket, waiting)| (*ticket, waiting.link, waiting.bytes))
            else {
                return admitted;
            };
            if !self.take(link, bytes) {
                return admitted;
            }
            admitted.extend(self.line.remove(&ticket));
        }
    }
}

/// The bytes of responses on their way.
#[derive(Debug)]
pub(crate) struct Responses(Mutex<Held>);

/// Room for one response, given back when it goes.
#[derive(Debug)]
pub(crate) struct Room {
    responses: Arc<Responses>,
    link: LinkId,
    bytes: usize,
}

impl Responses {
    /// For so many bytes over all connections.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let held = Held {
            bytes_max,
            ..Held::default()
        };
        Arc::new(Self(Mutex::new(held)))
    }

    /// Room for a response that is there, or none: that is counted.
    pub(crate) fn take(self: &Arc<Self>, link: LinkId, bytes: usize) -> Option<Room> {
        let mut held = lock(&self.0);
        let fits = held.take(link, bytes);
        held.dropped += u64::from(!fits);
        fits.then(|| self.room(link, bytes))
    }

    /// Room for a response that is not made yet, as soon as there is some for whoever came before; none after so long, or once the
    /// connection is forgotten: that is counted.
    pub(crate) async fn wait(
        self: &Arc<Self>,
        link: LinkId,
        bytes: usize,
        longest: Duration,
    ) -> Option<Room> {
        let (ticket, admitted) = self.line_up(link, bytes);
        let room = runtime::timeout(longest, admitted.recv()).await;
        let room = room.and_then(Result::ok);
        if room.is_some() {
            return room;
        }
        let mut held = lock(&self.0);
        held.line.remove(&ticket);
        // It may have been admitted meanwhile.
        let room = admitted.try_recv().ok();
        held.dropped += u64::from(room.is_none());
        drop(held);
        self.admit();
        room
    }

    fn line_up(self: &Arc<Self>, link: LinkId, bytes: usize) -> (u64, Receiver<Room>) {
        let (room, admitted) = async_channel::bounded(1);
        let mut held = lock(&self.0);
        held.tickets += 1;
        let ticket = held.tickets;
        held.line.insert(ticket, Waiting { link, bytes, room });
        drop(held);
        self.admit();
        (ticket, admitted)
    }

    fn admit(self: &Arc<Self>) {
        let admitted = lock(&self.0).admit();
        for waiting in admitted {
            // Who does not wait any more gives it back.
            let _ = waiting
                .room
                .try_send(self.room(waiting.link, waiting.bytes));
        }
    }

    fn room(self: &Arc<Self>, link: LinkId, bytes: usize) -> Room {
        Room {
            responses: self.clone(),
            link,
            bytes,
        }
    }

    /// A connection is over: nothing of it is in line any more.
    pub(crate) fn forget(&self, link: LinkId) {
        lock(&self.0).line.retain(|_, waiting| waiting.link != link);
    }

    /// How many found no room.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.0).dropped
    }
}

impl Room {
    /// The response is as long as this, which may be less than there is room for.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        lock(&self.responses.0).give_back(self.link, rest);
        self.responses.admit();
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        lock(&self.responses.0).give_back(self.link, self.bytes);
        self.responses.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::limits;
    use crate::runtime::{block_on, sleep, timeout};
    use crate::{Endpoint, EndpointConfig};
    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{Address, NodeId};
    use distsoc_engine::io::{
        DialId, DialTarget, Effect, Input, RequestFailure, RequestId, StreamToken,
    };
    use distsoc_engine::profile::{NodeProfile, ProfileKind};
    use distsoc_engine::wire::{Packet, PacketBytes};
    use futures_lite::future;
    use std::time::Duration;

    const LARGE: usize = 520 * 1024;
    const PATIENCE: Duration = Duration::from_secs(30);

    fn start(number: u8) -> (Endpoint, Receiver<Input>, NodeId) {
        let config = EndpointConfig {
            secret_seed: zeroize::Zeroizing::new([number; 32]),
            listen: "127.0.0.1:0".parse().unwrap(),
            profile: NodeProfile::of(ProfileKind::Desktop),
            entropy: [number; 16],
        };
        let (endpoint, inputs) = Endpoint::start(config).unwrap();
        let id = Secret::from_seed(&[number; 32]).node_id();
        (endpoint, inputs, id)
    }

    async fn next<T>(inputs: &Receiver<Input>, mut pick: impl FnMut(Input) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(found) = pick(inputs.recv().await.unwrap()) {
                    return found;
                }
            }
        });
        found.await.expect("it happens within 30 s")
    }

    fn example(name: &str) -> PacketBytes {
        let mut examples = Packet::examples().into_iter();
        let packet = examples.find(|packet| packet.spec().name == name);
        packet.unwrap().encode()
    }

    #[test]
    fn a_peer_that_does_not_read_holds_memory_until_its_streams_are_given_up() {
        block_on(async {
            let ((a, inputs_a, _), (b, inputs_b, node)) = (start(31), start(32));
            let link = connect(&a, &inputs_a, &b, node).await;
            let mut unread = Vec::new();
            for _ in 0..4 {
                let opened = a.handle(link).open_bidirectional_stream().await;
                let mut exchange = opened.unwrap();
                let request: &[u8] = &example("FileRequest");
                exchange.send(request.to_vec().into()).await.unwrap();
                exchange.finish().unwrap();
                unread.push(exchange);
                let stream = next(&inputs_b, |input| match input {
                    Input::Packet { stream, .. } => stream,
                    _ => None,
                });
                let (stream, bytes) = (stream.await, Some(vec![0x31; LARGE].into()));
                b.perform(Effect::Respond { stream, bytes });
            }
            let held = || lock(&b.slices().0).bytes;
            assert_eq!(held(), 4 * LARGE);
            let given_up = timeout(PATIENCE, async {
                while held() > 0 {
                    sleep(Duration::from_millis(20)).await;
                }
            });
            given_up.await.expect("nobody holds memory for ever");
            for mut exchange in unread {
                let end = timeout(PATIENCE, async {
                    loop {
                        match exchange.receive().await {
                            Ok(Some(_)) => {}
                            end => return end.is_err(),
                        }
                    }
                });
                assert_eq!(end.await, Some(true), "the peer is told");
            }
        });
    }

    async fn next_request(inputs: &Receiver<Input>) -> StreamToken {
        let stream = next(inputs, |input| match input {
            Input::Packet { stream, packet, .. } if packet.spec().name == "FileRequest" => stream,
            _ => None,
        });
        stream.await
    }

    async fn response(inputs: &Receiver<Input>) -> Result<(), RequestFailure> {
        let result = next(inputs, |input| match input {
            Input::Response { result, .. } => Some(result.map(drop)),
            _ => None,
        });
        result.await
    }

    /// Dials, and says Hello; the connection.
    async fn connect(
        from: &Endpoint,
        inputs: &Receiver<Input>,
        to: &Endpoint,
        node: NodeId,
    ) -> LinkId {
        let place = Address::new(to.local_addr()).unwrap();
        let (dial, target) = (DialId(1), DialTarget::Addresses(vec![place]));
        from.perform(Effect::Dial { dial, node, target });
        let link = next(inputs, |input| match input {
            Input::LinkUp { link, .. } => Some(link),
            _ => None,
        });
        let link = link.await;
        let bytes = example("Hello");
        from.perform(Effect::Send { link, bytes });
        link
    }

    #[test]
    fn those_who_ask_for_much_and_read_nothing_wait_past_the_bound_and_others_are_served() {
        const ASKS: usize = 4;
        block_on(async {
            let (b, inputs_b, node) = start(40);
            let held = || lock(&b.slices().0).bytes;
            let waits = || !lock(&b.slices().0).line.is_empty();
            let ask = async |a: &Endpoint, link| {
                let mut exchange = a.handle(link).open_bidirectional_stream().await.unwrap();
                let request = example("FileRequest").to_vec();
                exchange.send(request.into()).await.unwrap();
                exchange.finish().unwrap();
                exchange
            };
            let (mut greedy, mut unread, mut most) = (Vec::new(), Vec::new(), 0);
            // What is not read is given up after a while: then others ask, until one waits in line.
            'asking: for number in 41..=80 {
                let (a, inputs_a, _) = start(number);
                let link = connect(&a, &inputs_a, &b, node).await;
                greedy.push((a.clone(), inputs_a));
                for _ in 0..ASKS {
                    unread.push(ask(&a, link).await);
                    let turn = async {
                        loop {
                            let asked = next_request(&inputs_b);
                            match timeout(Duration::from_millis(20), asked).await {
                                Some(stream) => return Some(stream),
                                None if waits() => return None,
                                None => {}
                            }
                        }
                    };
                    let turn = timeout(PATIENCE, turn).await;
                    let Some(stream) = turn.expect("it has its turn, or waits") else {
                        break 'asking;
                    };
                    let bytes = Some(vec![0x31; LARGE].into());
                    b.perform(Effect::Respond { stream, bytes });
                    most = most.max(held());
                    assert!(held() <= limits::SLICE_RESPONSE_BYTES_MAX);
                }
            }
            assert!(most > limits::SLICE_RESPONSE_BYTES_MAX / 2, "{most} bytes");
            // Whoever asks for little has it meanwhile.
            let (c, inputs_c, _) = start(81);
            let link = connect(&c, &inputs_c, &b, node).await;
            c.perform(Effect::Request {
                link,
                request: RequestId(1),
                bytes: example("AddressRequest"),
                timeout_ms: 30_000,
            });
            let stream = next(&inputs_b, |input| match input {
                Input::Packet { stream, packet, .. } if packet.spec().name == "AddressRequest" => {
                    stream
                }
                _ => None,
            });
            let (stream, bytes) = (stream.await, Some(example("AddressResponse")));
            b.perform(Effect::Respond { stream, bytes });
            assert!(response(&inputs_c).await.is_ok(), "others are served");
            assert!(held() <= limits::SLICE_RESPONSE_BYTES_MAX);
            // Whoever waits is told that there is none, or has its turn.
            let mut last = unread.pop().unwrap();
            let refused = async { assert!(last.receive().await.is_err()) };
            let admitted = async { _ = next_request(&inputs_b).await };
            let end = timeout(PATIENCE, future::or(refused, admitted)).await;
            end.expect("within 30 s");
        });
    }

    #[test]
    fn those_who_read_are_all_served_though_there_is_no_room_for_all_at_once() {
        const ASKERS: u8 = 7;
        const ASKS: u64 = 4;
        block_on(async {
            let (b, inputs_b, node) = start(90);
            let mut askers = Vec::new();
            for number in 91..91 + ASKERS {
                let (a, inputs_a, _) = start(number);
                let link = connect(&a, &inputs_a, &b, node).await;
                askers.push((a, inputs_a, link));
            }
            let ask = |a: &Endpoint, link: LinkId| {
                a.perform(Effect::Request {
                    link,
                    request: RequestId(1),
                    bytes: example("FileRequest"),
                    timeout_ms: 30_000,
                });
            };
            for (a, _, link) in &askers {
                (0..ASKS).for_each(|_| ask(a, *link));
            }
            // As many have their turn as there is room for; the rest when those have what they asked for.
            let mut tokens = Vec::new();
            let line = async {
                while lock(&b.slices().0).line.is_empty() {
                    let asked = timeout(Duration::from_millis(20), next_request(&inputs_b));
                    tokens.extend(asked.await);
                }
            };
            timeout(PATIENCE, line).await.expect("somebody waits");
            let turns = usize::from(ASKERS) * ASKS as usize;
            assert!(tokens.len() < turns);
            let serve = async {
                loop {
                    let stream = match tokens.pop() {
                        Some(stream) => stream,
                        None => next_request(&inputs_b).await,
                    };
                    let bytes = Some(example("FileResponse"));
                    b.perform(Effect::Respond { stream, bytes });
                }
            };
            let receive = async {
                for (a, inputs_a, link) in &askers {
                    let mut answered = 0;
                    while answered < ASKS {
                        match response(inputs_a).await {
                            Ok(()) => answered += 1,
                            // On a machine that stood still for as long as one waits in line.
                            Err(failure) => {
                                assert_eq!(failure, RequestFailure::NoResponse);
                                ask(a, *link);
                            }
                        }
                    }
                }
            };
            future::or(serve, receive).await;
        });
    }

    #[test]
    fn whoever_waits_too_long_or_is_gone_is_told_and_takes_nothing_with_it() {
        let responses = Responses::new(limits::SLICE_RESPONSE_BYTES_MAX);
        let wait = |link, ms| {
            let longest = Duration::from_millis(ms);
            block_on(responses.wait(LinkId(link), LARGE, longest))
        };
        let mut rooms: Vec<Room> = Vec::new();
        for link in 1.. {
            match responses.take(LinkId(link), LARGE) {
                Some(room) => rooms.push(room),
                None => break,
            }
        }
        assert_eq!(responses.dropped(), 1);
        assert!(wait(100, 1).is_none());
        assert_eq!(responses.dropped(), 2);
        // In line: one that goes, then one whose turn comes.
        let (_, gone) = responses.line_up(LinkId(101), LARGE);
        let (_, first) = responses.line_up(LinkId(102), LARGE);
        let (_, second) = responses.line_up(LinkId(103), LARGE);
        responses.forget(LinkId(101));
        assert!(gone.try_recv().is_err_and(|error| error.is_closed()));
        rooms.pop();
        let room = first.try_recv().expect("its turn");
        assert!(second.try_recv().is_err());
        // Who does not wait any more is passed over.
        drop(second);
        let (_, third) = responses.line_up(LinkId(104), LARGE);
        drop(room);
        let mut room = third.try_recv().expect("its turn");
        // What is shorter than it might be leaves the rest to others.
        let (_, fourth) = responses.line_up(LinkId(105), LARGE);
        assert!(fourth.try_recv().is_err());
        room.shrink(100);
        assert!(fourth.try_recv().is_ok());
        drop(room);
        rooms.clear();
        // Whose connection holds least comes first, and then nobody overtakes, though less would fit earlier.
        let mut rooms: Vec<Room> = Vec::new();
        while let Some(room) = responses.take(LinkId(rooms.len() as u64 % 12), LARGE) {
            rooms.push(room);
        }
        let (_, has_one) = responses.line_up(LinkId(0), LARGE);
        let (_, larger) = responses.line_up(LinkId(106), 2 * LARGE);
        let (_, behind) = responses.line_up(LinkId(107), LARGE);
        while larger.is_empty() {
            assert!(behind.is_empty() && has_one.is_empty());
            rooms
                .pop()
                .expect("it has room before there is nothing else");
        }
        rooms.clear();
        assert!(behind.try_recv().is_ok() && has_one.try_recv().is_ok());
        drop(larger.try_recv());
        let held = lock(&responses.0);
        assert_eq!((held.bytes, held.line.len(), held.by_link.len()), (0, 0, 0));
    }

    #[test]
    fn many_that_do_not_read_leave_room_for_small_ones_and_one_takes_half_at_most() {
        let responses = Responses::new(limits::SLICE_RESPONSE_BYTES_MAX);
        let mut rooms: Vec<Room> = Vec::new();
        while let Some(room) = responses.take(LinkId(1), LARGE) {
            rooms.push(room);
        }
        assert!(rooms.len() * LARGE <= limits::SLICE_RESPONSE_BYTES_MAX / 2);
        let of_one = rooms.len();
        for link in 2..1000 {
            rooms.extend(responses.take(LinkId(link), LARGE));
        }
        assert!(rooms.len() > of_one + 3, "others have their share");
        let held: usize = rooms.iter().map(|room| room.bytes).sum();
        assert!(held <= limits::SLICE_RESPONSE_BYTES_MAX);
        assert!(responses.take(LinkId(2000), 64 * 1024).is_some());
        let asked = of_one + 1 + 998;
        assert_eq!(responses.dropped(), (asked - rooms.len()) as u64);
        rooms.clear();
        assert_eq!(lock(&responses.0).bytes, 0);
        assert!(lock(&responses.0).by_link.is_empty());
        assert!(responses.take(LinkId(2), LARGE).is_some());
    }
}
