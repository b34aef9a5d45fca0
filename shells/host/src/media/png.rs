//! PNG by rows: a picture is checked and made small with a row of it in memory at a time, however many pixels it has.
//!
//! What lies packed beside the pixels (colour profiles, notes) is stepped over and never unpacked: a megabyte of it may hold a
//! thousand. A row of an interlaced picture holds the pixels of one of seven passes.

use super::downscale::Downscaled;
use super::{MediaFault, check_memory, check_pixels};
use image::DynamicImage;
use image::metadata::Orientation;
use png::{DecodeOptions, Decoder, DecodingError, Limits, Reader, Transformations};
use std::io::{BufRead, Seek};

/// Of parts that are no pixels, such as EXIF, at most.
const PARTS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which pixels of a picture a pass has: from where on, and how far apart.
struct Pass {
    x: u32,
    across: usize,
    y: u32,
    down: usize,
}

const fn pass(x: u32, across: usize, y: u32, down: usize) -> Pass {
    Pass { x, across, y, down }
}

/// Of a picture that is not interlaced.
const WHOLE: [Pass; 1] = [pass(0, 1, 0, 1)];
/// And of one that is (Adam7).
const PASSES: [Pass; 7] = [
    pass(0, 8, 0, 8),
    pass(4, 8, 0, 8),
    pass(0, 4, 4, 8),
    pass(2, 4, 0, 4),
    pass(0, 2, 2, 4),
    pass(1, 2, 0, 2),
    pass(0, 1, 1, 2),
];

/// A picture whose head was read and found within bounds.
pub(super) struct Rows<R: BufRead + Seek> {
    reader: Reader<R>,
    pixels: (u32, u32),
    channels: usize,
}

impl<R: BufRead + Seek> Rows<R> {
    pub(super) fn open(reader: R) -> Result<Self, MediaFault> {
        let mut options = DecodeOptions::default();
        options.set_ignore_text_chunk(true);
        options.set_ignore_iccp_chunk(true);
        let mut decoder = Decoder::new_with_options(reader, options);
        decoder.set_limits(Limits {
            bytes: PARTS_BYTES_MAX,
        });
        // One byte a colour, whatever it was written in.
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let info = decoder.read_header_info();
        let pixels = info.map_err(|error| fault_of(&error, None))?.size();
        check_pixels(pixels)?;
        let reader = decoder.read_info();
        let reader = reader.map_err(|error| fault_of(&error, Some(pixels)))?;
        let channels = reader.output_color_type().0.samples();
        // What others' decoders need is as much as may be asked of them.
        let bytes_each = if reader.info().bit_depth == png::BitDepth::Sixteen {
            2 * channels
        } else {
            channels
        };
        let all = u64::from(pixels.0) * u64::from(pixels.1) * bytes_each as u64;
        check_memory(all, pixels)?;
        Ok(Self {
            reader,
            pixels,
            channels,
        })
    }

    pub(super) fn pixels(&self) -> (u32, u32) {
        self.pixels
    }

    pub(super) fn orientation(&self) -> Orientation {
        let exif = self.reader.info().exif_metadata.as_deref();
        let said = exif.and_then(Orientation::from_exif_chunk);
        said.unwrap_or(Orientation::NoTransforms)
    }

    /// Whether nothing of what lies packed beside the pixels was read.
    #[cfg(test)]
    pub(super) fn has_pixels_only(&self) -> bool {
        let info = self.reader.info();
        info.icc_profile.is_none()
            && info.compressed_latin1_text.is_empty()
            && info.utf8_text.is_empty()
    }

    /// Decodes all of it and forgets what it shows.
    pub(super) fn decodes(self) -> Result<(), MediaFault> {
        self.for_each(|_, _, _| {})
    }

    /// The picture, made smaller until no side is longer than this.
    pub(super) fn downscaled(self, side_max: u32) -> Result<DynamicImage, MediaFault> {
        let mut small = Downscaled::new(self.pixels, self.channels, side_max);
        self.for_each(|xs, y, row| small.add(xs, y, row))?;
        Ok(small.finish())
    }

    /// Hands over each row with the places of its pixels, in the order of the file.
    fn for_each(
        mut self,
        mut take: impl FnMut(&mut dyn Iterator<Item = u32>, u32, &[u8]),
    ) -> Result<(), MediaFault> {
        let (width, height) = self.pixels;
        let passes: &[Pass] = match self.reader.info().interlaced {
            true => &PASSES,
            false => &WHOLE,
        };
        let mut row = vec![0; self.channels * width as usize];
        for pass in passes.iter().filter(|pass| pass.x < width) {
            for y in (pass.y..height).step_by(pass.down) {
                if !self.read_row(&mut row)? {
                    return Err(MediaFault::Damaged);
                }
                let mut xs = (pass.x..width).step_by(pass.across);
                let length = self.channels * xs.len();
                take(&mut xs, y, &row[..length]);
            }
        }
        // Goes on to the end of the pixels, where their check sum is.
        match self.read_row(&mut row)? {
            false => Ok(()),
            true => Err(MediaFault::Damaged),
        }
    }

    /// Whether there was one.
    fn read_row(&mut self, row: &mut [u8]) -> Result<bool, MediaFault> {
        let read = self.reader.read_row(row);
        let read = read.map_err(|error| fault_of(&error, Some(self.pixels)))?;
        Ok(read.is_some())
    }
}

fn fault_of(error: &DecodingError, pixels: Option<(u32, u32)>) -> MediaFault {
    match error {
        DecodingError::LimitsExceeded => MediaFault::TooMuchMemory { pixels },
        _ => MediaFault::Damaged,
    }
}
