//! The Protobuf wire format, read and written in place.
//!
//! Used for the two messages of every check: generated code would allocate every field, although
//! only a few are read once. Specification: <https://protobuf.dev/programming-guides/encoding/>

use bytes::BufMut;

/// Maximum nesting of groups, as in other implementations.
const MAX_DEPTH: u32 = 100;

/// The message is not valid Protobuf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// An integer, a boolean or an enum.
    Varint(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A type that no field of ours has.
    Other,
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field.
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Other => Err(Malformed),
        }
    }

    /// The text of a string field.
    pub(super) fn text(self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

/// The fields of a message with their numbers, in wire order. Ends after the first malformed field.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let (number, wire_type) = self.key()?;
        Ok((number, self.value(number, wire_type, MAX_DEPTH)?))
    }

    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (number, wire_type) = (key >> 3, key & 7);
        if number == 0 {
            return Err(Malformed);
        }
        Ok((number, wire_type.to_le_bytes()[0]))
    }

    fn value(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<Value<'a>, Malformed> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take(8).map(|_| Value::Other),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                self.take(length).map(Value::Bytes)
            }
            3 => self.skip_group(number, depth).map(|()| Value::Other),
            5 => self.take(4).map(|_| Value::Other),
            _ => Err(Malformed),
        }
    }

    fn skip_group(&mut self, group: u32, depth: u32) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        loop {
            match self.key()? {
                (number, 4) if number == group => return Ok(()),
                (number, wire_type) => self.value(number, wire_type, depth)?,
            };
        }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            // Only one bit of the tenth byte fits.
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Writes the fields of a message. Callers omit fields with default values where that matters.
pub(super) trait PutFields: BufMut {
    /// Writes an integer, a boolean or an enum.
    fn put_varint_field(&mut self, number: u32, value: u64) {
        self.put_varint(u64::from(number << 3));
        self.put_varint(value);
    }

    /// Writes a string or bytes.
    fn put_bytes_field(&mut self, number: u32, bytes: &[u8]) {
        self.put_field_of(number, bytes.len());
        self.put_slice(bytes);
    }

    /// Writes the key and length of a string, bytes or a message of `length` bytes.
    fn put_field_of(&mut self, number: u32, length: usize) {
        self.put_varint(u64::from(number << 3 | 2));
        self.put_varint(length as u64);
    }

    /// Writes an integer, seven bits per byte.
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.put_u8(value.to_le_bytes()[0]);
    }
}

impl<B: BufMut> PutFields for B {}

/// Encoded size of a varint in bytes.
pub(super) const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Encoded size of an integer field with a number below 16, in bytes.
pub(super) const fn varint_field_len(value: u64) -> usize {
    1 + varint_len(value)
}

/// Encoded size of a field with a number below 16 and a value of `length` bytes.
pub(super) const fn field_len(length: usize) -> usize {
    1 + varint_len(length as u64) + length
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::Message;

    use super::*;
    use crate::transport::pb::CheckRequest;

    fn read(message: &[u8]) -> Result<CheckRequest, Malformed> {
        let mut request = CheckRequest::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => request.api_key = value.text()?.to_owned(),
                (2, value) => request.required_scopes.push(value.text()?.to_owned()),
                (3, value) => request.client_ip = value.text()?.to_owned(),
                (4, value) => request.audience = value.text()?.to_owned(),
                _ => {}
            }
        }
        Ok(request)
    }

    /// Mostly valid fields.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let field = prop_oneof![
            (1..6_u32, vec(any::<u8>(), 0..20)).prop_map(|(number, bytes)| {
                let mut field = Vec::new();
                field.put_bytes_field(number, &bytes);
                field
            }),
            (1..40_u32, any::<u64>()).prop_map(|(number, value)| {
                let mut field = Vec::new();
                field.put_varint_field(number, value);
                field
            }),
            (1..40_u32, 0..8_u32, vec(any::<u8>(), 0..12)).prop_map(|(number, kind, bytes)| {
                let mut field = Vec::new();
                field.put_varint(u64::from(number << 3 | kind));
                field.extend(bytes);
                field
            }),
            vec(any::<u8>(), 0..12),
        ];
        vec(field, 0..6).prop_map(|fields| fields.concat())
    }

    proptest! {
        #[test]
        fn fields_are_decoded_as_by_generated_code(message in message()) {
            let theirs = CheckRequest::decode(&*message).map_err(|_| Malformed);
            prop_assert_eq!(read(&message), theirs);
        }

        #[test]
        fn written_fields_have_their_computed_length_and_decode_back(
            number in 1..16_u32, value: u64, bytes in vec(any::<u8>(), 0..300),
        ) {
            let mut written = Vec::new();
            written.put_varint_field(number, value);
            prop_assert_eq!(written.len(), varint_field_len(value));
            written.put_bytes_field(number, &bytes);
            prop_assert_eq!(written.len(), varint_field_len(value) + field_len(bytes.len()));
            let fields: Vec<_> = Fields::of(&written).collect();
            let expected = [Value::Varint(value), Value::Bytes(&bytes)];
            prop_assert_eq!(fields, expected.map(|value| Ok((number, value))));
        }
    }

    #[test]
    fn group_is_skipped_with_its_content() {
        let mut message = vec![9 << 3 | 3];
        message.put_varint_field(1, 7);
        message.extend([10 << 3 | 3, 10 << 3 | 4, 9 << 3 | 4]);
        message.put_bytes_field(1, b"key");
        let fields: Vec<_> = Fields::of(&message).collect();
        assert_eq!(fields, [Ok((9, Value::Other)), Ok((1, Value::Bytes(b"key")))]);
        let deep = vec![9 << 3 | 3; 1000];
        assert_eq!(Fields::of(&deep).collect::<Vec<_>>(), [Err(Malformed)]);
    }
}
