//! An endpoint with its inputs, for the tests of this folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test program uses some of it")]
#![allow(
    deprecated,
    reason = "the rustls provider takes a configuration only through its deprecated constructor"
)]

pub(crate) mod stranger;

use async_channel::Receiver;
use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{Address, NodeId};
use distsoc_engine::io::{
    DialFailure, DialId, DialTarget, DownCause, Effect, Input, LinkId, Origin, RequestFailure,
    RequestId, StreamToken,
};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::{Code, Packet, PacketBytes};
use distsoc_net::runtime::timeout;
use distsoc_net::{Endpoint, EndpointConfig};
use std::net::SocketAddr;
use std::time::Duration;
use zeroize::Zeroizing;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Side {
    pub(crate) endpoint: Endpoint,
    pub(crate) inputs: Receiver<Input>,
    pub(crate) id: NodeId,
}

pub(crate) fn side(number: u8) -> Side {
    let secret = Secret::from_seed(&[number; 32]);
    let config = EndpointConfig {
        secret_seed: Zeroizing::new([number; 32]),
        listen: "127.0.0.1:0".parse().unwrap(),
        profile: NodeProfile::of(ProfileKind::Desktop),
        entropy: [number; 16],
    };
    let (endpoint, inputs) = Endpoint::start(config).unwrap();
    Side {
        endpoint,
        inputs,
        id: secret.node_id(),
    }
}

impl Side {
    /// The next input that the closure makes something of; others are passed over.
    pub(crate) async fn next<T>(&self, mut pick: impl FnMut(Input) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(found) = pick(self.inputs.recv().await.expect("the endpoint runs")) {
                    return found;
                }
            }
        });
        found.await.expect("it happens within 30 s")
    }

    pub(crate) fn dial(&self, number: u64, node: NodeId, at: SocketAddr) {
        let target = DialTarget::Addresses(vec![Address::new(at).unwrap()]);
        let dial = DialId(number);
        self.endpoint.perform(Effect::Dial { dial, node, target });
    }

    pub(crate) async fn failure(&self) -> DialFailure {
        let pick = |input| match input {
            Input::DialFailed { failure, .. } => Some(failure),
            _ => None,
        };
        self.next(pick).await
    }

    pub(crate) async fn up(&self) -> (LinkId, NodeId, SocketAddr, Origin) {
        let pick = |input| match input {
            Input::LinkUp {
                link,
                node,
                remote,
                origin,
            } => Some((link, node, remote, origin)),
            _ => None,
        };
        self.next(pick).await
    }

    pub(crate) async fn down(&self) -> DownCause {
        let pick = |input| match input {
            Input::LinkDown { cause, .. } => Some(cause),
            _ => None,
        };
        self.next(pick).await
    }

    pub(crate) async fn packet(&self) -> (Packet, Option<StreamToken>) {
        let pick = |input| match input {
            Input::Packet { packet, stream, .. } => Some((packet.into_inner(), stream)),
            _ => None,
        };
        self.next(pick).await
    }

    pub(crate) async fn refused(&self) -> (Code, Refusal) {
        let pick = |input| match input {
            Input::Refused { code, refusal, .. } => Some((code, refusal)),
            _ => None,
        };
        self.next(pick).await
    }

    pub(crate) async fn response(&self) -> Result<Packet, RequestFailure> {
        let pick = |input| match input {
            Input::Response { result, .. } => {
                Some(result.map(distsoc_engine::wire::Admitted::into_inner))
            }
            _ => None,
        };
        self.next(pick).await
    }

    pub(crate) fn send(&self, link: LinkId, bytes: impl Into<PacketBytes>) {
        let bytes = bytes.into();
        self.endpoint.perform(Effect::Send { link, bytes });
    }

    pub(crate) fn ask(&self, link: LinkId, bytes: PacketBytes) {
        self.endpoint.perform(Effect::Request {
            link,
            request: RequestId(1),
            bytes,
            timeout_ms: 20_000,
        });
    }
}

pub(crate) fn example(name: &str) -> Packet {
    Packet::examples()
        .into_iter()
        .find(|packet| packet.spec().name == name)
        .unwrap()
}

/// Two sides with a connection that a dialled.
pub(crate) async fn pair(a: u8, b: u8) -> (Side, LinkId, Side, LinkId) {
    let (a, b) = (side(a), side(b));
    a.dial(1, b.id, b.endpoint.local_addr());
    let (link_a, node_b, ..) = a.up().await;
    let (link_b, node_a, remote, origin) = b.up().await;
    assert_eq!(
        (node_a, node_b),
        (a.id, b.id),
        "the handshake proves both keys"
    );
    assert_eq!(origin, Origin::Accepted);
    if cfg!(target_os = "linux") {
        assert_eq!(
            remote,
            a.endpoint.local_addr(),
            "one port for dialling and accepting"
        );
    }
    (a, link_a, b, link_b)
}
