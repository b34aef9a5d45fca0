//! Time as a value: the driver says what time it is, nobody asks a clock.

use bevy_ecs::prelude::Resource;

/// The time of one frame.
///
/// Periods and timeouts run on `mono_ms`; records and everything a person sees carry `wall_ms`.
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since an arbitrary start; never goes back.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch; may jump when the person or NTP sets the clock.
    pub wall_ms: u64,
}

impl Now {
    /// A mono time `after_ms` from now, saturating.
    #[must_use]
    pub fn after(&self, after_ms: u64) -> u64 {
        self.mono_ms.saturating_add(after_ms)
    }
}
