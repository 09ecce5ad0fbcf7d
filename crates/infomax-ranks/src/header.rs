//! What each rank says before an exchange: which one, of what, and all of it where it is small.

/// The operations, as the ranks tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Hello,
    Sum,
    Gather,
    Broadcast,
    Barrier,
    Agree,
    Leave,
    /// The cards of all ranks, before NCCL joins them.
    Nccl,
    /// Who still answers, once NCCL has not ended in time.
    Stuck,
}

const CALLS: [(Call, &str); 9] = [
    (Call::Hello, "hello"),
    (Call::Sum, "sum"),
    (Call::Gather, "gather"),
    (Call::Broadcast, "broadcast"),
    (Call::Barrier, "barrier"),
    (Call::Agree, "agree"),
    (Call::Leave, "leave"),
    (Call::Nccl, "nccl"),
    (Call::Stuck, "stuck"),
];

impl Call {
    pub(crate) fn name(self) -> &'static str {
        CALLS.iter().find(|(call, _)| *call == self).map_or("", |(_, name)| *name)
    }
}

/// Up to so many bytes travel with the header, in one message.
pub(crate) const INLINE: usize = 8 << 10;

/// The longest text of a header.
const TEXT: usize = 4 << 10;

/// The longest header.
pub(crate) const LONGEST: usize = FIXED + TEXT + INLINE;

const FIXED: usize = 4 + 1 + 8 + 8 + 8 + 4;

/// `imx` and the version of this format.
const MAGIC: [u8; 4] = *b"imx\x01";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) call: Call,
    /// The number of the exchange.
    pub(crate) number: u64,
    /// A digest of what must be equal on all ranks.
    pub(crate) digest: u64,
    /// The bytes of the payload.
    pub(crate) bytes: u64,
    /// What the digest is of, in words; a host name; a reason.
    pub(crate) text: String,
    /// The payload, if it is small.
    pub(crate) inline: Vec<u8>,
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut end = self.text.len().min(TEXT);
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let kind = CALLS.iter().position(|(call, _)| *call == self.call).unwrap_or_default();
        let mut out = Vec::with_capacity(FIXED + end + self.inline.len());
        out.extend(MAGIC);
        out.push(kind as u8);
        for value in [self.number, self.digest, self.bytes] {
            out.extend(value.to_le_bytes());
        }
        out.extend((end as u32).to_le_bytes());
        out.extend(&self.text.as_bytes()[..end]);
        out.extend(&self.inline);
        out
    }

    /// `None` for bytes that are no header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (kind, rest) = rest.split_first()?;
        let (call, _) = *CALLS.get(usize::from(*kind))?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<8>()?;
        let (count, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (text, inline) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self {
            call,
            number: u64::from_le_bytes(*number),
            digest: u64::from_le_bytes(*digest),
            bytes: u64::from_le_bytes(*count),
            text: String::from_utf8_lossy(text).into_owned(),
            inline: inline.to_vec(),
        })
    }
}

/// FNV-1a of a text: it tells unequal shapes and configurations apart, not forgeries.
pub(crate) fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_a_long_text_is_cut_between_characters() {
        let header = Header {
            call: Call::Sum,
            number: 7,
            digest: digest("[3] F32"),
            bytes: 12,
            text: "[3] F32".into(),
            inline: vec![1, 2, 3],
        };
        assert_eq!(Header::decode(&header.encode()), Some(header.clone()));
        let long = Header { text: "\u{e9}".repeat(TEXT), ..header };
        let bytes = long.encode();
        assert!(bytes.len() <= LONGEST);
        let found = Header::decode(&bytes).unwrap();
        assert_eq!((found.text.len(), found.inline), (TEXT, vec![1, 2, 3]));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [&b""[..], b"imx\x02\x00", b"imx\x01\xff", &[0; 64]] {
            assert_eq!(Header::decode(bytes), None);
        }
    }
}
