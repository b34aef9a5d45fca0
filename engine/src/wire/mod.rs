//! The wire format (PROTOCOL section 5): the packet table, and [`admit`] as the only way in.
//!
//! A packet is one code byte and a deterministic CBOR array. Everything a packet may cost is in its line of the table:
//! size, rate, exchanges in flight. The transport enforces those numbers through [`gate::Gate`] and knows nothing else.

pub mod codec;
pub mod gate;
pub mod hostile;

mod address;
mod author_update;
mod bootstrap_sample;
mod delete_record;
mod directory;
mod file;
mod goodbye;
mod heart_record;
mod hello;
mod map_items;
mod map_reconcile;
mod outer_map;
mod post_notification;
mod profile_update;
mod pull_sync;
mod reader;
mod routing_diff;
mod swarm_link;
mod wide_probe;
mod worm;

pub use address::{AddressRequest, AddressResponse};
pub use author_update::{AuthorUpdatePush, ListDigest};
pub use bootstrap_sample::{BootstrapSampleRequest, BootstrapSampleResponse, Hint};
pub use delete_record::DeleteRecord;
pub use directory::{AddressAnnounce, DirectoryGet, DirectoryPut};
pub use file::{FileReader, FileRequest, FileResponse};
pub use goodbye::{Goodbye, GoodbyeReason};
pub use heart_record::HeartRecord;
pub use hello::{Hello, Purpose};
pub use map_items::{MapCell, MapCells, MapChanges, MapItem, Named, Number};
pub use map_reconcile::{CELLS, InitialMapSync, MapReconcile};
pub use outer_map::{OuterMap, OuterMapRequest};
pub use post_notification::PostNotification;
pub use profile_update::ProfileUpdate;
pub use pull_sync::{ListPart, PullSyncRequest, PullSyncResponse, Want};
pub use reader::PacketReader;
pub use routing_diff::RoutingDiff;
pub use swarm_link::{SwarmLink, SwarmWish};
pub use wide_probe::{WideProbe, WideSample, prefixes_in};
pub use worm::{
    WormAnswer, WormFinding, WormNear, WormOrigin, WormOriginBody, WormQuery, WormRequest,
    WormResponse, WormTarget, WormTargets,
};

use crate::io::{LinkId, StreamToken};
use crate::limits;
use crate::refusal::Refusal;
use crate::world::inbox::Arrivals;
use std::sync::Arc;

/// The protocol's name and version in the TLS handshake.
pub const ALPN: &[u8] = b"distsoc/2";
/// The version in Hello.
pub const VERSION: u32 = 2;

/// The first byte of every stream.
pub type Code = u8;

/// Encoded bytes of a packet, its code first; shared so that a fan-out encodes once.
pub type PacketBytes = Arc<[u8]>;

/// How a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// On a unidirectional stream, nothing comes back.
    Notification,
    /// Opens a bidirectional stream; the packet with this code comes back on it.
    Request(Code),
    /// Comes back on a stream that a request opened.
    Response,
}

/// Which budget of PROTOCOL section 3 a packet's bytes belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Keeping connections: handshakes, Hello, keep-alive, headers and acknowledgements.
    Connection,
    /// L1, where nodes are.
    Discovery,
    /// L2, where content is.
    Files,
    /// L3, who is followed.
    Social,
}

impl Layer {
    /// All layers, in order.
    pub const ALL: [Layer; 4] = [Self::Connection, Self::Discovery, Self::Files, Self::Social];

    /// The word used in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Discovery => "L1",
            Self::Files => "L2",
            Self::Social => "L3",
        }
    }
}

/// A line of the packet table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    /// The code byte.
    pub code: Code,
    /// The packet's name in PROTOCOL section 5, also the cause in the byte accounting.
    pub name: &'static str,
    /// How it travels.
    pub direction: Direction,
    /// Whose budget it uses.
    pub layer: Layer,
    /// Bytes at most, code included.
    pub bytes_max: usize,
    /// Token bucket per peer: packets at once.
    pub burst: u32,
    /// Token bucket per peer: packets a minute.
    pub per_minute: u32,
    /// Exchanges under way at once per peer.
    pub in_flight_max: u32,
}

