//! Length-prefixed runs of bytes.

/// Appends a length: seven bits a byte, the least significant first (LEB128).
pub(crate) fn put_length(into: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        into.push(length.to_le_bytes()[0] | 0x80);
        length >>= 7;
    }
    into.push(length.to_le_bytes()[0]);
}

/// Appends bytes with a length prefix.
pub(crate) fn put(into: &mut Vec<u8>, bytes: &[u8]) {
    put_length(into, bytes.len());
    into.extend_from_slice(bytes);
}

/// Takes a length from the front; `None` if there is none.
pub(crate) fn take_length(from: &mut &[u8]) -> Option<usize> {
    let mut length: usize = 0;
    for (at, byte) in from.iter().enumerate() {
        let bits = usize::from(byte & 0x7f);
        // Refuse lengths whose high bits do not fit.
        let shifted = bits.checked_shl(u32::try_from(7 * at).ok()?)?;
        if shifted >> (7 * at) != bits {
            return None;
        }
        length |= shifted;
        if byte & 0x80 == 0 {
            *from = &from[at + 1..];
            return Some(length);
        }
    }
    None
}

/// Takes a run of bytes from the front; `None` if there is none.
pub(crate) fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = *from;
    let length = take_length(&mut rest)?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_length_round_trips(length: usize, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            put_length(&mut bytes, length);
            bytes.extend_from_slice(&tail);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take_length(&mut rest), Some(length));
            prop_assert_eq!(rest, tail);
        }

        #[test]
        fn taking_runs_from_any_bytes_terminates(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            while take(&mut rest).is_some() {}
            prop_assert!(rest.len() <= bytes.len());
        }
    }

    #[test]
    fn oversized_or_unterminated_length_is_none() {
        for bytes in [
            &[0xff; 10][..],
            &[0x80; 9],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[],
        ] {
            assert_eq!(take_length(&mut &*bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn truncated_run_is_none() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"abc");
        assert_eq!(take(&mut bytes.as_slice()), Some(&b"abc"[..]));
        assert_eq!(take(&mut &bytes[..3]), None);
    }
}
