//! Pictures of a post, from files to the node.

use crate::exit::Exit;
use crate::{output, storage};
use distsoc_api::{Client, Uploaded, Wait};
use distsoc_engine::domain::MediaDescription;
use distsoc_engine::limits::{BLOB_BYTES_MAX, POST_BLOBS_MAX};
use distsoc_host::media::{MAGIC_BYTES, MediaType};
use distsoc_net::runtime;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// An upload that takes longer shows that it goes on.
const QUIET_MS: u64 = 1_000;
/// And shows it anew this often.
const STEP_MS: u64 = 200;

/// Of so many waits for other uploads one is told in a line that stays: one a minute.
const WAITS_PER_LINE: u32 = 12;

/// A file and what it shows.
#[derive(Debug)]
pub(crate) struct Chosen {
    file: PathBuf,
    alt: String,
}

/// Pairs files with their descriptions and looks at all of them before anything is sent.
pub(crate) fn choose(files: Vec<PathBuf>, descriptions: Vec<String>) -> Result<Vec<Chosen>, Exit> {
    if files.len() != descriptions.len() {
        return Err(Exit::usage(format!(
            "each --picture needs one --alt that says what it shows, empty if need be: {} pictures, {} descriptions",
            files.len(),
            descriptions.len()
        )));
    }
    if files.len() > POST_BLOBS_MAX {
        let sentence = format!("a post has at most {POST_BLOBS_MAX} pictures");
        return Err(Exit::usage(sentence));
    }
    for (file, alt) in files.iter().zip(&descriptions) {
        let name = file.display();
        MediaDescription::new(alt).map_err(|error| Exit::usage(format!("--alt: {error}")))?;
        let there = std::fs::metadata(file)
            .map_err(|error| Exit::usage(format!("cannot read {name}: {error}")))?;
        if !there.is_file() {
            return Err(Exit::usage(format!("{name} is no file")));
        }
        if !(1..=BLOB_BYTES_MAX).contains(&there.len()) {
            return Err(Exit::usage(format!(
                "{name} has {} bytes: a picture has 1 to {BLOB_BYTES_MAX}",
                there.len()
            )));
        }
        let start = start_of(file);
        let start = start.map_err(|error| Exit::usage(format!("cannot read {name}: {error}")))?;
        if !MediaType::of(&start).is_picture() {
            return Err(Exit::usage(format!(
                "{name} is no PNG, JPEG, GIF or WebP picture, whatever its name says: save it as one of these and attach that"
            )));
        }
    }
    let pairs = files.into_iter().zip(descriptions);
    Ok(pairs.map(|(file, alt)| Chosen { file, alt }).collect())
}

/// What tells the type of a file.
fn start_of(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC_BYTES);
    let file = std::fs::File::open(file)?;
    file.take(MAGIC_BYTES as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// Sends one after the other; what `post` takes as `pictures`.
pub(crate) async fn upload(client: &Client, chosen: Vec<Chosen>) -> Result<Vec<Value>, Exit> {
    let count = chosen.len();
    let mut uploaded = Vec::with_capacity(count);
    for (place, Chosen { file, alt }) in chosen.into_iter().enumerate() {
        let name = file.display().to_string();
        let bytes = std::fs::read(&file)
            .map_err(|error| Exit::usage(format!("cannot read {name}: {error}")))?;
        let (sent, length) = (Uploaded::default(), bytes.len() as u64);
        let picture = place + 1;
        let wait = RefCell::new(None);
        let said = || match (sent.load(Relaxed), &*wait.borrow()) {
            (0, Some(wait)) => format!("Picture {picture} of {count}: {wait}"),
            (sent, _) => so_far(picture, count, sent, length),
        };
        let waits = |next: Wait| {
            if (next.attempt - 1).is_multiple_of(WAITS_PER_LINE) {
                output::progress("");
                output::error(&format!("distsoc: {name}: {next}"));
            }
            wait.replace(Some(next));
        };
        let upload = client.upload_when_free(bytes, sent.clone(), waits);
        let answer = while_it_lasts(said, upload).await;
        let answer = answer.map_err(|error| Exit::from(error).about(&name))?;
        let (blob, length) = (&answer["blob"], &answer["length"]);
        uploaded.push(json!({"blob": blob, "length": length, "alt": alt}));
    }
    Ok(uploaded)
}

/// What a person is told of an upload that takes long.
fn so_far(picture: usize, count: usize, uploaded: u64, length: u64) -> String {
    let all = storage::bytes(length);
    match uploaded < length {
        true => {
            let done = storage::bytes(uploaded);
            format!("Picture {picture} of {count}: {done} of {all}")
        }
        false => format!("Picture {picture} of {count}: {all} sent, the node stores it"),
    }
}

/// The result of something; past a second, how far it is is shown.
async fn while_it_lasts<F: Future>(said: impl Fn() -> String, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut step = Duration::from_millis(QUIET_MS);
    let mut is_shown = false;
    let result = loop {
        match runtime::timeout(step, future.as_mut()).await {
            Some(result) => break result,
            None => {
                is_shown = true;
                step = Duration::from_millis(STEP_MS);
                output::progress(&said());
            }
        }
    };
    if is_shown {
        output::progress("");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_an_upload_is_is_told_in_bytes() {
        let said = so_far(1, 3, 1_500_000, 64_000_000);
        assert_eq!(said, "Picture 1 of 3: 1.5 MB of 64.0 MB");
        let said = so_far(2, 3, 700, 700);
        assert_eq!(said, "Picture 2 of 3: 700 B sent, the node stores it");
    }
}
