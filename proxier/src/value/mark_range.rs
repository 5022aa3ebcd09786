//! Ranges of firewall marks.

use std::fmt;
use std::str::FromStr;

/// Firewall marks that are ours: a value, and the bits that differ from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRange {
    /// Bits that every mark has.
    value: u32,
    /// Bits that are free.
    free: u32,
}

impl Default for MarkRange {
    /// 0x1000 to 0x107f: bits that nobody is known to use. Calico and Cilium have the upper half, Cilium
    /// 0x0f00, kube-proxy 0x4000 and 0x8000, the CNI plugin portmap 0x2000, that of AWS 0x80.
    fn default() -> Self {
        Self { value: 0x1000, free: 0x007f }
    }
}

/// Why a text is no range of marks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkRangeError {
    /// It is not VALUE/MASK.
    #[error("expected VALUE/MASK in hexadecimal, such as {}", MarkRange::default())]
    Form,
    /// A bit of the value is not in the mask, or nothing is free, or nothing is fixed.
    #[error("MASK must have all bits of VALUE, which must not be 0, and more")]
    Bits,
}

impl FromStr for MarkRange {
    type Err = MarkRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
            u32::from_str_radix(digits.unwrap_or_default(), 16).map_err(|_| MarkRangeError::Form)
        };
        let (value, mask) = text.split_once('/').ok_or(MarkRangeError::Form)?;
        let (value, mask) = (number(value)?, number(mask)?);
        if value == 0 || value & mask != value || value == mask {
            return Err(MarkRangeError::Bits);
        }
        Ok(Self { value, free: mask & !value })
    }
}

impl fmt::Display for MarkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.value | self.free)
    }
}

impl MarkRange {
    /// Whether a mark is one of these.
    pub fn contains(self, mark: u32) -> bool {
        mark & !self.free == self.value
    }

    /// The bits that all of them have.
    pub fn common(self) -> u32 {
        self.value
    }

    /// Whether all of them have this bit, 0 to 31.
    pub fn always_has(self, bit: u8) -> bool {
        self.value & 1_u32.wrapping_shl(bit.into()) != 0
    }

    /// Those that have not this bit, unless all have it.
    #[must_use]
    pub fn without(self, bit: u8) -> Self {
        Self { free: self.free & !1_u32.wrapping_shl(bit.into()), ..self }
    }

    /// The mark of this number, counted from 0 in ascending order.
    pub fn at(self, number: u32) -> Option<u32> {
        let (mut mark, mut rest) = (self.value, number);
        for bit in (0..u32::BITS).map(|at| 1 << at).filter(|bit| self.free & bit != 0) {
            mark |= if rest & 1 == 1 { bit } else { 0 };
            rest >>= 1;
        }
        (rest == 0).then_some(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_written_and_counts_in_its_free_bits() {
        let range: MarkRange = "0x1000/0x1005".parse().unwrap();
        assert_eq!(range.to_string(), "0x1000/0x1005");
        let marks: Vec<u32> = (0..).map_while(|number| range.at(number)).collect();
        assert_eq!(marks, [0x1000, 0x1001, 0x1004, 0x1005]);
        assert!(marks.iter().all(|mark| range.contains(*mark)));
        assert!(![0, 1, 0x1002, 0x5000].iter().any(|mark| range.contains(*mark)));
        assert!(range.always_has(12) && !range.always_has(2));
        assert_eq!(range.without(2).to_string(), "0x1000/0x1001");
        assert_eq!(range.without(12), range);
        assert_eq!(MarkRange::default().to_string().parse(), Ok(MarkRange::default()));
        assert_eq!((0..).map_while(|number| MarkRange::default().at(number)).count(), 128);
    }

    #[test]
    fn what_is_no_range_says_why() {
        for text in ["", "0x1000", "4096/8191", "0x1000/", "0x/0x1", "0x1000/0x100000000"] {
            assert_eq!(text.parse::<MarkRange>(), Err(MarkRangeError::Form), "{text}");
        }
        for text in ["0x0/0xff", "0x100/0xff", "0x100/0x100"] {
            assert_eq!(text.parse::<MarkRange>(), Err(MarkRangeError::Bits), "{text}");
        }
    }
}
