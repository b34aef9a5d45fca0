//! Small pictures made of large ones, and those that were made already.

use super::png::Rows;
use super::{Head, MediaFault, MediaType, Opened, proof, publishable};
use crate::blobs::BlobReader;
use async_channel::{Receiver, Sender};
use distsoc_engine::domain::{BlobHash, BlobRef};
use distsoc_persistence::View;
use image::metadata::Orientation;
use image::{DynamicImage, ImageFormat};
use std::collections::BTreeMap;
use std::io::{BufRead, Cursor, Seek};
use std::sync::{Arc, Mutex, PoisonError};

/// Decoders at work at once.
const DECODERS_MAX: usize = 2;
/// Thumbnails that are kept, bytes.
const THUMBNAIL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of 100, for what has no transparency.
const JPEG_QUALITY: u8 = 82;

/// The longer side of a thumbnail: one of few, so that many wishes share what was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThumbnailSide(u32);

impl ThumbnailSide {
    const ALL: [u32; 5] = [64, 128, 256, 512, 1024];
    /// What may be wished for.
    pub const RANGE: std::ops::RangeInclusive<u32> = 16..=1024;

    /// The smallest that is no smaller than the wish; `None` where that is out of [`RANGE`](Self::RANGE).
    #[must_use]
    pub fn for_wish(side: u32) -> Option<Self> {
        let is_possible = Self::RANGE.contains(&side);
        let fits = Self::ALL.into_iter().find(|one| *one >= side);
        fits.filter(|_| is_possible).map(Self)
    }

    /// In pixels.
    #[must_use]
    pub const fn pixels(self) -> u32 {
        self.0
    }
}

impl Default for ThumbnailSide {
    fn default() -> Self {
        Self(256)
    }
}

/// A small picture: a JPEG, or a PNG where something is transparent.
#[derive(Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Which of them.
    pub media_type: MediaType,
    /// The file.
    pub bytes: Vec<u8>,
}

/// Makes a small picture; one that is small already is written anew all the same, without what else its file holds.
pub(super) fn thumbnail(
    media_type: MediaType,
    reader: impl BufRead + Seek,
    side: ThumbnailSide,
) -> Result<Thumbnail, MediaFault> {
    let (mut small, orientation) = match media_type {
        MediaType::Png => {
            let rows = Rows::open(reader)?;
            let orientation = rows.orientation();
            (rows.downscaled(side.0)?, orientation)
        }
        _ => downscaled(media_type, reader, side)?,
    };
    small.apply_orientation(orientation);
    let mut bytes = Vec::new();
    let media_type = match small.color().has_alpha() {
        true => {
            let small = small.into_rgba8();
            small.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
            MediaType::Png
        }
        false => {
            let encoder =
                image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
            small.into_rgb8().write_with_encoder(encoder)?;
            MediaType::Jpeg
        }
    };
    Ok(Thumbnail { media_type, bytes })
}

/// Of a picture that is decoded whole.
fn downscaled(
    media_type: MediaType,
    reader: impl BufRead + Seek,
    side: ThumbnailSide,
) -> Result<(DynamicImage, Orientation), MediaFault> {
    let mut opened = Opened::new(media_type, reader)?;
    let orientation = opened.decoder.orientation()?;
    let large = opened.decode()?;
    let small = match large.width().max(large.height()) > side.0 {
        true => large.thumbnail(side.0, side.0),
        false => large,
    };
    Ok((small, orientation))
}

type Key = (BlobHash, ThumbnailSide);

/// What was made, within so many bytes; what was not looked at for longest goes first.
#[derive(Debug, Default)]
struct Kept {
    made: BTreeMap<Key, (Arc<Thumbnail>, u64)>,
    by_use: BTreeMap<u64, Key>,
    bytes: usize,
    uses: u64,
}

impl Kept {
    fn get(&mut self, key: &Key) -> Option<Arc<Thumbnail>> {
        let (thumbnail, used) = self.made.get_mut(key)?;
        self.uses += 1;
        self.by_use.remove(used);
        self.by_use.insert(self.uses, *key);
        *used = self.uses;
        Some(thumbnail.clone())
    }

