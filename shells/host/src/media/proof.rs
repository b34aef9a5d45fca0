//! Whether what says that it is a picture can be shown: it is decoded once, before it is published.
//!
//! What a kind viewer makes of a damaged file is grey or noise, and nobody can mend a post. So a picture of one's own is looked at more
//! strictly than those of others, of which whatever can be shown is. Of what moves only the first picture is decoded.

use super::png::Rows;
use super::{MediaFault, MediaType, Opened, alone, frame_within_bounds};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

/// A decoder that panics has met what it cannot read: it ends no more than its own work.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, MediaFault>) -> Result<T, MediaFault> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or(Err(MediaFault::Damaged))
}

/// Decodes a picture within bounds and forgets what it shows; of another file there is nothing to decode.
pub(super) fn decodes(media_type: MediaType, bytes: &[u8]) -> Result<(), MediaFault> {
    guarded(|| match media_type {
        MediaType::Other => Ok(()),
        MediaType::Jpeg => jpeg_decodes(bytes),
        MediaType::Png => Rows::open(Cursor::new(bytes))?.decodes(),
        MediaType::Gif | MediaType::Webp => {
            Opened::new(media_type, Cursor::new(bytes))?.decode()?;
            Ok(())
        }
    })
}

/// The decoder of `image` takes codes that there are not for the end of the picture, and fills the rest.
fn jpeg_decodes(bytes: &[u8]) -> Result<(), MediaFault> {
    let frame = frame_within_bounds(&mut Cursor::new(bytes))?;
    let _turn = alone(frame.decoder_bytes());
    let damaged = |_: DecodeErrors| MediaFault::Damaged;
    let (width, height) = frame.pixels;
    let colours = match frame.components {
        1 => ColorSpace::Luma,
        _ => ColorSpace::RGB,
    };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(width as usize)
        .set_max_height(height as usize)
        .jpeg_set_out_colorspace(colours);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode().map_err(damaged)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::format_of;
    use super::super::{TYPES_OF_PICTURES, publishable};
    use super::*;
    use image::RgbImage;

    /// Where the data of the pixels lies, and more than half of it before its end.
    fn of_pixels(media_type: MediaType, bytes: &[u8]) -> std::ops::Range<usize> {
        let after = |sign: &[u8], more: usize| {
            let at = bytes.windows(sign.len()).position(|part| part == sign);
            at.unwrap() + sign.len() + more
        };
        let start = match media_type {
            MediaType::Png => after(b"IDAT", 2),
            MediaType::Jpeg => after(b"\xff\xda\0\x0c", 10),
            MediaType::Gif => after(b",\0\0\0\0", 6),
            _ => after(b"VP8L", 9),
        };
        start..start + (bytes.len() - start) / 2
    }

    /// The same bytes for the same number, none of them 0xff, which would be a marker in a JPEG.
    fn noise(seed: u32, length: usize) -> Vec<u8> {
        let mut state = seed;
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24).min(0xfe) as u8
        };
        (0..length).map(byte).collect()
    }

    /// With the sum that a PNG's chunk needs, as one who writes a broken file would.
    fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
        let at = bytes.windows(4).position(|name| name == b"IDAT").unwrap();
        let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
        let end = at + 4 + length;
        let sum = bytes[at..end].iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xedb8_8320 * (sum & 1))
            })
        });
        bytes[end..end + 4].copy_from_slice(&(!sum).to_be_bytes());
        bytes
    }

    /// Colours that do not repeat, so that a file of any type is long.
    fn file(media_type: MediaType) -> Vec<u8> {
        let picture = RgbImage::from_raw(512, 512, noise(7, 512 * 512 * 3)).unwrap();
        let mut bytes = Cursor::new(Vec::new());
        let format = format_of(media_type).unwrap();
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_picture_whose_pixels_are_noise_is_not_published() {
        for media_type in TYPES_OF_PICTURES {
            let good = file(media_type);
            assert!(publishable(good.clone()).is_ok(), "{media_type:?}");
            for seed in 0..4 {
                let mut bad = good.clone();
                let place = of_pixels(media_type, &bad);
                let noise = noise(seed, place.len());
                bad[place].copy_from_slice(&noise);
                if media_type == MediaType::Png {
                    bad = summed(bad);
                }
                let refused = publishable(bad);
                assert!(
                    matches!(refused, Err(MediaFault::Damaged)),
                    "{media_type:?}, seed {seed}: {:?}",
                    refused.map(|(head, _)| head)
                );
            }
        }
    }

    #[test]
    fn a_decoder_that_panics_ends_no_more_than_its_work() {
        let made =
            guarded(|| -> Result<(), _> { panic!("a bug in a decoder, which this test makes") });
        assert!(matches!(made, Err(MediaFault::Damaged)));
    }
}
