//! Colour profiles (ICC.1): which known space one means, and a profile that says so and nothing else.
//!
//! A profile holds text, dates, names and numbers of devices, and the measures of one screen tell it from all others. So no profile
//! is published as it came: one that means a space which pictures are commonly in is replaced by this program's own profile of that
//! space, the same for everybody, and any other goes. Without one a picture is shown as sRGB, which is what most are; one of a space
//! that is not known here then looks somewhat paler or stronger.

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

/// Bytes of a profile that is looked at; larger ones hold tables of colours, which no known space needs.
const PROFILE_BYTES_MAX: usize = 64 * 1024;
/// Parts of a profile at most.
const TAGS_MAX: usize = 100;
/// Before the table of parts.
const HEAD_BYTES: usize = 128;
/// How far a colour may lie from that of a known space, and a curve in its middle.
const COLOUR_ERROR_MAX: f64 = 0.01;
const CURVE_ERROR_MAX: f64 = 0.02;
/// How a profile in a PNG is named.
const NAME: &[u8] = b"ICC\0\0";

/// A space that is not sRGB and that pictures are commonly in.
struct Space {
    name: &'static str,
    /// Red, green and blue, each as XYZ under the light of profiles (D50).
    colours: [[f64; 3]; 3],
    /// What half of a colour's full value is of its full light.
    middle: f64,
    /// The kind of its curve, and the numbers of that.
    curve: (u16, &'static [f64]),
}

const SPACES: [Space; 2] = [
    Space {
        name: "P3",
        colours: [
            [0.515_12, 0.241_20, -0.001_05],
            [0.291_98, 0.692_25, 0.041_89],
            [0.157_10, 0.066_57, 0.784_07],
        ],
        middle: 0.2140,
        curve: (3, &[2.4, 1.0 / 1.055, 0.055 / 1.055, 1.0 / 12.92, 0.040_45]),
    },
    // Adobe RGB (1998).
    Space {
        name: "A98",
        colours: [
            [0.609_74, 0.311_11, 0.019_47],
            [0.205_28, 0.625_67, 0.060_87],
            [0.149_19, 0.063_22, 0.744_57],
        ],
        middle: 0.2178,
        curve: (0, &[2.199_218_75]),
    },
];

/// The light of day (D65) as it is seen under that of profiles.
const ADAPTATION: [f64; 9] = [
    1.047_88, 0.022_92, -0.050_20, 0.029_59, 0.990_48, -0.017_06, -0.009_23, 0.015_08, 0.751_68,
];
const WHITE: [f64; 3] = [0.9642, 1.0, 0.8249];

/// The profile to publish in the place of this one.
pub(super) fn known(profile: &[u8]) -> Option<Vec<u8>> {
    let read = Profile::read(profile)?;
    let space = SPACES.iter().find(|space| read.is_of(space));
    space.map(Space::profile)
}

/// The same of the content of a PNG's chunk, in which a profile lies packed.
pub(super) fn known_packed(content: &[u8]) -> Option<Vec<u8>> {
    let name = content.iter().position(|byte| *byte == 0)?;
    let packed = content.get(name + 2..)?;
    let profile = decompress_to_vec_zlib_with_limit(packed, PROFILE_BYTES_MAX).ok()?;
    let known = known(&profile)?;
    Some([NAME, &compress_to_vec_zlib(&known, 9)].concat())
}

/// What a profile says by its numbers.
#[derive(Debug, PartialEq)]
struct Profile {
    colours: [[f64; 3]; 3],
    middles: [f64; 3],
}

impl Profile {
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PROFILE_BYTES_MAX
            || bytes.get(16..24)? != b"RGB XYZ "
            || bytes.get(36..40)? != b"acsp"
        {
            return None;
        }
        // Tables of colours would be shown instead of the numbers.
        if tag(bytes, b"A2B0").is_some() {
            return None;
        }
        let colour = |name| {
            let part = tag(bytes, name)?;
            let is_colour = part.starts_with(b"XYZ ");
            let place = |place: usize| fixed(part, 8 + 4 * place);
            is_colour.then_some([place(0)?, place(1)?, place(2)?])
        };
        let middle = |name| middle_of(tag(bytes, name)?);
        Some(Self {
            colours: [colour(b"rXYZ")?, colour(b"gXYZ")?, colour(b"bXYZ")?],
            middles: [middle(b"rTRC")?, middle(b"gTRC")?, middle(b"bTRC")?],
        })
    }

    fn is_of(&self, space: &Space) -> bool {
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < COLOUR_ERROR_MAX;
        let colours = self.colours.as_flattened().iter();
        let mut middles = self.middles.iter();
        colours.zip(space.colours.as_flattened()).all(is_near)
            && middles.all(|middle| (middle - space.middle).abs() < CURVE_ERROR_MAX)
    }
}

/// A part of a profile by its name.
fn tag<'a>(bytes: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    let count = number(bytes, HEAD_BYTES)?.min(TAGS_MAX);
    let entries = bytes.get(HEAD_BYTES + 4..)?.chunks_exact(12).take(count);
    let entry = entries.into_iter().find(|entry| entry.starts_with(name))?;
    let (from, length) = (number(entry, 4)?, number(entry, 8)?);
    bytes.get(from..from.checked_add(length)?)
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(four) as usize)
}

