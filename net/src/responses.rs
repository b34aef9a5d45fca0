//! What responses hold in memory while they are sent: bounded over all connections, and shared among them, so that peers that
//! ask and do not read cost no more than their share.

use crate::limits;
use crate::streams::lock;
use distsoc_engine::io::LinkId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    by_link: BTreeMap<LinkId, usize>,
    dropped: u64,
}

/// The bytes of all responses on their way.
#[derive(Debug, Default)]
pub(crate) struct Responses(Mutex<Held>);

/// Room for one response, given back when it goes.
#[derive(Debug)]
pub(crate) struct Room {
    responses: Arc<Responses>,
    link: LinkId,
    bytes: usize,
}

impl Responses {
    /// Room for a response, where as much as its connection then holds is still free: so one connection takes half at most, and
    /// small responses find room where large ones are dropped. `None` is counted.
    pub(crate) fn take(self: &Arc<Self>, link: LinkId, bytes: usize) -> Option<Room> {
        let mut held = lock(&self.0);
        let of_link = held.by_link.get(&link).copied().unwrap_or_default() + bytes;
        let free = limits::RESPONSE_BYTES_MAX.saturating_sub(held.bytes + bytes);
        if of_link > free {
            held.dropped += 1;
            return None;
        }
        held.bytes += bytes;
        held.by_link.insert(link, of_link);
        Some(Room {
            responses: self.clone(),
            link,
            bytes,
        })
    }

    /// How many found no room.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.0).dropped
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut held = lock(&self.responses.0);
        held.bytes -= self.bytes;
        if let Some(of_link) = held.by_link.get_mut(&self.link) {
            *of_link -= self.bytes;
            if *of_link == 0 {
                held.by_link.remove(&self.link);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::runtime::{block_on, sleep, timeout};
    use crate::{Endpoint, EndpointConfig};
    use async_channel::Receiver;
    use distsoc_engine::crypto::Secret;
    use distsoc_engine::domain::{Address, NodeId};
    use distsoc_engine::io::{DialId, DialTarget, Effect, Input, RequestId};
    use distsoc_engine::profile::{NodeProfile, ProfileKind};
    use distsoc_engine::wire::{Packet, PacketBytes};
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
            let held = || lock(&b.responses().0).bytes;
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
    fn those_who_ask_for_much_and_read_nothing_are_dropped_past_the_bound_and_others_are_served() {
        const ASKS: usize = 4;
        block_on(async {
            let (b, inputs_b, node) = start(40);
            let held = || lock(&b.responses().0).bytes;
            let token = || async {
                let stream = next(&inputs_b, |input| match input {
                    Input::Packet { stream, .. } => stream,
                    _ => None,
                });
                stream.await
            };
            let (mut greedy, mut unread, mut most) = (Vec::new(), Vec::new(), 0);
            // What is not read is given up after a while: then others ask, until one response has found no room.
            'asking: for number in 41..=80 {
                let (a, inputs_a, _) = start(number);
                let link = connect(&a, &inputs_a, &b, node).await;
                for _ in 0..ASKS {
                    let mut exchange = a.handle(link).open_bidirectional_stream().await.unwrap();
                    exchange
                        .send(example("FileRequest").to_vec().into())
                        .await
                        .unwrap();
                    exchange.finish().unwrap();
                    let (stream, bytes) = (token().await, Some(vec![0x31; LARGE].into()));
                    b.perform(Effect::Respond { stream, bytes });
                    unread.push(exchange);
                    most = most.max(held());
                    assert!(held() <= limits::RESPONSE_BYTES_MAX);
                    if b.responses_dropped() > 0 {
                        greedy.push((a, inputs_a));
                        break 'asking;
                    }
                }
                greedy.push((a, inputs_a));
            }
            assert!(b.responses_dropped() > 0);
            assert!(most > limits::RESPONSE_BYTES_MAX / 2, "{most} bytes");
            // Whoever reads what it asked for has it meanwhile.
            let (c, inputs_c, _) = start(81);
            let link = connect(&c, &inputs_c, &b, node).await;
            c.perform(Effect::Request {
                link,
                request: RequestId(1),
                bytes: example("FileRequest"),
                timeout_ms: 30_000,
            });
            let (stream, bytes) = (token().await, Some(example("FileResponse")));
            b.perform(Effect::Respond { stream, bytes });
            let served = next(&inputs_c, |input| match input {
                Input::Response { result, .. } => Some(result.is_ok()),
                _ => None,
            });
            assert!(served.await, "others are served");
            assert!(held() <= limits::RESPONSE_BYTES_MAX);
            // The last to ask was told at once: its stream was reset, nothing of a response came.
            let mut last = unread.pop().unwrap();
            let end = timeout(PATIENCE, last.receive());
            assert!(end.await.expect("it is told").is_err());
        });
    }

    #[test]
    fn many_that_do_not_read_leave_room_for_small_ones_and_one_takes_half_at_most() {
        let responses = Arc::new(Responses::default());
        let mut rooms: Vec<Room> = Vec::new();
        while let Some(room) = responses.take(LinkId(1), LARGE) {
            rooms.push(room);
        }
        assert!(rooms.len() * LARGE <= limits::RESPONSE_BYTES_MAX / 2);
        let of_one = rooms.len();
        for link in 2..1000 {
            rooms.extend(responses.take(LinkId(link), LARGE));
        }
        assert!(rooms.len() > of_one + 3, "others have their share");
        let held: usize = rooms.iter().map(|room| room.bytes).sum();
        assert!(held <= limits::RESPONSE_BYTES_MAX);
        assert!(responses.take(LinkId(2000), 64 * 1024).is_some());
        let asked = of_one + 1 + 998;
        assert_eq!(responses.dropped(), (asked - rooms.len()) as u64);
        rooms.clear();
        assert_eq!(lock(&responses.0).bytes, 0);
        assert!(lock(&responses.0).by_link.is_empty());
        assert!(responses.take(LinkId(2), LARGE).is_some());
    }
}
