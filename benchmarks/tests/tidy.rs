//! The house rules that a compiler does not know: who may use whom, how long a file may be, which rules of the protocol are
//! named where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Every file of the repository with this ending.
fn files(ending: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, ending, found);
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), ending, &mut found);
    found.sort();
    found
}

/// Package → the packages it depends on, outside of tests.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let normal = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|one| one["kind"] != "dev");
            (
                text(&package["name"]),
                normal.map(|one| text(&one["name"])).collect(),
            )
        })
        .collect()
}

/// ARCHITECTURE, "Arrows".
#[test]
fn rooms_use_only_the_rooms_they_may() {
    let allowed: &[(&str, &[&str])] = &[
        ("distsoc-engine", &[]),
        ("distsoc-systems", &["engine"]),
        ("distsoc-net", &["engine"]),
        ("distsoc-persistence", &["engine"]),
        ("distsoc-host", &["engine", "systems", "net", "persistence"]),
        ("distsoc-api", &["engine", "net", "persistence", "host"]),
        ("distsoc", &["engine", "net", "persistence", "host", "api"]),
        ("distsoc-simulator", &["engine", "systems"]),
    ];
    let dependencies = dependencies();
    for (package, rooms) in allowed {
        for dependency in &dependencies[*package] {
            let Some(room) = dependency.strip_prefix("distsoc-") else {
                continue;
            };
            assert!(rooms.contains(&room), "{package} must not use {dependency}");
        }
    }
}

#[test]
fn the_pure_rooms_have_no_runtime_and_no_json() {
    let dependencies = dependencies();
    for package in ["distsoc-engine", "distsoc-systems"] {
        for impure in [
            "tokio",
            "async-std",
            "async-channel",
            "serde_json",
            "heed",
            "s2n-quic",
            "getrandom",
            "libc",
        ] {
            assert!(
                !dependencies[package].iter().any(|one| one == impure),
                "{package} must not use {impure}"
            );
        }
    }
    for (package, uses) in &dependencies {
        let may = ["distsoc-net"].contains(&package.as_str());
        assert!(
            may || !uses.iter().any(|one| one == "tokio"),
            "{package} must not use tokio"
        );
        let crypto = [
            "ed25519-dalek",
            "x25519-dalek",
            "chacha20poly1305",
            "blake3",
            "curve25519-dalek",
        ];
        let is_engine = package == "distsoc-engine";
        assert!(
            is_engine || !uses.iter().any(|one| crypto.contains(&one.as_str())),
            "{package} must not use crypto crates"
        );
    }
}

#[test]
fn crypto_crates_have_one_user() {
    for path in files(".rs") {
        let in_crypto = path.starts_with(root().join("engine/src/crypto"));
        let is_this = path.ends_with("tests/tidy.rs");
        let text = std::fs::read_to_string(&path).unwrap();
        for name in [
            "ed25519_dalek::",
            "x25519_dalek::",
            "chacha20poly1305::",
            "blake3::",
            "curve25519_dalek::",
        ] {
            assert!(
                in_crypto || is_this || !text.contains(name),
                "{} uses {name}",
                path.display()
            );
        }
    }
}

/// What is on the own disk was proved before it was stored: nobody else takes bytes at their word.
#[test]
fn only_the_disk_is_believed_unproved() {
    let mut seen = 0;
    for path in files(".rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        if path.ends_with("tests/tidy.rs") || !text.contains("from_own_disk") {
            continue;
        }
        seen += 1;
        let may = ["engine/src/domain/record.rs", "persistence/src/rows.rs"];
        let may = may.map(|file| root().join(file));
        assert!(may.contains(&path), "{} trusts bytes", path.display());
    }
    assert_eq!(seen, 2, "the rule has something to look at");
}

#[test]
fn no_file_is_too_long() {
    for path in files(".rs") {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 800, "{} has {lines} lines", path.display());
    }
}

/// Systems import engine and their Installer, never one another.
#[test]
fn systems_meet_in_the_world_and_not_each_other() {
    let mut seen = 0;
    for path in files(".rs") {
        let Ok(inside) = path.strip_prefix(root().join("systems/src")) else {
            continue;
        };
        // A feature of several files has a folder, and its files know each other.
        let in_own_folder = inside.components().count() > 2;
        if inside.ends_with("lib.rs") || inside.ends_with("mod.rs") && !in_own_folder {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let rules = text.split("#[cfg(test)]").next().unwrap();
        for line in rules
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            let imports = line.contains("super::super")
                || line.contains("super::") && !in_own_folder
                || line.replace("crate::Installer", "").contains(" crate::")
                || line.replace("distsoc_", "").contains("(crate::");
            assert!(!imports, "{} imports a neighbour: {line}", inside.display());
        }
    }
    assert!(seen > 20, "the systems were looked at");
}

/// A reader finds the rules of a section of the protocol by its number.
#[test]
fn every_section_built_here_is_named_in_the_code() {
    let code: String = files(".rs")
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for section in [3, 4, 5, 6, 7, 8, 9, 11, 12, 13] {
        assert!(
            code.contains(&format!("PROTOCOL section {section}")),
            "section {section} is named nowhere"
        );
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for path in files(".rs") {
        if path.ends_with("tests/tidy.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn every_packet_has_golden_bytes() {
    let golden = root().join("engine/golden");
    for spec in distsoc_engine::wire::PACKETS {
        assert!(
            golden.join(format!("{}.hex", spec.name)).exists(),
            "{} has no golden file",
            spec.name
        );
    }
}
