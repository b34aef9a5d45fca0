//! Rates and exchanges in flight per peer and packet type (PROTOCOL section 5), as a pure value: the transport and the
//! simulator each hold one per connection.

use super::{Code, PacketSpec};
use crate::refusal::Refusal;

/// Thousandths of a token, so that slow rates fill smoothly.
const MILLI: u64 = 1000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    code: Code,
    in_flight: u16,
    milli_tokens: u32,
    filled_at_ms: u64,
}

/// Token buckets and in-flight counts of one connection; a bucket exists once its packet came, so an idle
/// connection's gate is one empty vector.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    buckets: Vec<Bucket>,
}

impl Gate {
    /// A packet of this kind begins to arrive. Takes a token and a place in flight; give the place back with
    /// [`Gate::finish`] when it was read, answered or dropped.
    ///
    /// # Errors
    /// [`Refusal::RateExceeded`] or [`Refusal::TooManyInFlight`]; nothing was taken then.
    pub fn begin(&mut self, spec: &PacketSpec, now_ms: u64) -> Result<(), Refusal> {
        let full = u64::from(spec.burst) * MILLI;
        let bucket = match self
            .buckets
            .iter_mut()
            .position(|bucket| bucket.code == spec.code)
        {
            Some(index) => &mut self.buckets[index],
            None => {
                self.buckets.push(Bucket {
                    code: spec.code,
                    in_flight: 0,
                    milli_tokens: full as u32,
                    filled_at_ms: now_ms,
                });
                self.buckets.last_mut().expect("just pushed")
            }
        };
        let elapsed_ms = now_ms.saturating_sub(bucket.filled_at_ms);
        let gained = elapsed_ms.saturating_mul(u64::from(spec.per_minute)) / 60;
        if gained > 0 {
            bucket.milli_tokens =
                (u64::from(bucket.milli_tokens).saturating_add(gained)).min(full) as u32;
            bucket.filled_at_ms = now_ms;
        }
        if u32::from(bucket.in_flight) >= spec.in_flight_max {
            return Err(Refusal::TooManyInFlight);
        }
        if u64::from(bucket.milli_tokens) < MILLI {
            return Err(Refusal::RateExceeded);
        }
        bucket.milli_tokens -= MILLI as u32;
        bucket.in_flight += 1;
        Ok(())
    }

    /// The packet that [`Gate::begin`] let in is done with.
    pub fn finish(&mut self, code: Code) {
        if let Some(bucket) = self.buckets.iter_mut().find(|bucket| bucket.code == code) {
            bucket.in_flight = bucket.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Direction, Layer};
    use proptest::prelude::*;

    const SPEC: PacketSpec = PacketSpec {
        code: 0x35,
        name: "Test",
        direction: Direction::Notification,
        layer: Layer::Files,
        bytes_max: 100,
        burst: 5,
        per_minute: 60,
        in_flight_max: 3,
    };

    #[test]
    fn a_burst_then_the_rate() {
        let mut gate = Gate::default();
        let mut offer = |now_ms| {
            let result = gate.begin(&SPEC, now_ms);
            if result.is_ok() {
                gate.finish(SPEC.code);
            }
            result
        };
        assert!((0..5).all(|_| offer(0).is_ok()));
        assert_eq!(offer(0), Err(Refusal::RateExceeded));
        assert_eq!(offer(999), Err(Refusal::RateExceeded));
        assert_eq!(offer(1000), Ok(()));
        assert_eq!(offer(1001), Err(Refusal::RateExceeded));
    }

    #[test]
    fn exchanges_in_flight_are_bounded() {
        let mut gate = Gate::default();
        assert!((0..3).all(|_| gate.begin(&SPEC, 0).is_ok()));
        assert_eq!(gate.begin(&SPEC, 0), Err(Refusal::TooManyInFlight));
        gate.finish(SPEC.code);
        assert_eq!(gate.begin(&SPEC, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_plus_rate(gaps in proptest::collection::vec(0u64..5_000, 1..300)) {
            let mut gate = Gate::default();
            let (mut now_ms, mut passed) = (0, 0u64);
            for gap in gaps {
                now_ms += gap;
                if gate.begin(&SPEC, now_ms).is_ok() {
                    passed += 1;
                    gate.finish(SPEC.code);
                }
                prop_assert!(passed <= 5 + now_ms * 60 / 60_000);
            }
        }
    }
}
