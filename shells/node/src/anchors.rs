//! `anchors.json`: where a node that knows nobody begins (PROTOCOL section 11).

use crate::exit::Exit;
use distsoc_engine::domain::ConnectString;
use std::path::Path;

/// Shipped with the program; names no invented hosts.
const SHIPPED: &str = include_str!("../../../anchors.json");
/// Anchors in one file at most.
const ANCHORS_MAX: usize = 64;
/// Bytes in the file at most.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    anchors: Vec<String>,
}

/// The anchors of the given file, else of the data folder's, else of the program's.
pub(crate) fn read(given: Option<&Path>, dir: &Path) -> Result<Vec<ConnectString>, Exit> {
    let own = dir.join("anchors.json");
    let path = given
        .map(Path::to_owned)
        .or_else(|| own.symlink_metadata().is_ok().then_some(own));
    match path {
        Some(path) => {
            let named = |problem: &dyn std::fmt::Display| {
                Exit::usage(format!("{}: {problem}", path.display()))
            };
            let about = std::fs::metadata(&path).map_err(|error| named(&error))?;
            if !about.is_file() || about.len() > FILE_BYTES_MAX {
                return Err(named(&"is no file of anchors"));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| named(&error))?;
            // Some editors begin a file with a mark.
            parse(text.trim_start_matches('\u{feff}')).map_err(|problem| named(&problem))
        }
        None => parse(SHIPPED).map_err(Exit::failed),
    }
}

fn parse(text: &str) -> Result<Vec<ConnectString>, String> {
    let form = "must be {\"version\":1,\"anchors\":[\"NODE_ID@HOST:PORT\"]}";
    let file: File = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(list) if list.is_array() => return Err(form.into()),
        _ => serde_json::from_str(text).map_err(|error| format!("{form} ({error})"))?,
    };
    if file.version != 1 {
        return Err(format!("version {} is not known, only 1 is", file.version));
    }
    if file.anchors.len() > ANCHORS_MAX {
        return Err(format!("at most {ANCHORS_MAX} anchors fit in one file"));
    }
    let parse = |anchor: &String| {
        anchor
            .parse()
            .map_err(|error| format!("'{anchor}': {error}"))
    };
    file.anchors.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_one_and_wrong_ones_say_why() {
        assert_eq!(parse(SHIPPED), Ok(Vec::new()));
        assert!(parse("{}").unwrap_err().contains("must be"));
        assert!(
            parse(r#"{"version":2,"anchors":[]}"#)
                .unwrap_err()
                .contains("version 2")
        );
        assert!(
            parse(r#"{"version":1,"anchors":["x"]}"#)
                .unwrap_err()
                .contains("no '@'")
        );
        assert!(
            parse(r#"{"version":1,"anchors":[],"x":1}"#)
                .unwrap_err()
                .contains("must be")
        );
    }
}
