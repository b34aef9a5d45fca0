//! Pictures: what a blob is by its content, never by its name, and small pictures made of large ones.
//!
//! Anybody may have made the bytes. So the dimensions in the head are checked before anything is decoded, decoders have a limit
//! of memory, at most two work at once, on threads that may block, and what they made is kept within so many bytes.
//!
//! A picture that is published here tells nothing of its maker that cannot be seen in it, and was decoded once: see `publishable`.

mod frame;
mod metadata;
mod proof;

use crate::blobs::BlobReader;
use async_channel::{Receiver, Sender};
use distsoc_engine::domain::{BlobHash, BlobRef};
use distsoc_persistence::View;
use frame::Frame;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use std::collections::BTreeMap;
use std::io::{BufRead, Cursor, Seek};
use std::sync::{Arc, Mutex, PoisonError};

/// Pixels of a picture that is shown, at most.
pub const PIXELS_MAX: u64 = 64 * 1024 * 1024;
/// And of its longer side.
pub const SIDE_PIXELS_MAX: u32 = 32_768;
/// What a decoder may allocate: four bytes for each pixel.
const DECODER_BYTES_MAX: u64 = 4 * PIXELS_MAX;
/// Decoders at work at once.
const DECODERS_MAX: usize = 2;
/// Thumbnails that are kept, bytes.
const THUMBNAIL_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of 100, for what has no transparency.
const JPEG_QUALITY: u8 = 82;
/// Bytes from a blob's start that tell its type.
pub const MAGIC_BYTES: usize = 12;

/// What a blob is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    /// image/png
    Png,
    /// image/jpeg
    Jpeg,
    /// image/gif
    Gif,
    /// image/webp
    Webp,
    /// Anything else: it may be attached and is never shown.
    Other,
}

impl MediaType {
    /// By the first [`MAGIC_BYTES`] of a blob, or all of a shorter one.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Self::Png,
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Self::Webp,
            _ => Self::Other,
        }
    }

    /// Of a stored blob; `None` where its start has not arrived.
    ///
    /// # Errors
    /// Where the disk cannot be read.
    pub fn of_stored(
        view: &View,
        blob: BlobRef,
    ) -> Result<Option<Self>, distsoc_persistence::Fault> {
        let start = 0..blob.length.min(MAGIC_BYTES as u64);
        let start = view.blob_part(blob, start)?;
        Ok(start.map(|start| Self::of(&start)))
    }

    /// As in Content-Type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
            Self::Other => "application/octet-stream",
        }
    }

    /// The ending of a file of this type.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Gif => "gif",
            Self::Webp => "webp",
            Self::Other => "bin",
        }
    }

    /// Whether it may be shown as a picture.
    #[must_use]
    pub fn is_picture(self) -> bool {
        self != Self::Other
    }

    fn format(self) -> Option<ImageFormat> {
        match self {
            Self::Png => Some(ImageFormat::Png),
            Self::Jpeg => Some(ImageFormat::Jpeg),
            Self::Gif => Some(ImageFormat::Gif),
            Self::Webp => Some(ImageFormat::WebP),
            Self::Other => None,
        }
    }
}

/// Why there is no picture to show. [`std::fmt::Display`] is the sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum MediaFault {
    /// Another type of file.
    #[error("this is no PNG, JPEG, GIF or WebP picture, so there is nothing to show of it")]
    NotAPicture,
    /// More pixels than anybody may make a node decode.
    #[error(
        "the picture has {width} × {height} pixels: at most {} million are taken, and {SIDE_PIXELS_MAX} a side",
        PIXELS_MAX / 1_000_000
    )]
    TooManyPixels {
        /// As its head says.
        width: u32,
        /// As its head says.
        height: u32,
    },
    /// It would take more memory than a decoder has.
    #[error("the picture{} takes more than {} MB to decode, which is as much as one may", of_pixels(*.pixels), DECODER_BYTES_MAX / 1_000_000)]
    TooMuchMemory {
        /// Width and height, as its head says, where that was read.
        pixels: Option<(u32, u32)>,
    },
    /// A camera wrote it, in a form that is not read here: what else it holds cannot be taken out.
    #[error(
        "this picture or film is of a kind that may hold where and when it was taken, which cannot be taken out here"
    )]
    Untold,
    /// It does not decode.
    #[error("the picture is damaged or cut short")]
    Damaged,
    /// Not all of it has arrived.
    #[error("the picture has not arrived in full yet")]
    NotHere,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] distsoc_persistence::Fault),
}

fn of_pixels(pixels: Option<(u32, u32)>) -> String {
    pixels.map_or_else(String::new, |(width, height)| {
        format!(" of {width} × {height} pixels")
    })
}

impl From<ImageError> for MediaFault {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooMuchMemory { pixels: None },
            _ => Self::Damaged,
        }
    }
}

