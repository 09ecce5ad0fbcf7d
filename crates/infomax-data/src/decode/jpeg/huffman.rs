//! Huffman tables that give run, length and value of a short code in one look.

use super::bits::Bits;

/// Codes up to this length, with the bits of their value, are found by one look.
const SHORT: u32 = 10;

/// The step of an end of block: it leads behind every coefficient.
pub(super) const END: usize = 64;

/// Added to the step of a code whose value is not in the table.
const APART: u32 = 128;

/// The step of a code that is not in the table.
const LONG: u32 = 255;

/// A table of codes.
///
/// Each entry holds, from the lowest bit on: the bits to consume (8), by how many coefficients the position
/// moves (8), and the value of the coefficient (16). If code and value are too long together, the bits are those
/// of the code alone, [`APART`] is added to the step, and in place of the value stands how many bits it has. Of
/// codes that are too long by themselves the step is [`LONG`], and nothing else is known.
#[derive(Debug)]
pub(super) struct Table {
    entries: Box<[u32; 1 << SHORT]>,
    /// By length: where the codes of this length end, as 16 bits.
    ends: [u32; 17],
    /// By length: the index of a symbol, less its code.
    offsets: [i32; 17],
    symbols: [u8; 256],
    ac: bool,
}

/// What a code says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry(u32);

impl Entry {
    fn new(bits: u32, step: u32, value: i32) -> Self {
        Self(bits | step << 8 | (value as u32) << 16)
    }

    /// By how many coefficients the position moves, and 64 at the end of the block.
    #[inline(always)]
    pub(super) fn step(self) -> usize {
        (self.0 >> 8 & 0xff) as usize
    }

    /// The coefficient at the new position.
    #[inline(always)]
    pub(super) fn value(self) -> i32 {
        self.0 as i32 >> 16
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0 & 0xff
    }
}

impl Table {
    /// Builds the table of the given number of codes of each length; `None` if there are no such codes.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8], ac: bool) -> Option<Self> {
        let mut table = Self {
            entries: Box::new([LONG << 8; 1 << SHORT]),
            ends: [0; 17],
            offsets: [0; 17],
            symbols: [0; 256],
            ac,
        };
        table.symbols.get_mut(..symbols.len())?.copy_from_slice(symbols);
        let (mut code, mut index) = (0u32, 0);
        for (length, &count) in (1u32..).zip(counts) {
            let end = code + u32::from(count);
            if end > 1 << length {
                return None;
            }
            table.offsets[length as usize] = index as i32 - code as i32;
            for &symbol in symbols.get(index..index + usize::from(count))? {
                if length <= SHORT {
                    table.enter(code, length, symbol);
                }
                code += 1;
                index += 1;
            }
            table.ends[length as usize] = end << (16 - length);
            code = end << 1;
        }
        Some(table)
    }

    /// Writes the entries that begin with a code.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        let places = 1 << (SHORT - length);
        let Some((step, size)) = meaning(symbol, self.ac) else { return };
        let start = (code << (SHORT - length)) as usize;
        if length + size > SHORT {
            let entry = Entry::new(length, APART + step, size as i32);
            self.entries[start..start + places].fill(entry.0);
            return;
        }
        let each = places >> size;
        for (extra, chunk) in self.entries[start..start + places].chunks_exact_mut(each).enumerate() {
            chunk.fill(Entry::new(length + size, step, extend(extra as u32, size)).0);
        }
    }

    /// Looks at the next code; see [`Table::resolve`].
    #[inline(always)]
    pub(super) fn look(&self, bits: &Bits) -> Entry {
        Entry(self.entries[bits.peek::<SHORT>()])
    }

    /// Completes an entry whose step is beyond [`END`]; `None` if there is no such code, or none that a file of
    /// 8 bits can have.
    #[inline(always)]
    pub(super) fn resolve(&self, entry: Entry, bits: &Bits) -> Option<Entry> {
        let step = entry.step() as u32;
        if step == LONG {
            return self.long(bits.window());
        }
        let (length, size) = (entry.bits(), entry.value() as u32 & 15);
        let extra = (bits.window() << length) >> 1 >> (31 - size);
        Some(Entry::new(length + size, step - APART, extend(extra, size)))
    }

    /// The next code of any length.
    #[cold]
    #[inline(never)]
    fn long(&self, window: u32) -> Option<Entry> {
        let code = window >> 16;
        let length = (1..17).find(|length| code < self.ends[*length])?;
        let index = (code >> (16 - length)) as i32 + self.offsets[length];
        let symbol = *self.symbols.get(usize::try_from(index).ok()?)?;
        let (step, size) = meaning(symbol, self.ac)?;
        let length = length as u32;
        let extra = (window << length).checked_shr(32 - size).unwrap_or(0);
        Some(Entry::new(length + size, step, extend(extra, size)))
    }
}

/// By how many coefficients a symbol moves, and how many bits of value follow it.
fn meaning(symbol: u8, ac: bool) -> Option<(u32, u32)> {
    let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
    match (ac, run, size) {
        (false, 0, 0..=11) => Some((0, size)),
        (true, 0, 0) => Some((END as u32, 0)),
        // Sixteen zeros: the last of them is written like a value.
        (true, 15, 0) => Some((16, 0)),
        (true, _, 1..=10) => Some((run + 1, size)),
        _ => None,
    }
}

/// The value of so many bits: those that begin with 0 are negative.
fn extend(extra: u32, size: u32) -> i32 {
    match size {
        0 => 0,
        _ if extra >> (size - 1) == 1 => extra as i32,
        _ => extra as i32 - (1 << size) + 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_of_both_signs() {
        let values: Vec<i32> = (0..8).map(|extra| extend(extra, 3)).collect();
        assert_eq!(values, [-7, -6, -5, -4, 4, 5, 6, 7]);
        assert_eq!(extend(0, 0), 0);
    }

    #[test]
    fn short_and_long_codes() {
        // One code of each length: 0, 10, 110, ...; each has a run of 1 and as many bits as its length, up to 10.
        let symbols: Vec<u8> = (1..=16).map(|length| 0x10 | length.min(10)).collect();
        let table = Table::new(&[1; 16], &symbols, true).unwrap();
        for length in 1..=16u32 {
            let size = length.min(10);
            let code = ((1u32 << length) - 2) << (32 - length);
            let window = code | 1 << (31 - length);
            let entry = table.long(window).unwrap();
            assert_eq!((entry.bits(), entry.step(), entry.value()), (length + size, 2, 1 << (size - 1)));
            let bytes = [&window.to_be_bytes()[..], &[0; 8]].concat();
            let mut bits = Bits::new(&bytes);
            bits.refill();
            let short = table.look(&bits);
            match length + size <= SHORT {
                true => assert_eq!(short.0, entry.0),
                false => assert_eq!(table.resolve(short, &bits).unwrap().0, entry.0),
            }
        }
        assert!(table.long(u32::MAX).is_none());
    }

    #[test]
    fn too_many_codes_are_refused() {
        let mut counts = [0; 16];
        counts[0] = 3;
        assert!(Table::new(&counts, &[1, 2, 3], true).is_none());
        counts[0] = 2;
        assert!(Table::new(&counts, &[1, 2], true).is_some());
        assert!(Table::new(&counts, &[1], true).is_none());
    }
}
