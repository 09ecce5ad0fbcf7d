//! The markers before the scan of a file of the common kind.

use super::huffman::Table;

/// A component of the image: its sampling, and its tables.
#[derive(Debug, Default)]
pub(super) struct Component {
    id: u8,
    /// Blocks in a unit of the scan, across.
    pub(super) h: usize,
    /// Blocks in a unit of the scan, down.
    pub(super) v: usize,
    quant: usize,
    /// Index into [`Header::dc`].
    pub(super) dc: usize,
    /// Index into [`Header::ac`].
    pub(super) ac: usize,
}

/// All that the scan needs to be decoded.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    /// One (gray) or three (YCbCr).
    pub(super) components: Vec<Component>,
    quants: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Table>; 4],
    pub(super) ac: [Option<Table>; 4],
    /// Units between restart markers; zero if there are none.
    pub(super) restart: usize,
    /// Where the entropy-coded data begins.
    pub(super) data: usize,
}

impl Header {
    /// Reads the markers up to the first scan; `None` for every kind of file that is not the common one,
    /// and for everything that looks damaged.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return None;
        }
        let mut header = Self::default();
        let (mut jfif, mut adobe) = (false, None);
        let mut at = 2;
        loop {
            if *bytes.get(at)? != 0xff {
                return None;
            }
            let code = *bytes.get(at + 1)?;
            // Any number of 0xff may stand before the code of a marker.
            if code == 0xff {
                at += 1;
                continue;
            }
            let length = word(bytes, at + 2)?;
            let segment = bytes.get(at + 4..at + 2 + length)?;
            at += 2 + length;
            match code {
                0xc0 | 0xc1 => header.frame(segment)?,
                0xc4 => header.huffman(segment)?,
                0xdb => header.quantization(segment)?,
                0xdd if segment.len() == 2 => header.restart = word(segment, 0)?,
                0xda => {
                    header.scan(segment)?;
                    header.data = at;
                    break;
                }
                0xe0 => jfif |= segment.starts_with(b"JFIF\0") && segment.len() >= 14,
                0xee if segment.starts_with(b"Adobe") && segment.len() >= 12 => adobe = Some(segment[11]),
                0xe0..=0xef | 0xfe => {}
                _ => return None,
            }
        }
        // Three components are YCbCr where libjpeg-turbo takes them for that without a doubt.
        let ids: Vec<u8> = header.components.iter().map(|c| c.id).collect();
        let clear = match (jfif, adobe) {
            (true, None) | (_, Some(1)) => true,
            (false, None) => ids == [1, 2, 3],
            _ => false,
        };
        (header.components.len() == 1 || clear).then_some(header)
    }

    fn frame(&mut self, segment: &[u8]) -> Option<()> {
        let &[8, _, _, _, _, count, ..] = segment else { return None };
        if !self.components.is_empty() || !matches!(count, 1 | 3) || segment.len() != 6 + 3 * count as usize {
            return None;
        }
        (self.height, self.width) = (word(segment, 1)?, word(segment, 3)?);
        for &[id, sampling, quant] in segment[6..].as_chunks::<3>().0 {
            let (h, v) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            if quant > 3 || self.components.iter().any(|c| c.id == id) {
                return None;
            }
            self.components.push(Component { id, h, v, quant: quant.into(), ..Component::default() });
        }
        let sampling: Vec<_> = self.components.iter().map(|c| (c.h, c.v)).collect();
        let known = match sampling[..] {
            [gray] => gray == (1, 1),
            [(1 | 2, 1) | (2, 2), (1, 1), (1, 1)] => true,
            _ => false,
        };
        known.then_some(())
    }

    fn quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [info, rest @ ..] = segment {
            let wide = match info >> 4 {
                0 => 1,
                1 => 2,
                _ => return None,
            };
            let values = rest.get(..64 * wide)?;
            let mut table = [0; 64];
            for (value, bytes) in table.iter_mut().zip(values.chunks_exact(wide)) {
                *value = bytes.iter().fold(0, |value, byte| value << 8 | u16::from(*byte));
            }
            *self.quants.get_mut(usize::from(info & 15))? = Some(table);
            segment = &rest[64 * wide..];
        }
        Some(())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [info, rest @ ..] = segment {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let total = counts.iter().map(|n| usize::from(*n)).sum();
            let symbols = rest.get(..total)?;
            let (tables, ac) = match info >> 4 {
                0 => (&mut self.dc, false),
                1 => (&mut self.ac, true),
                _ => return None,
            };
            *tables.get_mut(usize::from(info & 15))? = Some(Table::new(counts, symbols, ac)?);
            segment = &rest[total..];
        }
        Some(())
    }

    fn scan(&mut self, segment: &[u8]) -> Option<()> {
        let count = self.components.len();
        // All components in the order of the frame, in one scan of all coefficients.
        if count == 0 || segment.len() != 4 + 2 * count || usize::from(segment[0]) != count {
            return None;
        }
        if segment[1 + 2 * count..] != [0, 63, 0] {
            return None;
        }
        for (component, &[id, tables]) in self.components.iter_mut().zip(segment[1..].as_chunks::<2>().0) {
            let (dc, ac) = (usize::from(tables >> 4), usize::from(tables & 15));
            self.dc.get(dc)?.as_ref()?;
            self.ac.get(ac)?.as_ref()?;
            self.quants[component.quant]?;
            if component.id != id {
                return None;
            }
            (component.dc, component.ac) = (dc, ac);
        }
        Some(())
    }

    /// The steps of quantization of a component, in the order of the scan.
    pub(super) fn steps(&self, component: &Component) -> Option<[i32; 64]> {
        let table = self.quants[component.quant].as_ref()?;
        let mut steps = [0; 64];
        steps.iter_mut().zip(table).for_each(|(step, value)| *step = i32::from(*value));
        Some(steps)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at..at + 2) {
        Some(&[high, low]) => Some(usize::from(high) << 8 | usize::from(low)),
        _ => None,
    }
}
