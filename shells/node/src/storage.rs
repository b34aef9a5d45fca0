//! Who uses how much of the disk, shown to a person.

use crate::commands::text;
use crate::output;
use serde_json::Value;

/// Columns of the bar.
const BAR_WIDTH: u64 = 60;

/// Bytes in a unit that is easy to read.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// What takes space, with its sign in the bar.
const PARTS: [(&str, &str, char); 4] = [
    ("own_bytes", "your posts", '#'),
    ("pinned_bytes", "pinned", '+'),
    ("followed_bytes", "people you follow", '='),
    ("hosted_bytes", "kept for others", '-'),
];

/// One line as long as the budget: whatever takes something has a column at least.
fn bar(parts: [u64; 4], budget: u64) -> String {
    let total = parts.iter().sum::<u64>().max(budget).max(1);
    let columns = |part: u64| match part {
        0 => 0,
        _ => (u128::from(part) * u128::from(BAR_WIDTH) / u128::from(total)).max(1) as usize,
    };
    let signs = PARTS.iter().zip(parts);
    let used: String = signs
        .map(|((_, _, sign), part)| sign.to_string().repeat(columns(part)))
        .collect();
    format!("[{used:<width$}]", width = BAR_WIDTH as usize)
}

pub(crate) fn show(result: &Value) {
    let number = |of: &Value, field: &str| of[field].as_u64().unwrap_or_default();
    let budget = number(result, "budget_bytes");
    let parts = PARTS.map(|(field, _, _)| number(result, field));
    let share = |part: u64| format!("{:.1} %", part as f64 * 100.0 / budget.max(1) as f64);
    let at_most = |part: u64, most: &str| {
        let most = share(number(result, most));
        format!("{} of {most} at most", share(part))
    };
    output::line(&bar(parts, budget));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for ((field, name, sign), part) in PARTS.iter().zip(parts) {
        let is_own = *field == "own_bytes";
        let of_budget = match is_own {
            true => at_most(part, "own_bytes_max"),
            false => share(part),
        };
        rows.push(vec![
            sign.to_string(),
            (*name).to_owned(),
            bytes(part),
            of_budget,
        ]);
        if is_own {
            let texts = number(result, "own_row_bytes");
            let of_budget = at_most(texts, "own_row_bytes_max");
            let name = "  of it texts".to_owned();
            rows.push(vec![String::new(), name, bytes(texts), of_budget]);
        }
    }
    let disk = number(result, "disk_bytes");
    let mut more = |name: &str, count: u64| {
        rows.push(vec![String::new(), name.into(), bytes(count), share(count)]);
    };
    more("on the disk, with tables and free pages", disk);
    more("budget", budget);
    output::table(&["", "what", "size", "of the budget"], &rows);
    if result["is_shrinking"] == true {
        output::line("Shrinking: files are being written anew to reach the lowered budget.");
    }
    let going: Vec<Vec<String>> = result["next_to_go"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|post| {
            let short = |field: &str| text(&post[field]).chars().take(8).collect::<String>();
            vec![
                short("post_id"),
                short("author"),
                bytes(number(post, "bytes")),
                format!("{:.2}", post["priority"].as_f64().unwrap_or_default()),
                formula(&post["factors"]),
            ]
        })
        .collect();
    if !going.is_empty() {
        output::line("\nIf room were needed, these would go first:");
        let titles = ["post", "author", "size", "priority", "because"];
        output::table(&titles, &going);
    }
}

/// A priority taken apart, as the rule is written.
fn formula(factors: &Value) -> String {
    let number = |field: &str| factors[field].as_u64().unwrap_or_default();
    let pin = match number("pin_bonus") {
        0 => String::new(),
        bonus => format!("{bonus} + "),
    };
    let divisor = match number("peer_copies") {
        0 => "1".to_owned(),
        1 => "(1 other copy + 1)".to_owned(),
        copies => format!("({copies} other copies + 1)"),
    };
    format!(
        "{pin}relationship {} × hearts {} × age {} / {divisor}",
        number("relationship"),
        number("heart_recency"),
        number("post_age"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_whatever_takes_something_and_the_rest_as_free() {
        assert_eq!(bar([0; 4], 0), format!("[{}]", " ".repeat(60)));
        let shown = bar([1, 0, 300, 300], 1_200);
        assert_eq!(
            shown,
            format!("[#{}{}{}]", "=".repeat(15), "-".repeat(15), " ".repeat(29))
        );
        assert!(bar([u64::MAX / 8; 4], 10).starts_with("[###"));
    }

    #[test]
    fn a_priority_is_taken_apart_as_the_rule_is_written() {
        let factors = |copies: u64, bonus: u64| {
            serde_json::json!({
                "relationship": 8, "heart_recency": 50, "post_age": 100,
                "peer_copies": copies, "pin_bonus": bonus,
            })
        };
        let rule = "relationship 8 × hearts 50 × age 100";
        assert_eq!(formula(&factors(0, 0)), format!("{rule} / 1"));
        assert_eq!(
            formula(&factors(1, 0)),
            format!("{rule} / (1 other copy + 1)")
        );
        assert_eq!(
            formula(&factors(2, 99)),
            format!("99 + {rule} / (2 other copies + 1)")
        );
    }

    #[test]
    fn sizes_are_easy_to_read() {
        let shown = [0, 999, 1_500, 2_000_000, 10_000_000_000].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.5 kB", "2.0 MB", "10.0 GB"]);
    }
}
