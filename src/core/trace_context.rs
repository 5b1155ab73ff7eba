//! The context of a trace, as the header `traceparent` carries it (W3C Trace Context, level 1). A
//! publisher sends it with a publish. The last event of the publish carries it on, in memory and
//! through Redis.

/// The name of the header.
pub const TRACEPARENT: &str = "traceparent";
/// The length of an encoded context.
pub const TRACE_CONTEXT_BYTES: usize = 25;
/// The only version whose fields are known. Later versions may add fields after them.
const VERSION: u128 = 0x00;
const VERSION_INVALID: u128 = 0xff;
const SAMPLED: u8 = 0x01;

/// The trace to which something belongs, and the span that has caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The id of the trace, which is not 0.
    pub trace_id: u128,
    /// The id of the span that has caused this, which is not 0.
    pub span_id: u64,
    /// The flags. The lowest bit says that the trace is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// Parses the value of a `traceparent`. Returns `None` for an invalid one, which the standard
    /// tells receivers to ignore.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.split('-');
        let mut field = |digits| hexadecimal(fields.next()?, digits);
        let (version, trace_id, span_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let is_too_long = version == VERSION && fields.next().is_some();
        if version == VERSION_INVALID || is_too_long || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: span_id as u64, flags: flags as u8 })
    }

    /// Whether the trace is recorded, so that spans of it are worth exporting.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Encodes the context: the ids in big-endian order, then the flags.
    pub fn to_bytes(self) -> [u8; TRACE_CONTEXT_BYTES] {
        let mut bytes = [self.flags; TRACE_CONTEXT_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span_id.to_be_bytes());
        bytes
    }

    /// Decodes what [`TraceContext::to_bytes`] has encoded.
    pub fn from_bytes(bytes: [u8; TRACE_CONTEXT_BYTES]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, &byte| sum << 8 | u128::from(byte));
        Self {
            trace_id: number(&bytes[..16]),
            span_id: number(&bytes[16..24]) as u64,
            flags: bytes[24],
        }
    }
}

/// Parses a field of lowercase hexadecimal digits.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_valid = text.len() == digits && text.bytes().all(is_digit);
    is_valid.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_context_is_parsed() {
        let context = TraceContext::parse(VALID).unwrap();
        assert_eq!(context.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(context.span_id, 0xb7ad_6b71_6920_3331);
        assert!(context.is_sampled());
        let not_sampled = TraceContext::parse(&VALID.replace("-01", "-00")).unwrap();
        assert!(!not_sampled.is_sampled());
        let later = VALID.replacen("00-", "cc-", 1) + "-what-the-future-adds";
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn an_invalid_context_is_ignored() {
        let wrong = [
            String::new(),
            VALID.replacen("00-", "ff-", 1),
            VALID.to_owned() + "-00",
            VALID.to_uppercase(),
            VALID.replace("b7ad6b7169203331", "0000000000000000"),
            VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            VALID.replace("0af7", "+af7"),
            VALID.replace("-01", "-1"),
            VALID.replace("-01", ""),
        ];
        for wrong in wrong {
            assert_eq!(TraceContext::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_encoded_context_is_decoded_again() {
        let context = TraceContext::parse(VALID).unwrap();
        assert_eq!(TraceContext::from_bytes(context.to_bytes()), context);
    }
}
