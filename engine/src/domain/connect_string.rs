//! `NodeId@host:port`: what a person gives to another so that they find each other (PROTOCOL section 4).

use super::NodeId;
use super::address::Address;
use super::ids::IdError;
use crate::crypto::PublicKey;
use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where to dial: an IP literal or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// IPv4, or IPv6 in brackets.
    Ip(IpAddr),
    /// A DNS name, resolved by the driver when it is dialled.
    Name(String),
}

/// Why a text is no connect string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectStringError {
    /// Over the limit.
    #[error(
        "a connect string has at most {} bytes",
        limits::CONNECT_STRING_BYTES_MAX
    )]
    TooLong,
    /// No `@`.
    #[error("a connect string is NODE_ID@HOST:PORT, this has no '@'")]
    NoAt,
    /// The part before `@` is no id.
    #[error("the part before '@': {0}")]
    NodeId(#[from] IdError),
    /// The id is no usable key.
    #[error("the part before '@' is not a curve point that anyone could hold the key of")]
    NotAKey,
    /// No port.
    #[error("a connect string ends in ':PORT', this has no port")]
    NoPort,
    /// Not a port.
    #[error("'{0}' is no port: ports go from 1 to 65535")]
    Port(String),
    /// Not a host.
    #[error("'{0}' is no host: an IPv4 address, an IPv6 address in brackets, or a DNS name")]
    Host(String),
    /// An address that nobody can be dialled at.
    #[error(
        "nobody can be reached at {0}: not a usable address, or a port below 1024 that is not 443"
    )]
    Unusable(SocketAddr),
    /// Something other than `?invite=TOKEN` at the end.
    #[error("only '?invite=TOKEN' may follow the port, with 1 to 64 letters and digits")]
    Invite,
    /// The reader's own id.
    #[error("this is your own connect string")]
    Own,
}

/// A parsed and checked connect string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectString {
    node_id: NodeId,
    host: Host,
    port: u16,
    invite: Option<String>,
}

impl ConnectString {
    /// The connect string of a node at an IP address.
    #[must_use]
    pub fn at(node_id: NodeId, address: SocketAddr) -> Self {
        Self {
            node_id,
            host: Host::Ip(address.ip()),
            port: address.port(),
            invite: None,
        }
    }

    /// Who is to be found there.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Where.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The UDP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The invite token, if it has one.
    #[must_use]
    pub fn invite(&self) -> Option<&str> {
        self.invite.as_deref()
    }

    /// The address, where the host is an IP literal.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self.host {
            Host::Ip(ip) => Address::new(SocketAddr::new(ip, self.port)).ok(),
            Host::Name(_) => None,
        }
    }

    /// Refuses one's own.
    ///
    /// # Errors
    /// [`ConnectStringError::Own`].
    pub fn not_of(self, own: NodeId) -> Result<Self, ConnectStringError> {
        if self.node_id == own {
            return Err(ConnectStringError::Own);
        }
        Ok(self)
    }
}

impl std::str::FromStr for ConnectString {
    type Err = ConnectStringError;

    fn from_str(text: &str) -> Result<Self, ConnectStringError> {
        let text = text.trim();
        if text.len() > limits::CONNECT_STRING_BYTES_MAX {
            return Err(ConnectStringError::TooLong);
        }
        let (id, rest) = text.split_once('@').ok_or(ConnectStringError::NoAt)?;
        let node_id: NodeId = id.parse()?;
        PublicKey::check(node_id).map_err(|_| ConnectStringError::NotAKey)?;
        let (place, invite) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(parse_invite(query)?)),
            None => (rest, None),
        };
        let (host, port) = split_port(place)?;
        let host = parse_host(host)?;
        if let Host::Ip(ip) = host {
            let address = SocketAddr::new(ip, port);
            Address::new(address).map_err(|_| ConnectStringError::Unusable(address))?;
        }
        Ok(Self {
            node_id,
            host,
            port,
            invite,
        })
    }
}

fn split_port(place: &str) -> Result<(&str, u16), ConnectStringError> {
    let (host, port) = match place.rsplit_once(':') {
        // `[::1]` without a port also has colons.
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => return Err(ConnectStringError::NoPort),
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if digits && number > 0 => Ok((host, number)),
        _ => Err(ConnectStringError::Port(port.into())),
    }
}

