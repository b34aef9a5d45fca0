//! PROTOCOL section 5: the accept side stays calm. What is dropped here costs one look-up and is counted.

use crate::limits;
use distsoc_engine::domain::Scope;
use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// An IPv4 address or an IPv6 /56: the unit in which handshakes are counted.
fn unit_of(ip: IpAddr) -> [u8; 8] {
    let mut unit = [0; 8];
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            unit[0] = 4;
            unit[1..5].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            unit[0] = 6;
            unit[1..8].copy_from_slice(&v6.octets()[..7]);
        }
    }
    unit
}

/// Handshakes begun by one unit in the current second and in the time a handshake may take.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    second: u64,
    in_second: u32,
    window: u64,
    in_window: u32,
}

impl Begun {
    fn permit(&mut self, now_ms: u64, per_second: u32, in_flight: u32) -> bool {
        let (second, window) = (now_ms / 1000, now_ms / limits::HANDSHAKE_MS_MAX);
        if self.second != second {
            (self.second, self.in_second) = (second, 0);
        }
        if self.window != window {
            (self.window, self.in_window) = (window, 0);
        }
        if self.in_second >= per_second || self.in_window >= in_flight {
            return false;
        }
        self.in_second += 1;
        self.in_window += 1;
        true
    }
}

/// What becomes of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Retry,
    Drop,
}

/// The accept limits of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct AcceptLimits {
    begun: BTreeMap<[u8; 8], Begun>,
    dropped: Arc<AtomicU32>,
    stopping: Arc<AtomicBool>,
}

impl AcceptLimits {
    /// Counts what it drops into `dropped`; refuses everybody once `stopping` is set.
    pub(crate) fn new(dropped: Arc<AtomicU32>, stopping: Arc<AtomicBool>) -> Self {
        Self {
            begun: BTreeMap::new(),
            dropped,
            stopping,
        }
    }

    fn judge(&mut self, ip: IpAddr, in_flight: usize, now_ms: u64) -> Verdict {
        let (per_second, per_address) = match Scope::of(ip).is_local() {
            true => (
                limits::LOCAL_HANDSHAKES_PER_SECOND_MAX,
                limits::LOCAL_HANDSHAKES_PER_ADDRESS_MAX,
            ),
            false => (
                limits::HANDSHAKES_PER_SECOND_MAX,
                limits::HANDSHAKES_PER_ADDRESS_MAX,
            ),
        };
        let unit = unit_of(ip);
        if self.begun.len() >= limits::ADDRESSES_COUNTED_MAX && !self.begun.contains_key(&unit) {
            let window = now_ms / limits::HANDSHAKE_MS_MAX;
            self.begun.retain(|_, begun| begun.window == window);
        }
        // With every place taken within one window, whoever is new waits for the next.
        let full =
            self.begun.len() >= limits::ADDRESSES_COUNTED_MAX && !self.begun.contains_key(&unit);
        if full || in_flight >= limits::HANDSHAKES_MAX {
            return Verdict::Drop;
        }
        if !self
            .begun
            .entry(unit)
            .or_default()
            .permit(now_ms, per_second, per_address)
        {
            return Verdict::Drop;
        }
        match in_flight > limits::HANDSHAKES_BEFORE_RETRY {
            true => Verdict::Retry,
            false => Verdict::Allow,
        }
    }
}

impl Limiter for AcceptLimits {
    fn on_connection_attempt(&mut self, attempt: &ConnectionAttempt<'_>) -> Outcome {
        if self.stopping.load(Relaxed) {
            return Outcome::close();
        }
        let remote: SocketAddr = attempt
            .remote_address
            .to_string()
            .parse()
            .unwrap_or(UNKNOWN);
        match self.judge(
            remote.ip(),
            attempt.inflight_handshakes,
            crate::runtime::mono_ms(),
        ) {
            Verdict::Allow => Outcome::allow(),
            Verdict::Retry => Outcome::retry(),
            Verdict::Drop => {
                self.dropped.fetch_add(1, Relaxed);
                Outcome::drop()
            }
        }
    }
}

/// Stands for an address that s2n-quic could not name; counted like any other.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_gets_ten_a_second_and_the_others_do_not_notice() {
        let mut accept = AcceptLimits::default();
        let allowed = |accept: &mut AcceptLimits, from: &str, now_ms| {
            (0..1000)
                .filter(|_| accept.judge(ip(from), 0, now_ms) == Verdict::Allow)
                .count()
        };
        assert_eq!(allowed(&mut accept, "8.8.8.8", 0), 10);
        assert_eq!(allowed(&mut accept, "9.9.9.9", 0), 10);
        assert_eq!(allowed(&mut accept, "2a00::1", 0), 10);
        assert_eq!(allowed(&mut accept, "2a00::2:1", 0), 0, "the same /56");
        assert_eq!(allowed(&mut accept, "8.8.8.8", 1000), 10);
        let rest = allowed(&mut accept, "8.8.8.8", 2000) + allowed(&mut accept, "8.8.8.8", 3000);
        assert_eq!(rest, 12, "32 within the time a handshake may take");
    }

    #[test]
    fn many_in_flight_have_to_prove_their_address() {
        let mut accept = AcceptLimits::default();
        assert_eq!(accept.judge(ip("8.8.8.8"), 64, 0), Verdict::Allow);
        assert_eq!(accept.judge(ip("8.8.8.8"), 65, 0), Verdict::Retry);
        assert_eq!(
            accept.judge(ip("8.8.8.8"), limits::HANDSHAKES_MAX, 0),
            Verdict::Drop
        );
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let mut accept = AcceptLimits::default();
        for number in 0..100_000u32 {
            let from = IpAddr::from((0x0800_0000 + number).to_be_bytes());
            accept.judge(from, 0, 5);
        }
        assert_eq!(accept.begun.len(), limits::ADDRESSES_COUNTED_MAX);
        assert_eq!(
            accept.judge(ip("9.9.9.9"), 0, limits::HANDSHAKE_MS_MAX),
            Verdict::Allow
        );
    }
}
