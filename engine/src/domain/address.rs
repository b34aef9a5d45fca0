//! Addresses, whom they may be told, and the record by which a node claims them (PROTOCOL section 4).

use super::NodeId;
use super::record::{RecordBody, Signed, check_time};
use crate::clock::Now;
use crate::limits;
use crate::refusal::Refusal;
use crate::wire::codec::{Bounded, ByteVec, as_array};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How far an address reaches. A node hands on addresses of a scope only to peers in the same scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// This link.
    LinkLocal,
    /// This site: RFC 1918, unique local IPv6, shared address space.
    Private,
    /// The internet.
    Global,
    /// Nobody can be dialled there: unspecified, multicast, documentation, reserved.
    Unusable,
}

impl Scope {
    /// The scope of an IP address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Self::of_v4(v4),
            IpAddr::V6(v6) => Self::of_v6(v6),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        let [a, b, c, _] = ip.octets();
        if ip.is_loopback() {
            Self::Loopback
        } else if ip.is_link_local() {
            Self::LinkLocal
        } else if ip.is_private() || (a == 100 && b & 0xc0 == 64) {
            Self::Private
        } else if a == 0
            || a >= 224
            || ip.is_documentation()
            || (a, b, c) == (192, 0, 0)
            || (a == 198 && b & 0xfe == 18)
        {
            Self::Unusable
        } else {
            Self::Global
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        let [first, second, ..] = ip.segments();
        if ip.is_loopback() {
            Self::Loopback
        } else if first & 0xffc0 == 0xfe80 {
            Self::LinkLocal
        } else if first & 0xfe00 == 0xfc00 {
            Self::Private
        } else if first & 0xe000 == 0x2000 && (first, second) != (0x2001, 0x0db8) {
            Self::Global
        } else {
            Self::Unusable
        }
    }

    /// Whether this is a development or local scope, where prefix rules do not apply (PROTOCOL section 6).
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Loopback | Self::LinkLocal | Self::Private)
    }
}

/// The /24 (IPv6 /48) an address belongs to: the unit in which addresses are counted against one person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix([u8; 7]);

impl Prefix {
    /// The prefix of an IP address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        let mut bytes = [0; 7];
        match ip.to_canonical() {
            IpAddr::V4(v4) => {
                bytes[0] = 4;
                bytes[1..4].copy_from_slice(&v4.octets()[..3]);
            }
            IpAddr::V6(v6) => {
                bytes[0] = 6;
                bytes[1..7].copy_from_slice(&v6.octets()[..6]);
            }
        }
        Self(bytes)
    }

    /// The same where addresses are counted; `None` for all of local scopes, where prefix rules do not apply.
    #[must_use]
    pub fn counted(ip: IpAddr) -> Option<Self> {
        (!Scope::of(ip).is_local()).then(|| Self::of(ip))
    }

    /// Its bytes: the family, then the prefix.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 7] {
        self.0
    }
}

/// The /16 (IPv6 /32) an address belongs to: the unit in which wide peers and the paths of a search differ (PROTOCOL section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network([u8; 5]);

impl Network {
    /// The network of an IP address; `None` for all of local scopes, where prefix rules do not apply.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        if Scope::of(ip).is_local() {
            return None;
        }
        Some(match ip.to_canonical() {
            IpAddr::V4(v4) => Self([4, v4.octets()[0], v4.octets()[1], 0, 0]),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.octets();
                Self([6, a, b, c, d])
            }
        })
    }
}

/// An IP and port that somebody may be dialled at: port ≥ 1024 or 443, a usable scope. On the wire 6 or 18 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(SocketAddr);

impl Address {
    /// Checks scope and port (PROTOCOL section 4).
    ///
    /// # Errors
    /// [`Refusal::BadAddress`].
    pub fn new(address: SocketAddr) -> Result<Self, Refusal> {
        let port_allowed = address.port() >= 1024 || address.port() == 443;
        if !port_allowed || Scope::of(address.ip()) == Scope::Unusable {
            return Err(Refusal::BadAddress);
        }
        Ok(Self(SocketAddr::new(
            address.ip().to_canonical(),
            address.port(),
        )))
    }

    /// The address for the socket.
    #[must_use]
    pub fn socket(self) -> SocketAddr {
        self.0
    }

    /// How far it reaches.
    #[must_use]
    pub fn scope(self) -> Scope {
        Scope::of(self.0.ip())
    }

    /// Its /24 or /48.
    #[must_use]
    pub fn prefix(self) -> Prefix {
        Prefix::of(self.0.ip())
    }

    /// Whether a peer seen at `peer` may be told this address, or may tell it: global ones by anybody, others within
    /// the same scope only.
    #[must_use]
    pub fn fits_scope_of(self, peer: IpAddr) -> bool {
        self.scope() == Scope::Global || self.scope() == Scope::of(peer)
    }

    fn to_wire(self) -> Vec<u8> {
        let mut bytes = match self.0.ip() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        bytes.extend(self.0.port().to_be_bytes());
        bytes
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, Refusal> {
        let (ip, port) = bytes.split_last_chunk::<2>().ok_or(Refusal::Malformed)?;
        let ip = match ip.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(ip).map_err(|_| Refusal::Malformed)?),
            16 => IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| Refusal::Malformed)?),
            _ => return Err(Refusal::Malformed),
        };
        Self::new(SocketAddr::new(ip, u16::from_be_bytes(*port)))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_wire())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteVec::deserialize(deserializer)?;
        Self::from_wire(&bytes.0).map_err(|refusal| de::Error::custom(refusal.code()))
    }
}

