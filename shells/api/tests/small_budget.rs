//! What is said where a small budget has no room for what a person publishes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Besieged, PATIENCE, status};
use distsoc_net::runtime::{block_on, sleep, timeout};
use std::time::Duration;

const BUDGET_BYTES: usize = 64_000_000;

#[test]
fn a_file_larger_than_the_share_of_own_posts_is_told_apart_from_too_many_files() {
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
