//! Attributes: an append-only writer, and a reader that borrows.

use netlink_packet_core::{NLA_F_NESTED, NLA_TYPE_MASK};

use crate::Malformed;

/// Bytes of `struct nlattr`.
const HEADER: usize = 4;

/// Appends attributes. Nothing is allocated for one: a batch of thousands is one buffer.
///
/// The length must be a multiple of four before, and is afterwards.
pub trait PutAttributes {
    /// Appends an attribute.
    fn attribute(&mut self, kind: u16, value: &[u8]);
    /// Appends a text with a closing zero.
    fn text(&mut self, kind: u16, text: impl AsRef<[u8]>);
    /// Appends an attribute that contains those that `body` appends.
    fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self));
}

impl PutAttributes for Vec<u8> {
    // Most values have a length that the caller knows: then this is a few stores.
    #[inline]
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        header(self, kind, value.len());
        self.extend_from_slice(value);
        pad(self);
    }

    fn text(&mut self, kind: u16, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        header(self, kind, text.len() + 1);
        self.extend_from_slice(text);
        self.push(0);
        pad(self);
    }

    fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.len();
        header(self, kind | NLA_F_NESTED, 0);
        body(self);
        let length = (self.len() - start) as u16;
        self[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

#[inline]
fn header(out: &mut Vec<u8>, kind: u16, value: usize) {
    let ([l0, l1], [k0, k1]) = (((value + HEADER) as u16).to_ne_bytes(), kind.to_ne_bytes());
    out.extend_from_slice(&[l0, l1, k0, k1]);
}

#[inline]
fn pad(out: &mut Vec<u8>) {
    let missing = out.len().next_multiple_of(4) - out.len();
    out.extend_from_slice(&[0; 3][..missing]);
}

/// Attributes one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

/// Iterator over [`Attributes`]. A malformed one is an error, and the last item.
#[derive(Debug, Clone)]
pub struct AttributesIter<'a>(&'a [u8]);

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without the flags for nesting and byte order.
    pub kind: u16,
    /// What it says.
    pub value: &'a [u8],
    /// Header and value, as they came.
    pub whole: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The first attribute of this kind.
    pub fn find(self, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
        for attribute in self {
            let attribute = attribute?;
            if attribute.kind == kind {
                return Ok(Some(attribute));
            }
        }
        Ok(None)
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;
    type IntoIter = AttributesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        AttributesIter(self.0)
    }
}

impl<'a> Iterator for AttributesIter<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some(&[l0, l1, k0, k1]) = bytes.first_chunk::<HEADER>() else {
            return Some(Err(Malformed("attribute header")));
        };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = bytes.get(HEADER..length) else {
            return Some(Err(Malformed("attribute length")));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK;
        Some(Ok(Attribute { kind, value, whole: &bytes[..length] }))
    }
}

impl<'a> Attribute<'a> {
    /// The attributes inside this one.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes(self.value)
    }

    /// A number of one byte.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.bytes().map(|[byte]| byte)
    }

    /// A number in the byte order of this machine.
    pub fn u16(&self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_ne_bytes)
    }

    /// A number in the byte order of this machine.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_ne_bytes)
    }

    /// A number in network byte order.
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// A number in network byte order.
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// A text, up to its closing zero.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).map_err(|_| Malformed("text"))
    }

    /// A value of exactly this length.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed("number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        out.nested(7, |out| {
            out.attribute(1, &[1, 2, 3]);
            out.text(2, "lo");
            out.attribute(3, &80_u16.to_be_bytes());
        });
        out.attribute(0x4000 | 8, &5_u32.to_ne_bytes());
        assert_eq!(out.len() % 4, 0);
        let outer = Attributes(&out).find(7).unwrap().unwrap();
        let inner: Vec<_> = outer.nested().into_iter().map(Result::unwrap).collect();
        assert_eq!((inner[0].kind, inner[0].value, inner[0].whole.len()), (1, &[1, 2, 3][..], 7));
        assert_eq!(inner[1].text(), Ok("lo"));
        assert_eq!(inner[2].be16(), Ok(80));
        assert_eq!(inner[2].u8(), Err(Malformed("number")));
        assert_eq!(Attributes(&out).find(8).unwrap().unwrap().u32(), Ok(5));
        assert_eq!(Attributes(&out).find(9), Ok(None));
    }

    #[test]
    fn a_length_that_lies_is_the_last_item() {
        let bytes = [8, 0, 1, 0, 1, 2, 3, 4, 9, 0, 1, 0, 1];
        let items: Vec<_> = Attributes(&bytes).into_iter().collect();
        assert_eq!(items.len(), 2);
        assert_eq!(items[1], Err(Malformed("attribute length")));
        let short = Attributes(&[3, 0, 1, 0]).into_iter().next();
        assert_eq!(short, Some(Err(Malformed("attribute length"))));
        let cut = Attributes(&[3, 0]).into_iter().next();
        assert_eq!(cut, Some(Err(Malformed("attribute header"))));
    }
}