    /// Bytes that one takes, with its places in the tables.
    fn size(thumbnail: &Thumbnail) -> usize {
        thumbnail.bytes.len() + 256
    }

    fn insert(&mut self, key: Key, thumbnail: Arc<Thumbnail>, bytes_max: usize) {
        let size = Self::size(&thumbnail);
        if size > bytes_max || self.get(&key).is_some() {
            return;
        }
        while self.bytes + size > bytes_max {
            let (_, oldest) = self.by_use.pop_first().expect("what takes bytes is listed");
            let (gone, _) = self.made.remove(&oldest).expect("what is listed is kept");
            self.bytes -= Self::size(&gone);
        }
        self.uses += 1;
        self.bytes += size;
        self.by_use.insert(self.uses, key);
        self.made.insert(key, (thumbnail, self.uses));
    }
}

/// The thumbnails of one node.
#[derive(Debug)]
pub(crate) struct Thumbnails {
    kept: Mutex<Kept>,
    enter: Sender<()>,
    leave: Receiver<()>,
}

/// A decoder's place, given back when dropped.
struct Turn(Receiver<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

impl Default for Thumbnails {
    fn default() -> Self {
        let (enter, leave) = async_channel::bounded(DECODERS_MAX);
        Self {
            kept: Mutex::default(),
            enter,
            leave,
        }
    }
}

impl Thumbnails {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self) -> Turn {
        self.enter.send(()).await.expect("both ends are here");
        Turn(self.leave.clone())
    }

    /// What is published of a file, and what its head says.
    pub(crate) async fn publishable(&self, bytes: Vec<u8>) -> Result<(Head, Vec<u8>), MediaFault> {
        let turn = self.turn().await;
        let made = distsoc_net::runtime::spawn_blocking(move || {
            let _turn = turn;
            publishable(bytes)
        });
        made.await
    }

    /// The thumbnail of a stored blob.
    pub(crate) async fn get(
        &self,
        view: View,
        blob: BlobRef,
        side: ThumbnailSide,
    ) -> Result<Arc<Thumbnail>, MediaFault> {
        let key = (blob.hash, side);
        let kept = || self.kept().get(&key);
        if let Some(thumbnail) = kept() {
            return Ok(thumbnail);
        }
        let turn = self.turn().await;
        // Somebody else may have made it meanwhile.
        if let Some(thumbnail) = kept() {
            return Ok(thumbnail);
        }
        let made = distsoc_net::runtime::spawn_blocking(move || {
            let _turn = turn;
            let mut reader = BlobReader::of_stored(view, blob);
            let made = reader
                .fill_buf()
                .map(MediaType::of)
                .map_err(|_| MediaFault::NotHere)
                .and_then(|media_type| proof::guarded(|| thumbnail(media_type, &mut reader, side)));
            // What a decoder says of a part that could not be read is not what happened.
            match reader.trouble() {
                Some(trouble) => Err(trouble),
                None => made,
            }
        });
        let made = Arc::new(made.await?);
        self.kept().insert(key, made.clone(), THUMBNAIL_BYTES_MAX);
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_for_longest_goes_first() {
        let one = |length| {
            Arc::new(Thumbnail {
                media_type: MediaType::Png,
                bytes: vec![0; length],
            })
        };
        let key = |number| (BlobHash::from_bytes([number; 32]), ThumbnailSide::default());
        let (mut kept, most) = (Kept::default(), 3 * (1_000 + 256));
        for number in 0..3 {
            kept.insert(key(number), one(1_000), most);
        }
        assert!(kept.get(&key(0)).is_some());
        kept.insert(key(3), one(1_000), most);
        let there: Vec<bool> = (0..4)
            .map(|number| kept.get(&key(number)).is_some())
            .collect();
        assert_eq!(there, [true, false, true, true]);
        assert_eq!(kept.bytes, most);
        kept.insert(key(9), one(most), most);
        assert!(kept.get(&key(9)).is_none() && kept.bytes == most);
        kept.insert(key(8), one(most - 256), most);
        assert!(kept.get(&key(8)).is_some() && kept.made.len() == 1 && kept.by_use.len() == 1);
    }
}
