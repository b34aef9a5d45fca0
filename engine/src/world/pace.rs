//! How often something may be done: once in so long, and some times at once.

/// What has been used of a pace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// The time up to which all is used: mono ms. It never lies further ahead than what may be done at once takes.
    spent_ms: u64,
}

impl Pace {
    /// When it may be done next, once every `every_ms` and `at_once` times at once: mono ms; `None` means at once.
    #[must_use]
    pub fn next_ms(&self, now_ms: u64, every_ms: u64, at_once: u64) -> Option<u64> {
        let free_ms = (self.spent_ms + every_ms).saturating_sub(at_once * every_ms);
        (free_ms > now_ms).then_some(free_ms)
    }

    /// It is done.
    pub fn spend(&mut self, now_ms: u64, every_ms: u64) {
        self.spent_ms = self.spent_ms.max(now_ms) + every_ms;
    }

    /// Whether nothing of it is used any more.
    #[must_use]
    pub fn is_rested(&self, now_ms: u64) -> bool {
        self.spent_ms <= now_ms
    }
}