/// What the head of a blob says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its type.
    pub media_type: MediaType,
    /// Width and height in pixels, of a picture.
    pub pixels: Option<(u32, u32)>,
}

/// Reads the head of a blob; of what is no picture, nothing is told.
///
/// # Errors
/// [`MediaFault`] where it says that it is a picture and nobody could show it.
fn head_of(bytes: &[u8]) -> Result<Head, MediaFault> {
    let media_type = MediaType::of(bytes);
    let mut reader = Cursor::new(bytes);
    let pixels = match media_type {
        MediaType::Other => None,
        // Its decoder takes in the whole file.
        MediaType::Jpeg => Some(frame_within_bounds(&mut reader)?.pixels),
        _ => Some(decoder(media_type, reader)?.dimensions()),
    };
    Ok(Head { media_type, pixels })
}

impl MediaFault {
    /// What a person can do who wanted to publish it, where there is something.
    #[must_use]
    pub const fn next_step(&self) -> Option<&'static str> {
        match self {
            Self::TooManyPixels { .. } | Self::TooMuchMemory { .. } => {
                Some("make it smaller in a picture program and attach that")
            }
            Self::Damaged => Some("open it in a picture program, save it anew and attach that"),
            Self::Untold => Some("save it as JPEG, PNG or WebP and attach that"),
            _ => None,
        }
    }
}

/// What is published of a file: all of it, or a picture without what tells of its maker (place, time, device, notes, what it
/// looked like before). Pixels, frames, colour profile and orientation stay as they are.
///
/// # Errors
/// [`MediaFault`] where it says that it is a picture and nobody could show it, or say what else it holds.
fn publishable(bytes: Vec<u8>) -> Result<(Head, Vec<u8>), MediaFault> {
    let head = head_of(&bytes)?;
    if head.media_type == MediaType::Other && metadata::is_of_a_camera(&bytes) {
        return Err(MediaFault::Untold);
    }
    let stripped = metadata::without_metadata(head.media_type, bytes);
    let stripped = stripped.map_err(|metadata::Damaged| MediaFault::Damaged)?;
    if head_of(&stripped)? != head {
        return Err(MediaFault::Damaged);
    }
    proof::decodes(head.media_type, &stripped)?;
    Ok((head, stripped))
}

fn check_pixels((width, height): (u32, u32)) -> Result<(), MediaFault> {
    let pixels = u64::from(width) * u64::from(height);
    match pixels > PIXELS_MAX || width.max(height) > SIDE_PIXELS_MAX {
        true => Err(MediaFault::TooManyPixels { width, height }),
        false => Ok(()),
    }
}

fn check_memory(bytes: u64, pixels: (u32, u32)) -> Result<(), MediaFault> {
    let pixels = Some(pixels);
    match bytes {
        0 => Err(MediaFault::Damaged),
        1..=DECODER_BYTES_MAX => Ok(()),
        _ => Err(MediaFault::TooMuchMemory { pixels }),
    }
}

/// The frame of a JPEG, and that a decoder may have it.
fn frame_within_bounds(reader: &mut (impl BufRead + Seek)) -> Result<Frame, MediaFault> {
    let frame = Frame::read(reader)?;
    check_pixels(frame.pixels)?;
    check_memory(frame.decoder_bytes(), frame.pixels)?;
    Ok(frame)
}

/// A decoder that has read the head and found it within bounds.
fn decoder<'a>(
    media_type: MediaType,
    mut reader: impl BufRead + Seek + 'a,
) -> Result<impl ImageDecoder + 'a, MediaFault> {
    let format = media_type.format().ok_or(MediaFault::NotAPicture)?;
    if media_type == MediaType::Jpeg {
        // Its decoder takes in the whole file before it looks at any of it.
        frame_within_bounds(&mut reader)?;
    }
    let mut reader = ImageReader::with_format(reader, format);
    // The sides are checked below, so that the sentence can name them.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    check_pixels(decoder.dimensions())?;
    check_memory(decoder.total_bytes(), decoder.dimensions())?;
    Ok(decoder)
}

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
fn thumbnail(
    media_type: MediaType,
    reader: impl BufRead + Seek,
    side: ThumbnailSide,
) -> Result<Thumbnail, MediaFault> {
    let mut decoder = decoder(media_type, reader)?;
    let orientation = decoder.orientation()?;
    let large = DynamicImage::from_decoder(decoder)?;
    let mut small = match large.width().max(large.height()) > side.0 {
        true => large.thumbnail(side.0, side.0),
        false => large,
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
const TYPES_OF_PICTURES: [MediaType; 4] = [
    MediaType::Png,
    MediaType::Jpeg,
    MediaType::Gif,
    MediaType::Webp,
];

#[cfg(test)]
mod tests;