/// The body of an [`AddressRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressBody {
    /// Whose addresses these claim to be.
    pub node_id: NodeId,
    /// At most 8, at most 3 of one /24 (IPv6 /48).
    pub addresses: Bounded<Address, { limits::ADDRESSES_MAX }>,
    /// 1 where the node serves as an anchor.
    pub is_anchor: u8,
    /// Its place in the order of versions: ms.
    pub seq: u64,
    /// Not handed on after this: ms since the epoch, at most 24 h after issue.
    pub expiry_ms: u64,
}

as_array!(AddressBody {
    node_id: NodeId,
    addresses: Bounded<Address, { limits::ADDRESSES_MAX }>,
    is_anchor: u8,
    seq: u64,
    expiry_ms: u64,
});

impl RecordBody for AddressBody {
    const TYPE: &'static str = "address";
    const BYTES_MAX: usize = 512;

    fn author(&self) -> NodeId {
        self.node_id
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.is_anchor > 1
            || self.expiry_ms > self.seq.saturating_add(limits::ADDRESS_RECORD_TTL_MS)
        {
            return Err(Refusal::OutOfRange);
        }
        let crowded = self.addresses.iter().any(|address| {
            let in_prefix = |other: &&Address| other.prefix() == address.prefix();
            !address.scope().is_local()
                && self.addresses.iter().filter(in_prefix).count()
                    > limits::ADDRESSES_PER_PREFIX_MAX
        });
        if crowded {
            return Err(Refusal::BadAddress);
        }
        Ok(())
    }
}

/// A node's signed *claim* of where it can be reached (PROTOCOL section 4).
pub type AddressRecord = Signed<AddressBody>;

impl Signed<AddressBody> {
    /// Whether it counts now: neither expired nor from the future, whose record would never expire.
    #[must_use]
    pub fn is_current(&self, now: Now) -> bool {
        self.expiry_ms > now.wall_ms && check_time(self.seq, now).is_ok()
    }

    /// Whether everything it names may be told by somebody seen there, or to them: nobody far away names the machines of this site.
    #[must_use]
    pub fn fits(&self, other: SocketAddr) -> bool {
        let mut addresses = self.addresses.iter();
        !self.addresses.is_empty() && addresses.all(|address| address.fits_scope_of(other.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    fn address(text: &str) -> Result<Address, Refusal> {
        Address::new(text.parse().unwrap())
    }

    #[test]
    fn scopes() {
        let cases = [
            ("127.0.0.1", Scope::Loopback),
            ("10.1.2.3", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("169.254.1.1", Scope::LinkLocal),
            ("8.8.8.8", Scope::Global),
            ("0.0.0.0", Scope::Unusable),
            ("255.255.255.255", Scope::Unusable),
            ("224.0.0.1", Scope::Unusable),
            ("192.0.2.1", Scope::Unusable),
            ("::1", Scope::Loopback),
            ("::", Scope::Unusable),
            ("fe80::1", Scope::LinkLocal),
            ("fd00::1", Scope::Private),
            ("2a00:1450::1", Scope::Global),
            ("2001:db8::1", Scope::Unusable),
            ("ff02::1", Scope::Unusable),
            ("::ffff:127.0.0.1", Scope::Loopback),
        ];
        for (ip, scope) in cases {
            assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
        }
    }

    #[test]
    fn only_usable_ports_and_scopes() {
        assert!(address("8.8.8.8:443").is_ok());
        assert!(address("8.8.8.8:4000").is_ok());
        assert_eq!(address("8.8.8.8:53"), Err(Refusal::BadAddress));
        assert_eq!(address("0.0.0.0:4000"), Err(Refusal::BadAddress));
        let mapped = address("[::ffff:8.8.8.8]:4000").unwrap();
        assert_eq!(mapped, address("8.8.8.8:4000").unwrap());
    }

    #[test]
    fn local_addresses_stay_in_their_scope() {
        let (global, loopback) = (
            address("8.8.8.8:4000").unwrap(),
            address("127.0.0.1:4000").unwrap(),
        );
        let (inside, outside) = ("127.0.0.1".parse().unwrap(), "9.9.9.9".parse().unwrap());
        assert!(global.fits_scope_of(inside) && global.fits_scope_of(outside));
        assert!(loopback.fits_scope_of(inside) && !loopback.fits_scope_of(outside));
    }

    #[test]
    fn wire_form_is_packed() {
        for (text, bytes) in [("8.8.8.8:443", 7), ("[2a00::1]:443", 19)] {
            let encoded = codec::encode(&address(text).unwrap());
            assert_eq!(encoded.len(), bytes);
            assert_eq!(codec::decode_canonical::<Address>(&encoded), address(text));
        }
    }

    #[test]
    fn a_record_names_at_most_three_in_a_prefix() {
        let secret = crate::crypto::Secret::from_seed(&[1; 32]);
        let body = |count: u8| AddressBody {
            node_id: secret.node_id(),
            addresses: Bounded::truncated(
                (1..=count)
                    .map(|i| address(&format!("8.8.8.{i}:443")).unwrap())
                    .collect(),
            ),
            is_anchor: 0,
            seq: 1,
            expiry_ms: 2,
        };
        assert_eq!(body(3).check(), Ok(()));
        assert_eq!(body(4).check(), Err(Refusal::BadAddress));
    }
}
