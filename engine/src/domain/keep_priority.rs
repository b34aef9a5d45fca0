//! What a stored file is worth keeping for (PROTOCOL section 7, keep priority): decided from values alone, exactly.
//!
//! Every input has few values, so there are few classes of files: those of one class are worth the same, whatever else they are.

/// What one has to do with a file's author. Own files have no priority: they are never evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum AuthorStanding {
    /// Nothing, and two hearts at most.
    Unknown,
    /// Has more than 2 hearts from the network.
    Noticed,
    /// Has more than 3.
    Liked,
    /// Has more than 10.
    Popular,
    /// One follows the author.
    Followed,
    /// One is in the author's audience.
    Audience,
}

impl AuthorStanding {
    /// All, the least first.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Noticed,
        Self::Liked,
        Self::Popular,
        Self::Followed,
        Self::Audience,
    ];

    /// Of somebody one has nothing to do with, by the hearts that count.
    #[must_use]
    pub const fn of_hearts(hearts: u32) -> Self {
        match hearts {
            0..=2 => Self::Unknown,
            3 => Self::Noticed,
            4..=10 => Self::Liked,
            _ => Self::Popular,
        }
    }

    /// The factor of the rule.
    #[must_use]
    pub const fn factor(self) -> u32 {
        [1, 2, 3, 5, 8, 10][self as usize]
    }
}

/// How long ago something was, in the rule's windows: each reaches up to the next one's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgeWindow(u8);

const DAY_S: u32 = 24 * 60 * 60;

impl AgeWindow {
    /// Where each window but the last ends, seconds.
    pub const ENDS_S: [u32; 6] = [
        3 * DAY_S,
        14 * DAY_S,
        45 * DAY_S,
        90 * DAY_S,
        365 * DAY_S,
        4 * 365 * DAY_S,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ENDS_S.len() + 1;
    /// Older than all others, or never.
    pub const LAST: Self = Self(Self::ENDS_S.len() as u8);

    /// The window of an age in seconds.
    #[must_use]
    #[inline]
    pub const fn of(age_s: u32) -> Self {
        let ends = Self::ENDS_S;
        // Sums instead of branches: a pass over all files goes through them several at a time.
        Self(
            (age_s >= ends[0]) as u8
                + (age_s >= ends[1]) as u8
                + (age_s >= ends[2]) as u8
                + (age_s >= ends[3]) as u8
                + (age_s >= ends[4]) as u8
                + (age_s >= ends[5]) as u8,
        )
    }

    /// When something of this time passes into the next window, seconds; `None` in the last.
    #[must_use]
    pub fn ends_at_s(self, since_s: u32) -> Option<u32> {
        let end_s = *Self::ENDS_S.get(usize::from(self.0))?;
        Some(since_s.saturating_add(end_s))
    }

    /// The factor of the rule, for hearts and for age alike.
    #[must_use]
    pub const fn factor(self) -> u32 {
        [100, 50, 25, 12, 6, 3, 1][self.0 as usize]
    }
}

/// Holders count up to this.
pub const PEER_COPIES_MAX: u8 = 20;

/// What a pin adds.
pub const PIN_BONUS: u64 = 99_999;

/// The least common multiple of all that a priority may be divided by: times this, every priority is whole.
const SCALE: u64 = 232_792_560;

/// All that a file's priority follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepFacts {
    /// Its author.
    pub standing: AuthorStanding,
    /// When the newest heart that counts was given.
    pub hearted: AgeWindow,
    /// When it was written.
    pub written: AgeWindow,
    /// Counted holders, at most [`PEER_COPIES_MAX`].
    pub copies: u8,
    /// The person pinned it.
    pub is_pinned: bool,
}

/// The number of a set of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeepClass(u16);

impl KeepClass {
    /// How many there are.
    pub const COUNT: usize =
        2 * AuthorStanding::ALL.len() * AgeWindow::COUNT * AgeWindow::COUNT * Self::COPIES;
    const COPIES: usize = PEER_COPIES_MAX as usize + 1;

    /// Every class.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u16).map(Self)
    }

    /// Its place in a table of all classes.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// What files of this class are.
    #[must_use]
    pub fn facts(self) -> KeepFacts {
        let (rest, copies) = (self.index() / Self::COPIES, self.index() % Self::COPIES);
        let (rest, written) = (rest / AgeWindow::COUNT, rest % AgeWindow::COUNT);
        let (rest, hearted) = (rest / AgeWindow::COUNT, rest % AgeWindow::COUNT);
        let standings = AuthorStanding::ALL.len();
        KeepFacts {
            standing: AuthorStanding::ALL[rest % standings],
            hearted: AgeWindow(hearted as u8),
            written: AgeWindow(written as u8),
            copies: copies as u8,
            is_pinned: rest >= standings,
        }
    }
}

impl KeepFacts {
    /// Which class this is.
    #[must_use]
    #[inline]
    pub fn class(&self) -> KeepClass {
        let copies = u16::from(self.copies.min(PEER_COPIES_MAX));
        let windows = AgeWindow::COUNT as u16;
        let pinned = u16::from(self.is_pinned) * AuthorStanding::ALL.len() as u16;
        let standing = pinned + self.standing as u16;
        let ages = (standing * windows + u16::from(self.hearted.0)) * windows;
        KeepClass((ages + u16::from(self.written.0)) * KeepClass::COPIES as u16 + copies)
    }

    /// The priority.
    #[must_use]
    #[inline]
    pub fn priority(&self) -> KeepPriority {
        let product = self.standing.factor() * self.hearted.factor() * self.written.factor();
        let shared = SCALE / (u64::from(self.copies.min(PEER_COPIES_MAX)) + 1);
        let bonus = u64::from(self.is_pinned) * PIN_BONUS * SCALE;
        KeepPriority(u64::from(product) * shared + bonus)
    }
}