fn parse_host(host: &str) -> Result<Host, ConnectStringError> {
    let wrong = || ConnectStringError::Host(host.into());
    if let Some(inside) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inside
            .parse::<Ipv6Addr>()
            .map(|ip| Host::Ip(ip.into()))
            .map_err(|_| wrong());
    }
    if let Ok(ip) = host.parse::<std::net::Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let all_digits = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let last = host.rsplit('.').next().unwrap_or_default();
    if host.len() > 253 || !host.split('.').all(label_fits) || all_digits(last) {
        return Err(wrong());
    }
    Ok(Host::Name(host.to_ascii_lowercase()))
}

fn parse_invite(query: &str) -> Result<String, ConnectStringError> {
    let token = query
        .strip_prefix("invite=")
        .ok_or(ConnectStringError::Invite)?;
    let fits =
        (1..=64).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| token.to_owned())
        .ok_or(ConnectStringError::Invite)
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.node_id)?;
        match &self.host {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            Host::Ip(ip) => write!(f, "{ip}")?,
            Host::Name(name) => f.write_str(name)?,
        }
        write!(f, ":{}", self.port)?;
        match &self.invite {
            Some(token) => write!(f, "?invite={token}"),
            None => Ok(()),
        }
    }
}

impl Serialize for ConnectString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConnectString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| de::Error::custom("out-of-range"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> NodeId {
        crate::crypto::Secret::from_seed(&[9; 32]).node_id()
    }

    fn parse(place: &str) -> Result<ConnectString, ConnectStringError> {
        format!("{}@{place}", id()).parse()
    }

    #[test]
    fn the_three_kinds_of_host() {
        for place in [
            "8.8.8.8:4000",
            "[2a00::1]:443",
            "anchor.example.org:4000",
            "host:4000?invite=abc123",
        ] {
            let parsed = parse(place).unwrap();
            assert_eq!(parsed.to_string(), format!("{}@{place}", id()));
            assert_eq!(parsed.clone().not_of(id()), Err(ConnectStringError::Own));
        }
    }

    #[test]
    fn errors_are_precise() {
        use ConnectStringError as E;
        assert_eq!("abc".parse::<ConnectString>(), Err(E::NoAt));
        assert_eq!(
            "abc@h:1".parse::<ConnectString>(),
            Err(E::NodeId(IdError::Length(3)))
        );
        let not_hex = format!("{}@h:1", "x".repeat(64));
        assert_eq!(
            not_hex.parse::<ConnectString>(),
            Err(E::NodeId(IdError::NotHex('x')))
        );
        let no_key = format!("02{}@h:4000", "0".repeat(62));
        assert_eq!(no_key.parse::<ConnectString>(), Err(E::NotAKey));
        assert_eq!(parse("host"), Err(E::NoPort));
        assert_eq!(parse("[::1]"), Err(E::NoPort));
        assert_eq!(parse("host:"), Err(E::Port(String::new())));
        assert_eq!(parse("host:0"), Err(E::Port("0".into())));
        assert_eq!(parse("host:70000"), Err(E::Port("70000".into())));
        assert_eq!(parse("host:+80"), Err(E::Port("+80".into())));
        assert_eq!(parse("ho st:4000"), Err(E::Host("ho st".into())));
        assert_eq!(parse("1.2.3:4000"), Err(E::Host("1.2.3".into())));
        assert_eq!(parse("::1:4000"), Err(E::Host("::1".into())));
        assert_eq!(
            parse("8.8.8.8:53"),
            Err(E::Unusable("8.8.8.8:53".parse().unwrap()))
        );
        assert_eq!(parse("h:4000?x=1"), Err(E::Invite));
        assert_eq!(parse(&format!("{}:4000", "h".repeat(600))), Err(E::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_and_parses_again(text in "\\PC{0,90}", place in "[a-z0-9.:\\[\\]?=-]{1,40}") {
            for text in [text, format!("{}@{place}", id())] {
                if let Ok(parsed) = text.parse::<ConnectString>() {
                    prop_assert_eq!(parsed.to_string().parse::<ConnectString>(), Ok(parsed));
                }
            }
        }
    }
}
