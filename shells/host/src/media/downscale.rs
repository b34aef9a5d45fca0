//! A picture made smaller while it comes in: each pixel belongs to one of the small picture, which is the mean of its own.
//!
//! Pixels may come in any order, so what is interlaced needs no more memory than what is not.

use image::{DynamicImage, GrayAlphaImage, GrayImage, RgbImage, RgbaImage};

/// The small picture as far as it has come, of one to four bytes a pixel.
pub(super) struct Downscaled {
    channels: usize,
    across: Side,
    down: Side,
    sums: Vec<u64>,
}

/// The pixels of one side.
struct Side {
    large: u32,
    small: u32,
    /// How many of the large picture each of the small one has.
    counts: Vec<u64>,
}

impl Side {
    fn new(large: u32, small: u32) -> Self {
        let mut side = Self {
            large,
            small,
            counts: vec![0; small as usize],
        };
        for place in 0..large {
            let small = side.place(place);
            side.counts[small] += 1;
        }
        side
    }

    fn place(&self, of_large: u32) -> usize {
        (u64::from(of_large) * u64::from(self.small) / u64::from(self.large)) as usize
    }
}

impl Downscaled {
    /// For a picture with these sides, neither of them zero; none of the small one's is longer than `side_max`.
    pub(super) fn new((width, height): (u32, u32), channels: usize, side_max: u32) -> Self {
        let longer = u64::from(width.max(height));
        let most = longer.min(u64::from(side_max));
        let small = |side: u32| (u64::from(side) * most + longer / 2) / longer;
        let small = |side| small(side).max(1) as u32;
        let (across, down) = (
            Side::new(width, small(width)),
            Side::new(height, small(height)),
        );
        let sums = vec![0; channels * across.counts.len() * down.counts.len()];
        Self {
            channels,
            across,
            down,
            sums,
        }
    }

    /// Adds pixels of the row `y`, which lie at these places of it.
    pub(super) fn add(&mut self, xs: &mut dyn Iterator<Item = u32>, y: u32, pixels: &[u8]) {
        let row = self.down.place(y) * self.across.counts.len();
        for (x, pixel) in xs.zip(pixels.chunks_exact(self.channels)) {
            let at = (row + self.across.place(x)) * self.channels;
            for (sum, colour) in self.sums[at..].iter_mut().zip(pixel) {
                *sum += u64::from(*colour);
            }
        }
    }

    /// The small picture, once every pixel was added.
    pub(super) fn finish(self) -> DynamicImage {
        let rows = self.down.counts.iter();
        let counts =
            rows.flat_map(|down| self.across.counts.iter().map(move |across| across * down));
        let pixels = self.sums.chunks_exact(self.channels).zip(counts);
        let bytes: Vec<u8> = pixels
            .flat_map(|(sums, count)| {
                sums.iter()
                    .map(move |sum| ((sum + count / 2) / count) as u8)
            })
            .collect();
        let (width, height) = (self.across.small, self.down.small);
        let made = match self.channels {
            1 => GrayImage::from_raw(width, height, bytes).map(DynamicImage::from),
            2 => GrayAlphaImage::from_raw(width, height, bytes).map(DynamicImage::from),
            3 => RgbImage::from_raw(width, height, bytes).map(DynamicImage::from),
            _ => RgbaImage::from_raw(width, height, bytes).map(DynamicImage::from),
        };
        made.expect("a sum for each colour of each pixel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pixel_counts_once_and_their_order_does_not() {
        // 5 × 2 becomes 3 × 1: two, two and one column.
        let rows = [[10, 20, 30, 50, 90], [20, 30, 50, 70, 110]];
        let mut in_order = Downscaled::new((5, 2), 1, 3);
        for (y, row) in rows.iter().enumerate() {
            in_order.add(&mut (0..5), y as u32, row);
        }
        let mut one_by_one = Downscaled::new((5, 2), 1, 3);
        for x in (0..5).rev() {
            for y in [1, 0] {
                let pixel = rows[y][x as usize];
                one_by_one.add(&mut std::iter::once(x), y as u32, &[pixel]);
            }
        }
        let made = in_order.finish();
        assert_eq!((made.width(), made.height()), (3, 1));
        assert_eq!(made.as_bytes(), [20, 50, 100]);
        assert_eq!(one_by_one.finish(), made);
    }

    #[test]
    fn sides_keep_their_shape_and_never_vanish() {
        for (sides, most, wanted) in [
            ((600, 300), 128, (128, 64)),
            ((30, 20), 1024, (30, 20)),
            ((32_768, 1), 64, (64, 1)),
            ((3, 32_768), 64, (1, 64)),
            ((1, 1), 64, (1, 1)),
        ] {
            let small = Downscaled::new(sides, 4, most);
            assert_eq!((small.across.small, small.down.small), wanted);
            let has_all = |side: &Side| side.counts.iter().all(|count| *count > 0);
            assert!(has_all(&small.across) && has_all(&small.down), "{sides:?}");
        }
    }
}