/// A number with 16 bits behind the point.
fn fixed(bytes: &[u8], at: usize) -> Option<f64> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(f64::from(i32::from_be_bytes(four)) / 65_536.0)
}

/// The light of half of a colour, by its curve.
fn middle_of(curve: &[u8]) -> Option<f64> {
    let short = |at: usize| {
        let two = curve.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(two))
    };
    match curve.get(..4)? {
        b"curv" => match number(curve, 8)? {
            0 => Some(0.5),
            1 => Some(0.5_f64.powf(f64::from(short(12)?) / 256.0)),
            count => {
                let middle = (count - 1) / 2;
                let at = middle.checked_mul(2)?.checked_add(12)?;
                Some(f64::from(short(at)?) / 65_535.0)
            }
        },
        b"para" => {
            let value = |place: usize| fixed(curve, 12 + 4 * place);
            let power = value(0)?;
            let (scale, shift, above) = match short(8)? {
                0 => (1.0, 0.0, 0.0),
                1 | 3 => (value(1)?, value(2)?, 0.0),
                2 => (value(1)?, value(2)?, value(3)?),
                4 => (value(1)?, value(2)?, value(5)?),
                _ => return None,
            };
            Some((scale * 0.5 + shift).powf(power) + above)
        }
        _ => None,
    }
}

impl Space {
    /// A profile that means this space: the same bytes always.
    fn profile(&self) -> Vec<u8> {
        let mut parts = Parts::default();
        let text: Vec<u8> = self
            .name
            .encode_utf16()
            .flat_map(u16::to_be_bytes)
            .collect();
        let head = [1, 12, u32::from_be_bytes(*b"enUS"), text.len() as u32, 28];
        let head = head.map(u32::to_be_bytes);
        parts.add(
            &[b"desc", b"cprt"],
            &[b"mluc\0\0\0\0", head.as_flattened(), &text].concat(),
        );
        parts.add(&[b"wtpt"], &numbers(b"XYZ ", &WHITE));
        parts.add(&[b"chad"], &numbers(b"sf32", &ADAPTATION));
        for (name, colour) in [b"rXYZ", b"gXYZ", b"bXYZ"].into_iter().zip(&self.colours) {
            parts.add(&[name], &numbers(b"XYZ ", colour));
        }
        let (kind, values) = self.curve;
        let kind = [kind.to_be_bytes(), [0; 2]];
        let curve: Vec<u8> = values.iter().copied().flat_map(fixed_bytes).collect();
        let curve = [b"para\0\0\0\0", kind.as_flattened(), &curve].concat();
        parts.add(&[b"rTRC", b"gTRC", b"bTRC"], &curve);
        parts.finish()
    }
}

fn fixed_bytes(value: f64) -> [u8; 4] {
    ((value * 65_536.0).round() as i32).to_be_bytes()
}

