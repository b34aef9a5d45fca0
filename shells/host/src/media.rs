//! Pictures: what a blob is by its content, never by its name, and small pictures made of large ones.
//!
//! Anybody may have made the bytes. So the dimensions in the head are checked before anything is decoded, decoders have a limit
//! of memory, at most two work at once and one on a large picture, on threads that may block, and what they made is kept within
//! so many bytes. A PNG is decoded by rows; nothing that lies packed beside pixels is unpacked.
//!
//! A picture that is published here tells nothing of its maker that cannot be seen in it, and was decoded once: see `publishable`.

mod downscale;
mod frame;
mod metadata;
mod png;
mod proof;
mod thumbnail;

pub(crate) use thumbnail::Thumbnails;
pub use thumbnail::{Thumbnail, ThumbnailSide};

use self::png::Rows;
use distsoc_engine::domain::BlobRef;
use distsoc_persistence::View;
use frame::Frame;
use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegDecoder;
use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, ImageDecoder, ImageError, Limits};
use std::io::{BufRead, Cursor, Seek};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pixels of a picture that is shown, at most.
pub const PIXELS_MAX: u64 = 64 * 1024 * 1024;
/// And of its longer side.
pub const SIDE_PIXELS_MAX: u32 = 32_768;
/// What a decoder may take for pixels: four bytes for each.
const DECODER_BYTES_MAX: u64 = 4 * PIXELS_MAX;
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
        MediaType::Png => Some(Rows::open(reader)?.pixels()),
        _ => Some(Opened::new(media_type, reader)?.decoder.dimensions()),
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
/// looked like before). Pixels, frames and orientation stay as they are, and of a colour profile which known space it means.
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
struct Opened<'a> {
    decoder: Box<dyn ImageDecoder + 'a>,
    /// What it takes for pixels, those that are made and those that it works on.
    decoder_bytes: u64,
}

impl<'a> Opened<'a> {
    /// Of any type but PNG, which is read by rows.
    fn new(
        media_type: MediaType,
        mut reader: impl BufRead + Seek + 'a,
    ) -> Result<Self, MediaFault> {
        let opened = match media_type {
            MediaType::Jpeg => {
                // Its decoder takes in the whole file before it looks at any of it.
                let frame = frame_within_bounds(&mut reader)?;
                Self {
                    decoder: Box::new(JpegDecoder::new(reader)?),
                    decoder_bytes: frame.decoder_bytes(),
                }
            }
            MediaType::Gif => {
                let mut decoder = GifDecoder::new(reader)?;
                check_pixels(decoder.dimensions())?;
                let decoder_bytes = decoder.total_bytes();
                check_memory(decoder_bytes, decoder.dimensions())?;
                // What is left is for a frame that does not fill the picture.
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(DECODER_BYTES_MAX - decoder_bytes);
                decoder.set_limits(limits)?;
                Self {
                    decoder: Box::new(decoder),
                    decoder_bytes,
                }
            }
            MediaType::Webp => {
                let decoder = WebPDecoder::new(reader)?;
                let (width, height) = decoder.dimensions();
                let is_transparent = decoder.color_type().has_alpha();
                let bytes_each = match (decoder.has_animation(), is_transparent) {
                    // The picture, the canvas and the frame.
                    (true, _) => 12,
                    // The picture, its colours as they are coded, and how clear it is, once as it is decoded.
                    (false, true) => 11,
                    // The picture, and the same with a byte more.
                    (false, false) => 7,
                };
                Self {
                    decoder_bytes: u64::from(width) * u64::from(height) * bytes_each,
                    decoder: Box::new(decoder),
                }
            }
            MediaType::Png | MediaType::Other => return Err(MediaFault::NotAPicture),
        };
        let pixels = opened.decoder.dimensions();
        check_pixels(pixels)?;
        check_memory(opened.decoder_bytes, pixels)?;
        Ok(opened)
    }

    /// Decodes it, alone where it is large.
    fn decode(self) -> Result<DynamicImage, MediaFault> {
        let _turn = alone(self.decoder_bytes);
        Ok(DynamicImage::from_decoder(self.decoder)?)
    }
}

/// Holds everybody else off who has a large picture to decode, in any node of this program: what takes more than a quarter of the most
/// goes one at a time.
fn alone(decoder_bytes: u64) -> Option<MutexGuard<'static, ()>> {
    static LARGE: Mutex<()> = Mutex::new(());
    let is_large = decoder_bytes > DECODER_BYTES_MAX / 4;
    is_large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner))
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