/// `pin_bonus + relationship × heart_recency × post_age / (peer_copies + 1)`, exactly. The higher is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeepPriority(u64);

impl KeepPriority {
    /// For a person.
    #[must_use]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / SCALE as f64
    }

    /// At least so much.
    #[must_use]
    pub fn is_at_least(self, whole: u64) -> bool {
        self.0 >= whole * SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_S: u32 = 3600;

    fn facts(standing: AuthorStanding, hearted_s: u32, written_s: u32, copies: u8) -> KeepFacts {
        KeepFacts {
            standing,
            hearted: AgeWindow::of(hearted_s),
            written: AgeWindow::of(written_s),
            copies,
            is_pinned: false,
        }
    }

    /// PROTOCOL section 7, checked examples.
    #[test]
    fn the_examples_of_the_protocol() {
        let rounded = |facts: KeepFacts, digits: i32| {
            let scale = 10f64.powi(digits);
            (facts.priority().to_f64() * scale).round() / scale
        };
        let of_audience = facts(AuthorStanding::Audience, 0, DAY_S, 0);
        assert_eq!(rounded(of_audience, 0), 100_000.0);
        let followed = facts(AuthorStanding::Followed, 2 * DAY_S, 7 * DAY_S, 2);
        assert_eq!(rounded(followed, 0), 13_333.0);
        let popular = facts(AuthorStanding::of_hearts(11), DAY_S, DAY_S, 20);
        assert_eq!(rounded(popular, 0), 2_381.0);
        // Hearted as long ago as it was written: 3 × 6 × 6 / 9.
        let liked = facts(AuthorStanding::of_hearts(4), 182 * DAY_S, 182 * DAY_S, 8);
        assert_eq!(rounded(liked, 0), 12.0);
        let unknown = facts(AuthorStanding::Unknown, u32::MAX, 5 * 365 * DAY_S, 10);
        assert_eq!(rounded(unknown, 2), 0.09);
    }

    #[test]
    fn a_window_reaches_up_to_the_start_of_the_next() {
        let factor = |age_s| AgeWindow::of(age_s).factor();
        let starts = [
            (0, 100),
            (72 * HOUR_S, 50),
            (14 * DAY_S, 25),
            (45 * DAY_S, 12),
            (90 * DAY_S, 6),
            (365 * DAY_S, 3),
            (4 * 365 * DAY_S, 1),
        ];
        for (place, (start_s, of_it)) in starts.into_iter().enumerate() {
            assert_eq!(factor(start_s), of_it);
            if place > 0 {
                assert_eq!(factor(start_s - 1), starts[place - 1].1);
            }
        }
        assert_eq!((factor(3 * 365 * DAY_S), factor(u32::MAX)), (3, 1));
        assert_eq!(AgeWindow::of(u32::MAX), AgeWindow::LAST);
    }

    #[test]
    fn a_window_says_when_it_ends() {
        for since_s in [0, 1_700_000_000] {
            let mut at_s = since_s;
            for place in 0..AgeWindow::COUNT {
                let window = AgeWindow::of(at_s - since_s);
                assert_eq!(window, AgeWindow(place as u8));
                match window.ends_at_s(since_s) {
                    Some(end_s) => {
                        assert_eq!(AgeWindow::of(end_s - 1 - since_s), window);
                        at_s = end_s;
                    }
                    None => assert_eq!(window, AgeWindow::LAST),
                }
            }
        }
    }

    #[test]
    fn hearts_of_the_network_raise_an_author_only_past_each_step() {
        let factors = [0, 2, 3, 4, 10, 11].map(|hearts| AuthorStanding::of_hearts(hearts).factor());
        assert_eq!(factors, [1, 1, 2, 3, 3, 5]);
    }

    #[test]
    fn a_pin_is_added_after_the_division_so_that_pins_compete() {
        let plain = facts(AuthorStanding::Followed, 0, 0, 4);
        let pinned = KeepFacts {
            is_pinned: true,
            ..plain
        };
        let of = |facts: KeepFacts| facts.priority().to_f64();
        assert_eq!((of(plain), of(pinned)), (16_000.0, 115_999.0));
        let worst = KeepFacts {
            is_pinned: true,
            ..facts(AuthorStanding::Unknown, u32::MAX, u32::MAX, 20)
        };
        let best = facts(AuthorStanding::Audience, 0, 0, 0);
        assert!(worst.priority() < best.priority());
        assert!(worst.priority() < pinned.priority());
    }

    #[test]
    fn every_class_stands_for_its_facts_and_no_others() {
        let mut seen = std::collections::BTreeSet::new();
        for class in KeepClass::all() {
            let facts = class.facts();
            assert_eq!(facts.class(), class);
            assert!(seen.insert(class));
            let product = f64::from(
                facts.standing.factor() * facts.hearted.factor() * facts.written.factor(),
            );
            let bonus = if facts.is_pinned { 99_999.0 } else { 0.0 };
            let by_formula = bonus + product / (f64::from(facts.copies) + 1.0);
            assert!((facts.priority().to_f64() - by_formula).abs() < 1e-6);
        }
        assert_eq!(seen.len(), KeepClass::COUNT);
        let many = facts(AuthorStanding::Unknown, 0, 0, u8::MAX);
        let capped = facts(AuthorStanding::Unknown, 0, 0, PEER_COPIES_MAX);
        assert_eq!(many.class(), capped.class());
        assert_eq!(many.priority(), capped.priority());
    }
}