fn numbers(kind: &[u8; 4], values: &[f64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().copied().flat_map(fixed_bytes).collect();
    [kind.as_slice(), &[0; 4], &values].concat()
}

/// The parts of a profile that is being written.
#[derive(Default)]
struct Parts {
    /// Names, and where in the content each lies.
    table: Vec<(&'static [u8; 4], usize, usize)>,
    content: Vec<u8>,
}

impl Parts {
    /// Adds one part, which may have several names.
    fn add(&mut self, names: &[&'static [u8; 4]], content: &[u8]) {
        let at = self.content.len();
        let entries = names.iter().map(|name| (*name, at, content.len()));
        self.table.extend(entries);
        self.content.extend_from_slice(content);
        let even = self.content.len().next_multiple_of(4);
        self.content.resize(even, 0);
    }

    fn finish(self) -> Vec<u8> {
        let begins = HEAD_BYTES + 4 + 12 * self.table.len();
        let length = begins + self.content.len();
        let mut bytes = vec![0; HEAD_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &(length as u32).to_be_bytes());
        // Version 4.3, for a screen, of a day like any other.
        put(8, &[4, 0x30, 0, 0]);
        put(12, b"mntrRGB XYZ ");
        put(24, &[0x07, 0xd0, 0, 1, 0, 1]);
        put(36, b"acsp");
        put(68, &numbers(b"    ", &WHITE)[8..]);
        bytes.extend_from_slice(&(self.table.len() as u32).to_be_bytes());
        for (name, at, length) in self.table {
            let place = [begins + at, length].map(|number| (number as u32).to_be_bytes());
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(place.as_flattened());
        }
        bytes.extend_from_slice(&self.content);
        bytes
    }
}

/// A profile of the first known space as a camera writes it, with a text in all the places where one may be.
#[cfg(test)]
pub(super) fn of_a_camera(text: &[u8]) -> Vec<u8> {
    let note = [b"text\0\0\0\0", text, b"\0"].concat();
    let own = SPACES[0].profile();
    let part = |name| tag(&own, name).expect("it is written above");
    let mut parts = Parts::default();
    parts.add(&[b"desc", b"cprt", b"dmnd", b"mmod", b"vcgt"], &note);
    for name in [
        b"wtpt", b"chad", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC",
    ] {
        parts.add(&[name], part(name));
    }
    let mut made = parts.finish();
    made[4..8].copy_from_slice(b"appl");
    made[48..56].copy_from_slice(b"APPLdisp");
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_space_is_told_by_its_numbers_and_its_own_profile_stays() {
        for space in &SPACES {
            let profile = space.profile();
            assert!(profile.len() <= 440, "{}", profile.len());
            let read = Profile::read(&profile).unwrap();
            assert!(read.is_of(space));
            assert_eq!(known(&profile), Some(profile));
            assert_eq!(SPACES.iter().filter(|other| read.is_of(other)).count(), 1);
        }
    }

    #[test]
    fn what_a_camera_says_beside_the_space_goes() {
        let note = b"by Ada, serial number 7";
        let whole = of_a_camera(note);
        let has_note = |bytes: &[u8]| bytes.windows(note.len()).any(|part| part == note);
        let kept = known(&whole).unwrap();
        assert!(has_note(&whole) && !has_note(&kept));
        assert_eq!(kept, SPACES[0].profile());
        let packed = [b"a name\0\0", &compress_to_vec_zlib(&whole, 9)[..]].concat();
        let kept = known_packed(&packed).unwrap();
        assert!(kept.len() < packed.len());
        assert_eq!(known_packed(&kept), Some(kept));
    }

    #[test]
    fn other_spaces_and_what_is_no_profile_are_not_known() {
        let srgb = Space {
            name: "sRGB",
            colours: [
                [0.4361, 0.2225, 0.0139],
                [0.3851, 0.7169, 0.0971],
                [0.1431, 0.0606, 0.7141],
            ],
            ..SPACES[0]
        };
        let linear = Space {
            curve: (0, &[1.0]),
            ..SPACES[0]
        };
        for other in [srgb, linear] {
            let profile = other.profile();
            assert!(Profile::read(&profile).is_some());
            assert_eq!(known(&profile), None);
        }
        let mut cmyk = SPACES[0].profile();
        cmyk[16..20].copy_from_slice(b"CMYK");
        let with_tables = [b"A2B0", &SPACES[0].profile()[..]].concat();
        for other in [&cmyk[..], &with_tables, b"", b"no profile"] {
            assert_eq!(known(other), None);
            assert_eq!(known_packed(other), None);
        }
        let mut tables = SPACES[0].profile();
        let at = tables.windows(4).position(|name| name == b"cprt").unwrap();
        tables[at..at + 4].copy_from_slice(b"A2B0");
        assert_eq!(known(&tables), None);
    }

    #[test]
    fn curves_are_read_in_all_their_kinds() {
        let curve = |kind: &[u8], values: &[f64]| {
            let values: Vec<u8> = values.iter().copied().flat_map(fixed_bytes).collect();
            middle_of(&[kind, &values].concat()).unwrap()
        };
        for (kind, values) in [
            (&b"para\0\0\0\0\0\0\0\0"[..], &[2.0][..]),
            (b"para\0\0\0\0\0\x01\0\0", &[2.0, 0.5, 0.25]),
            (b"para\0\0\0\0\0\x02\0\0", &[2.0, 0.5, 0.0, 0.1875]),
            (b"para\0\0\0\0\0\x03\0\0", &[2.0, 0.5, 0.25, 0.0, 0.0]),
            (
                b"para\0\0\0\0\0\x04\0\0",
                &[2.0, 0.5, 0.0, 0.0, 0.0, 0.1875, 0.0],
            ),
        ] {
            assert!((curve(kind, values) - 0.25).abs() < 1e-4, "{kind:?}");
        }
        let list = |words: &[u16]| {
            let count = (words.len() as u32).to_be_bytes();
            let words: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            middle_of(&[b"curv\0\0\0\0", &count[..], &words].concat())
        };
        assert_eq!(list(&[]), Some(0.5));
        assert_eq!(list(&[0x0200]), Some(0.25));
        assert_eq!(list(&[0, 0, 0xffff]), Some(0.0));
        assert_eq!(middle_of(b"curv\0\0\0\0\xff\xff\xff\xff"), None);
        assert_eq!(middle_of(b"para\0\0\0\0\0\x05\0\0"), None);
    }

    #[test]
    fn a_profile_that_unpacks_to_more_than_is_looked_at_is_not_known() {
        let bomb = compress_to_vec_zlib(&vec![0; 32 * 1024 * 1024], 9);
        assert!(bomb.len() < 100_000);
        assert_eq!(known_packed(&[NAME, &bomb].concat()), None);
        let mut long = SPACES[0].profile();
        long.resize(PROFILE_BYTES_MAX + 1, 0);
        assert_eq!(known(&long), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_known_profile_or_none(
            place in 0..440usize,
            value in any::<u8>(),
            length in 0..441usize,
        ) {
            let mut bytes = of_a_camera(b"x");
            bytes[place] = value;
            let _ = known(&bytes);
            let _ = known(&bytes[..length.min(bytes.len())]);
            let _ = known_packed(&bytes);
        }
    }
}
