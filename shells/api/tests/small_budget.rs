//! What is said where a small budget has no room for what a person publishes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Besieged, PATIENCE, status};
use distsoc_net::runtime::{block_on, sleep, timeout};
use std::time::Duration;

const BUDGET_BYTES: usize = 64_000_000;

/// A node with the least budget that there is.
fn start() -> Besieged {
    let node = Besieged::start();
    let set = format!(r#"{{"method":"storage_set","params":{{"budget_bytes":{BUDGET_BYTES}}}}}"#);
    assert_eq!(status(&node.call(&set)), 200);
    let is_set = timeout(PATIENCE, async {
        let set = format!("\"budget_bytes\":{BUDGET_BYTES},");
        while !node.call(r#"{"method":"storage"}"#).contains(&set) {
            sleep(Duration::from_millis(10)).await;
        }
    });
    block_on(is_set).expect("the budget is another within 30 s");
    node
}

#[test]
fn texts_past_what_the_budget_has_for_them_are_told_from_a_full_disk() {
    let node = start();
    let post = |number: usize| {
        let text = format!("{number} {}", "x".repeat(16_000));
        node.call(&format!(
            r#"{{"method":"post","params":{{"text":"{text}"}}}}"#
        ))
    };
    let mut taken = 0;
    let said = loop {
        let said = post(taken);
        if status(&said) != 200 {
            break said;
        }
        taken += 1;
        assert!(taken * 16_000 < BUDGET_BYTES / 4);
    };
    assert!(taken * 16_000 > BUDGET_BYTES / 8, "{taken} posts");
    assert_eq!(status(&said), 409, "{said}");
    assert!(
        said.contains("texts of own posts may take a sixth of the budget")
            && said.contains("delete some, or raise the budget"),
        "{said}"
    );
    let said = node.call(r#"{"method":"status"}"#);
    assert!(said.contains(r#""storage_trouble":null"#), "{said}");
}

#[test]
fn a_file_larger_than_the_share_of_own_posts_is_told_apart_from_too_many_files() {
    let node = start();
    let said = node.upload(&vec![5; BUDGET_BYTES / 4 + 1]);
    assert_eq!(status(&said), 409, "{said}");
    assert!(
        said.contains("this file alone is larger than the quarter of the budget")
            && said.contains("make it smaller, or raise the budget"),
        "{said}"
    );
    // Two that would fit one by one.
    assert_eq!(status(&node.upload(&vec![6; BUDGET_BYTES / 6])), 200);
    let said = node.upload(&vec![7; BUDGET_BYTES / 6]);
    assert_eq!(status(&said), 409, "{said}");
    assert!(
        said.contains("no post names yet: post it, or wait an hour"),
        "{said}"
    );
}
