//! Bytes of netfilter messages: an append-only writer, and a reader that never panics.

use std::io;

use netlink_packet_core::{
    NLA_F_NESTED, NLA_TYPE_MASK, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST,
};

use super::{Refusal, malformed};

/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct nfgenmsg`
const FAMILY_HEADER: usize = 4;

/// What stands before the attributes of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    /// `NFNL_SUBSYS_*`
    pub(crate) subsystem: u8,
    /// The subsystem's command.
    pub(crate) command: u8,
    /// `NLM_F_*` besides `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    /// Address family of `struct nfgenmsg`.
    pub(crate) family: u8,
}

/// Requests that are sent together.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// One attribute of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attribute<'a> {
    /// Its number, without the flags for nesting and byte order.
    pub(crate) kind: u16,
    pub(crate) value: &'a [u8],
    /// Header and value as they came.
    pub(crate) whole: &'a [u8],
}

/// One message within a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    payload: &'a [u8],
}

impl Messages {
    /// Messages in one batch; what the receive buffer is made for.
    pub(crate) const MOST: usize = 512;
    /// Beyond this a larger send is no faster, and at 208 KiB the default send buffer is full.
    const MOST_BYTES: usize = 1 << 16;

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= Self::MOST || self.bytes.len() >= Self::MOST_BYTES
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Appends a request whose attributes `body` writes.
    pub(crate) fn push(&mut self, header: Header, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.starts.push(start);
        self.bytes.extend([0; 4]);
        self.bytes.extend([header.command, header.subsystem]);
        self.bytes.extend((header.flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([header.family, 0, 0, 0]);
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Appends what stands around requests of which the kernel carries out all or none.
    pub(crate) fn edge(&mut self, command: u8, subsystem: u8) {
        self.push(Header { subsystem: 0, command, flags: 0, family: 0 }, |messages| {
            // The last part of `struct nfgenmsg`, in network byte order.
            let resource = messages.bytes.len() - 2;
            messages.bytes[resource..].copy_from_slice(&u16::from(subsystem).to_be_bytes());
        });
    }

    /// Appends an attribute to the request that is being written.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends whole attributes, padding included.
    pub(crate) fn attributes(&mut self, attributes: &[u8]) {
        self.bytes.extend(attributes);
    }

    /// Appends a NUL-terminated text.
    pub(crate) fn text(&mut self, kind: u16, text: &str) {
        self.bytes.extend((text.len() as u16 + 5).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Appends an attribute that contains the ones that `body` writes.
    pub(crate) fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.attribute(kind | NLA_F_NESTED, &[]);
        body(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// Numbers the messages from the one after `sequence`; returns the last number.
    pub(crate) fn number(&mut self, mut sequence: u32) -> u32 {
        for start in &self.starts {
            sequence = sequence.wrapping_add(1);
            self.bytes[start + 8..start + 12].copy_from_slice(&sequence.to_ne_bytes());
        }
        sequence
    }

    pub(crate) fn ask_for_acknowledgement(&mut self) {
        self.add_flags_to_last(NLM_F_ACK);
    }

    pub(crate) fn add_flags_to_last(&mut self, more: u16) {
        if let Some(start) = self.starts.last() {
            let flags = &mut self.bytes[start + 6..start + 8];
            let sum = u16::from_ne_bytes([flags[0], flags[1]]) | more;
            flags.copy_from_slice(&sum.to_ne_bytes());
        }
    }
}

/// The messages of a datagram; ends at the first one that is cut or malformed.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = datagram.split_first_chunk::<HEADER>()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let payload = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame { kind: half(4), flags: half(6), sequence: word(8), payload })
    })
}

impl<'a> Frame<'a> {
    /// The attributes of a netfilter message.
    pub(crate) fn body(&self) -> io::Result<&'a [u8]> {
        self.payload.get(FAMILY_HEADER..).ok_or_else(|| malformed("a message without its header"))
    }

    /// The refusal in an `NLMSG_ERROR` or `NLMSG_DONE`; `None` if it says success.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let code = self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        (code != 0).then(|| Refusal { code: code.saturating_neg(), message: self.extended_ack() })
    }

    /// `NLMSGERR_ATTR_MSG`, the kernel's sentence about an error.
    fn extended_ack(&self) -> Option<Box<str>> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let echoed = self.payload.get(4..)?;
        let request = if self.flags & NLM_F_CAPPED == 0 {
            u32::from_ne_bytes(*echoed.first_chunk()?) as usize
        } else {
            HEADER
        };
        attributes(echoed.get(request.next_multiple_of(4)..)?)
            .map_while(Result::ok)
            .find(|attribute| attribute.kind == NLMSGERR_ATTR_MSG)
            .map(|attribute| String::from_utf8_lossy(attribute.value).trim_end_matches('\0').into())
    }
}

/// The attributes in `bytes`; a malformed one is an error, and the last item.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = io::Result<Attribute<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let attribute = bytes.split_first_chunk::<4>().and_then(|(&[l0, l1, k0, k1], _)| {
            let length = usize::from(u16::from_ne_bytes([l0, l1]));
            let whole = bytes.get(..length)?;
            let value = whole.get(4..)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some(Attribute { kind: u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK, value, whole })
        });
        if attribute.is_none() {
            bytes = &[];
        }
        Some(attribute.ok_or_else(|| malformed("an attribute that is cut off")))
    })
}

impl<'a> Attribute<'a> {
    /// The attributes inside this one.
    pub(crate) fn nested(&self) -> impl Iterator<Item = io::Result<Attribute<'a>>> + use<'a> {
        attributes(self.value)
    }

    /// A one-byte number.
    pub(crate) fn u8(&self) -> io::Result<u8> {
        self.bytes().map(|[byte]| byte)
    }

    /// A number in network byte order.
    pub(crate) fn be16(&self) -> io::Result<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    /// A number in network byte order.
    pub(crate) fn be32(&self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// A NUL-terminated text.
    pub(crate) fn text(&self) -> io::Result<&'a str> {
        let end = self.value.iter().position(|byte| *byte == 0).unwrap_or(self.value.len());
        std::str::from_utf8(&self.value[..end]).map_err(|_| malformed("a text that is not UTF-8"))
    }

    /// A value of exactly this length.
    pub(crate) fn bytes<const N: usize>(&self) -> io::Result<[u8; N]> {
        self.value.try_into().map_err(|_| {
            malformed(&format!("attribute {} has {} bytes, not {N}", self.kind, self.value.len()))
        })
    }
}