impl PacketSpec {
    /// A peer takes one more after this.
    #[must_use]
    pub const fn every_ms(&self) -> u64 {
        60_000 / self.per_minute as u64
    }

    /// What a sender sends at once, at most: of what a peer takes, some is left for whatever else is sent.
    #[must_use]
    pub const fn at_once(&self) -> u64 {
        self.burst as u64 * 3 / 4
    }

    /// Whether what answers this is large, as slices and posts are: it has its room before it is made, and takes longer to come.
    #[must_use]
    pub fn asks_for_much(&self) -> bool {
        let answer = match self.direction {
            Direction::Request(answer) => spec(answer),
            _ => None,
        };
        answer.is_some_and(|answer| answer.bytes_max > limits::SMALL_RESPONSE_BYTES)
    }
}

/// A packet that [`admit`] let in: decoded, canonical, within its limits, every signature in it verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted<P>(P);

impl<P> Admitted<P> {
    /// The packet.
    pub fn into_inner(self) -> P {
        self.0
    }
}

impl<P> std::ops::Deref for Admitted<P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.0
    }
}

macro_rules! packets {
    ($($code:literal $name:ident: $direction:expr, $layer:ident, bytes $bytes:expr, burst $burst:literal, per_minute $rate:literal, in_flight $flight:literal;)*
     reserved { $($reserved_code:literal $reserved_name:ident;)* }) => {
        /// Every packet this version speaks.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "a packet lives for one frame, a box would cost more than it saves")]
        pub enum Packet { $(#[doc = concat!("PROTOCOL section 5, ", stringify!($code), ".")] $name($name),)* }

        /// The packet table.
        pub const PACKETS: &[PacketSpec] = &[$($name::SPEC,)*];

        /// Codes of PROTOCOL section 5 that this version keeps free and does not speak yet.
        pub const RESERVED: &[(Code, &str)] = &[$(($reserved_code, stringify!($reserved_name)),)*];

        $(impl $name {
            /// This packet's line in the table.
            pub const SPEC: PacketSpec = PacketSpec {
                code: $code,
                name: stringify!($name),
                direction: $direction,
                layer: Layer::$layer,
                bytes_max: $bytes,
                burst: $burst,
                per_minute: $rate,
                in_flight_max: $flight,
            };
        })*

        impl Packet {
            /// Its line in the table.
            #[must_use]
            pub fn spec(&self) -> &'static PacketSpec {
                match self { $(Packet::$name(_) => const { &$name::SPEC },)* }
            }

            /// The bytes of the packet, its code first.
            #[must_use]
            pub fn encode(&self) -> PacketBytes {
                let mut bytes = vec![self.spec().code];
                match self { $(Packet::$name(packet) => codec::encode_into(packet, &mut bytes),)* }
                bytes.into()
            }

            /// One valid packet of every kind, in the order of the table.
            #[must_use]
            pub fn examples() -> Vec<Packet> {
                vec![$(Packet::$name(<$name as Example>::example()),)*]
            }

            fn decode(code: Code, body: &[u8]) -> Result<Packet, Refusal> {
                match code {
                    $($code => {
                        let packet: $name = codec::decode_canonical(body)?;
                        Check::check(&packet)?;
                        Ok(Packet::$name(packet))
                    })*
                    _ => Err(Refusal::UnknownCode),
                }
            }
        }

        $(impl From<$name> for Packet {
            fn from(packet: $name) -> Packet { Packet::$name(packet) }
        })*

        /// Makes the queue of each packet type in a new world.
        pub(crate) fn insert_queues(world: &mut bevy_ecs::world::World) {
            $(world.insert_resource(Arrivals::<$name>::default());)*
        }

        /// Puts an admitted packet into its type's queue.
        pub(crate) fn distribute(
            world: &mut bevy_ecs::world::World,
            link: LinkId,
            stream: Option<StreamToken>,
            packet: Admitted<Packet>,
        ) {
            match packet.0 {
                $(Packet::$name(packet) => world.resource_mut::<Arrivals<$name>>().push(link, stream, packet),)*
            }
        }

        /// Drops the packets that wait and that the closure does not want: it is given the world, where each came from, and its line
        /// in the table.
        pub fn retain_arrivals(
            world: &mut bevy_ecs::world::World,
            mut wants: impl FnMut(&mut bevy_ecs::world::World, LinkId, Option<StreamToken>, &'static PacketSpec) -> bool,
        ) {
            $(if !world.resource::<Arrivals<$name>>().is_empty() {
                let mut arrivals = world.resource_mut::<Arrivals<$name>>().take();
                arrivals.retain(|arrival| wants(world, arrival.link, arrival.stream, const { &$name::SPEC }));
                world.resource_mut::<Arrivals<$name>>().put_back(arrivals);
            })*
        }

        /// How many packets wait in the queues: 0 after a frame, or a system forgot its queue.
        pub(crate) fn undelivered(world: &bevy_ecs::world::World) -> usize {
            0 $(+ world.resource::<Arrivals<$name>>().len())*
        }
    };
}

/// One valid packet of a type, for golden files, fuzzing and benchmarks.
pub(crate) trait Example {
    fn example() -> Self;
}

/// What decoding alone does not ensure about a packet.
pub(crate) trait Check {
    fn check(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

use Direction::{Notification, Request, Response};

packets! {
    0x00 Hello: Notification, Connection, bytes 1024, burst 2, per_minute 2, in_flight 2;
    0x01 RoutingDiff: Notification, Discovery, bytes 64 * 1024, burst 4, per_minute 1, in_flight 2;
    0x02 InitialMapSync: Response, Discovery, bytes 64 * 1024, burst 64, per_minute 120, in_flight 2;
    0x03 BootstrapSampleRequest: Request(0x04), Discovery, bytes 16, burst 8, per_minute 8, in_flight 1;
    0x04 BootstrapSampleResponse: Response, Discovery, bytes 15 * 1024, burst 8, per_minute 8, in_flight 1;
    0x05 MapReconcile: Request(0x02), Discovery, bytes 5 * 1024, burst 64, per_minute 120, in_flight 1;
    0x06 WideProbe: Request(0x07), Discovery, bytes 96, burst 4, per_minute 4, in_flight 1;
    0x07 WideSample: Response, Discovery, bytes 9 * 1024, burst 4, per_minute 4, in_flight 1;
    0x08 OuterMapRequest: Request(0x09), Discovery, bytes 16, burst 2, per_minute 2, in_flight 1;
    0x09 OuterMap: Response, Discovery, bytes 9 * 1024, burst 2, per_minute 2, in_flight 1;
    0x10 WormRequest: Request(0x12), Discovery, bytes 1024, burst 10, per_minute 10, in_flight 2;
    0x11 WormQuery: Request(0x12), Discovery, bytes 1024, burst 32, per_minute 60, in_flight 4;
    0x12 WormResponse: Response, Discovery, bytes 24 * 1024, burst 42, per_minute 70, in_flight 6;
    0x13 WormAnswer: Notification, Discovery, bytes 1024, burst 4, per_minute 4, in_flight 2;
    0x20 AddressRequest: Request(0x21), Discovery, bytes 64, burst 32, per_minute 60, in_flight 8;
    0x21 AddressResponse: Response, Discovery, bytes 512, burst 32, per_minute 60, in_flight 8;
    0x22 AddressAnnounce: Notification, Discovery, bytes 768, burst 32, per_minute 32, in_flight 4;
    0x23 DirectoryPut: Notification, Discovery, bytes 768, burst 4, per_minute 4, in_flight 2;
    0x24 DirectoryGet: Request(0x21), Discovery, bytes 64, burst 32, per_minute 60, in_flight 8;
    0x30 FileRequest: Request(0x31), Files, bytes 128, burst 128, per_minute 2400, in_flight 4;
    0x31 FileResponse: Response, Files, bytes 520 * 1024, burst 128, per_minute 2400, in_flight 4;
    0x34 AuthorUpdatePush: Notification, Files, bytes 4 * 1024, burst 16, per_minute 30, in_flight 4;
    0x35 PostNotification: Notification, Files, bytes 16 * 1024, burst 64, per_minute 240, in_flight 16;
    0x36 SwarmLink: Notification, Files, bytes 2 * 1024, burst 64, per_minute 60, in_flight 8;
    0x40 PullSyncRequest: Request(0x41), Social, bytes 12 * 1024, burst 64, per_minute 1200, in_flight 4;
    0x41 PullSyncResponse: Response, Social, bytes 832 * 1024, burst 64, per_minute 1200, in_flight 4;
    0x50 ProfileUpdate: Notification, Social, bytes 6 * 1024, burst 8, per_minute 12, in_flight 4;
    0x51 DeleteRecord: Notification, Files, bytes 256, burst 64, per_minute 60, in_flight 8;
    0x53 HeartRecord: Notification, Files, bytes 256, burst 128, per_minute 240, in_flight 16;
    0x54 Goodbye: Notification, Connection, bytes 1024, burst 1, per_minute 1, in_flight 1;
    reserved {
        0x25 PunchRequest;
        0x32 AuthorUpdateRequest;
        0x33 AuthorUpdateResponse;
        0x42 PushPost;
        0x43 AudienceRequest;
        0x44 AudienceResponse;
        0x45 RoutedEnvelope;
        0x46 RouteProbe;
        0x47 AudienceEpoch;
        0x52 VisibilityUpdate;
    }
}

/// The table's line for a code, if this version speaks it.
#[must_use]
pub fn spec(code: Code) -> Option<&'static PacketSpec> {
    PACKETS.iter().find(|spec| spec.code == code)
}

/// The name for counters and logs of any code, spoken, reserved or unknown.
#[must_use]
pub fn name_of(code: Code) -> &'static str {
    let reserved = || {
        RESERVED
            .iter()
            .find(|(reserved, _)| *reserved == code)
            .map(|(_, name)| *name)
    };
    spec(code)
        .map(|spec| spec.name)
        .or_else(reserved)
        .unwrap_or("unknown")
}

/// What a stream may carry, by how it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A unidirectional stream from the peer.
    Notification,
    /// A bidirectional stream that the peer opened.
    Request,
    /// A bidirectional stream that we opened with a request that this code answers.
    Response(Code),
}

/// The table's line for a stream's first byte, before anything else of it is read: refuses unknown codes and wrong
/// directions, and tells the transport the size to stop at.
///
/// # Errors
/// [`Refusal::UnknownCode`], [`Refusal::ReservedCode`], [`Refusal::WrongDirection`].
pub fn preview(code: Code, expected: Expected) -> Result<&'static PacketSpec, Refusal> {
    let Some(spec) = spec(code) else {
        let reserved = RESERVED.iter().any(|(reserved, _)| *reserved == code);
        return Err(if reserved {
            Refusal::ReservedCode
        } else {
            Refusal::UnknownCode
        });
    };
    let fits = match (expected, spec.direction) {
        (Expected::Notification, Notification) | (Expected::Request, Request(_)) => true,
        (Expected::Response(wanted), Response) => wanted == code,
        _ => false,
    };
    fits.then_some(spec).ok_or(Refusal::WrongDirection)
}

/// The only way to an [`Admitted`] packet: direction, size, canonical form, every field's own check, every key and
/// signature in it. Pure, so that it runs on worker tasks in production and inline in the simulator. It proves what the
/// bytes alone prove; what needs the node's state gives a [`crate::domain::Verified`].
///
/// # Errors
/// The refusal to count.
pub fn admit(bytes: &[u8], expected: Expected) -> Result<Admitted<Packet>, Refusal> {
    let (code, body) = bytes.split_first().ok_or(Refusal::Empty)?;
    let spec = preview(*code, expected)?;
    if bytes.len() > spec.bytes_max {
        return Err(Refusal::TooLarge);
    }
    Packet::decode(*code, body).map(Admitted)
}

#[cfg(test)]
mod tests;
