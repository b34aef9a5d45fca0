//! What each layer takes a day, which is how PROTOCOL section 3 states its budgets. Days are those of UTC.

use distsoc_net::TrafficRow;
use std::collections::VecDeque;

/// Days remembered beside today.
const DAYS_MAX: usize = 7;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The bytes of a day.
#[derive(Clone, Debug, PartialEq)]
pub struct DayTraffic {
    /// Days since the Unix epoch.
    pub day: u64,
    /// By layer and cause.
    pub rows: Vec<TrafficRow>,
}

/// Today and the days before it, since the start.
#[derive(Debug, Default)]
pub(crate) struct TrafficDays {
    today: u64,
    /// The counters when today began.
    before: Vec<TrafficRow>,
    past: VecDeque<DayTraffic>,
}

/// What was counted since.
fn since(before: &[TrafficRow], totals: &[TrafficRow]) -> Vec<TrafficRow> {
    let grown = totals.iter().map(|row| {
        let same = |other: &&TrafficRow| (other.layer, other.cause) == (row.layer, row.cause);
        let earlier = before.iter().find(same);
        let less = |bytes: u64, field: fn(&TrafficRow) -> u64| {
            bytes.saturating_sub(earlier.map_or(0, field))
        };
        TrafficRow {
            in_bytes: less(row.in_bytes, |row| row.in_bytes),
            out_bytes: less(row.out_bytes, |row| row.out_bytes),
            ..*row
        }
    });
    grown
        .filter(|row| row.in_bytes + row.out_bytes > 0)
        .collect()
}

impl TrafficDays {
    /// Closes the day that was, where a new one has begun.
    pub(crate) fn turn(&mut self, wall_ms: u64, totals: impl FnOnce() -> Vec<TrafficRow>) {
        let day = wall_ms / DAY_MS;
        // A clock that was a little wrong opens no day twice; one that was far ahead did not mean it.
        if day == self.today || day + 1 == self.today {
            return;
        }
        let totals = totals();
        if day < self.today {
            self.past.clear();
            (self.today, self.before) = (day, totals);
            return;
        }
        if self.today > 0 {
            let rows = since(&self.before, &totals);
            self.past.push_front(DayTraffic {
                day: self.today,
                rows,
            });
            self.past.truncate(DAYS_MAX);
        }
        (self.today, self.before) = (day, totals);
    }

    /// Today, and the days before it.
    pub(crate) fn all(&self, totals: &[TrafficRow]) -> Vec<DayTraffic> {
        let today = DayTraffic {
            day: self.today,
            rows: since(&self.before, totals),
        };
        std::iter::once(today)
            .chain(self.past.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::wire::Layer;

    fn rows(diffs: u64, hellos: u64) -> Vec<TrafficRow> {
        let row = |layer, cause, bytes| TrafficRow {
            layer,
            cause,
            in_bytes: bytes,
            out_bytes: 2 * bytes,
        };
        let both = [
            row(Layer::Connection, "Hello", hellos),
            row(Layer::Discovery, "RoutingDiff", diffs),
        ];
        both.into_iter().filter(|row| row.in_bytes > 0).collect()
    }

    #[test]
    fn bytes_count_for_the_day_on_which_they_came() {
        let mut days = TrafficDays::default();
        let day = |number: u64| number * DAY_MS;
        days.turn(day(100) + 5, || rows(0, 0));
        assert_eq!(days.all(&rows(10, 0))[0].rows, rows(10, 0));
        days.turn(day(101) - 1, || unreachable!("it is the same day"));
        days.turn(day(101), || rows(10, 1));
        let all = days.all(&rows(15, 1));
        assert_eq!((all[0].day, &all[0].rows), (101, &rows(5, 0)));
        assert_eq!((all[1].day, &all[1].rows), (100, &rows(10, 1)));
        days.turn(day(101) - 1, || unreachable!("the clock went back"));
        // A clock that was far ahead.
        days.turn(day(5_000), || rows(15, 1));
        days.turn(day(101), || rows(15, 1));
        assert_eq!(days.all(&rows(15, 1)).len(), 1);
        for number in 102..150 {
            days.turn(day(number), || rows(15, 1));
        }
        let all = days.all(&rows(15, 1));
        assert_eq!((all.len(), all[0].day), (1 + DAYS_MAX, 149));
        assert!(all.iter().all(|day| day.rows.is_empty()));
    }
}
