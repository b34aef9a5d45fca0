//! The Range header: one range of bytes or none.

use std::ops::Range;

/// What part of something is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: nothing else was asked, or what may be answered with everything (another unit, several ranges).
    All,
    /// These bytes, at least one.
    One(Range<u64>),
    /// Bytes that it does not have, or what is no range at all.
    None,
}

/// Reads the header for something of this length.
pub(crate) fn part_of(header: Option<&str>, length: u64) -> Part {
    let Some(wanted) = header.and_then(|header| header.trim().strip_prefix("bytes=")) else {
        return Part::All;
    };
    if wanted.contains(',') {
        return Part::All;
    }
    let Some((first, last)) = wanted.split_once('-') else {
        return Part::None;
    };
    // Rust takes "+5" for a number; HTTP does not. What has more digits than there are bytes anywhere is past every end.
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let range = match (first.trim(), last.trim()) {
        ("", last) => number(last).map(|bytes| length.saturating_sub(bytes)..length),
        (first, "") => number(first).map(|first| first..length),
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {
                Some(first..last.saturating_add(1).min(length))
            }
            _ => None,
        },
    };
    match range.filter(|range| range.start < range.end) {
        Some(range) => Part::One(range),
        None => Part::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_taken_and_what_is_none_is_told() {
        let cases: &[(&str, Part)] = &[
            ("bytes=0-0", Part::One(0..1)),
            ("bytes=0-99", Part::One(0..100)),
            ("bytes=10-19", Part::One(10..20)),
            ("bytes=90-", Part::One(90..100)),
            ("bytes=-10", Part::One(90..100)),
            ("bytes=-1000", Part::One(0..100)),
            ("bytes=50-18446744073709551615", Part::One(50..100)),
            ("bytes=50-18446744073709551616", Part::One(50..100)),
            ("bytes=50-99999999999999999999999999", Part::One(50..100)),
            ("bytes=-18446744073709551616", Part::One(0..100)),
            ("bytes=100-", Part::None),
            ("bytes=100-200", Part::None),
            ("bytes=20-10", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=-", Part::None),
            ("bytes=", Part::None),
            ("bytes=x-y", Part::None),
            ("bytes=+1-+2", Part::None),
            ("bytes=99999999999999999999-", Part::None),
            ("bytes=0-1,5-6", Part::All),
            ("lines=0-1", Part::All),
            ("", Part::All),
        ];
        for (header, part) in cases {
            assert_eq!(part_of(Some(header), 100), *part, "{header}");
        }
        assert_eq!(part_of(None, 100), Part::All);
    }
}
