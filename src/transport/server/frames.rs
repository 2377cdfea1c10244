//! Counts the incoming frames of an HTTP/2 connection by their headers, to limit frames that cause
//! work without carrying a call.

use tokio::time::Instant;

use super::PREFACE;

/// The length of a frame header, and the types that are distinguished (RFC 9113, 4.1 and 6).
const FRAME_HEADER_LEN: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The flag of a frame that ends its stream.
const END_STREAM: u8 = 1;

/// How many overhead frames a connection may send at first; every connection starts with some.
const INITIAL: u32 = 1_000;

/// How many more it may send per call: a client may update its windows, ping, and reset the call.
const PER_CALL: u32 = 10;

/// The maximum balance.
const MAX: u32 = 10_000;

/// Limits overhead frames: PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, `RST_STREAM` and every other
/// frame that neither starts a call nor carries a part of a message. One per second is always
/// allowed, as for keep-alive.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; FRAME_HEADER_LEN],
    /// How many bytes of the current header have arrived.
    header_bytes: usize,
    /// How many bytes precede the next header.
    skip_bytes: usize,
    balance: u32,
    earned_at: Instant,
}

impl Frames {
    /// The counter of a connection, which starts with the preface.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            header: [0; FRAME_HEADER_LEN],
            header_bytes: 0,
            skip_bytes: PREFACE.len(),
            balance: INITIAL,
            earned_at: now,
        }
    }

    /// Counts the frames in `bytes`. Returns false when there are too many overhead frames.
    pub(super) fn admits(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skip_bytes.min(bytes.len());
            self.skip_bytes -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return true;
            }
            let missing = (FRAME_HEADER_LEN - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..self.header_bytes + missing]
                .copy_from_slice(&bytes[..missing]);
            self.header_bytes += missing;
            bytes = &bytes[missing..];
            if self.header_bytes == FRAME_HEADER_LEN && !self.count_frame() {
                return false;
            }
        }
    }

    fn count_frame(&mut self) -> bool {
        self.header_bytes = 0;
        let [a, b, c, kind, flags, ..] = self.header;
        self.skip_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            HEADERS => self.balance = (self.balance + PER_CALL).min(MAX),
            DATA if self.skip_bytes > 0 || flags & END_STREAM != 0 => {}
            _ if self.balance > 0 => self.balance -= 1,
            _ => return self.earn(Instant::now()),
        }
        true
    }

    /// Earns one frame per second since the balance was last empty.
    fn earn(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.earned_at).as_secs();
        self.earned_at = now;
        self.balance = u32::try_from(earned).unwrap_or(MAX).min(MAX);
        self.balance = self.balance.saturating_sub(1);
        earned > 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let header = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&header[..], &vec![7; payload]].concat()
    }

    fn started() -> Frames {
        let mut frames = Frames::new(Instant::now());
        assert!(frames.admits(PREFACE));
        frames
    }

    /// How many of these frames are admitted, of at most 100,000.
    fn admitted(frames: &mut Frames, bytes: &[u8]) -> u32 {
        (0..100_000).find(|_| !frames.admits(bytes)).unwrap_or(100_000)
    }

    #[tokio::test(start_paused = true)]
    async fn overhead_frames_are_limited() {
        for (kind, payload) in [(PING, 8), (4, 6), (2, 5), (8, 4), (3, 4), (9, 0), (0, 0), (77, 3)]
        {
            assert_eq!(admitted(&mut started(), &frame(kind, 0, payload)), INITIAL, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_with_their_overhead_frames_are_not_limited() {
        let call = [frame(HEADERS, 4, 50), frame(DATA, END_STREAM, 200), frame(3, 0, 4)].concat();
        let with_pings = [call, frame(PING, 0, 8).repeat(8)].concat();
        assert_eq!(admitted(&mut started(), &with_pings), 100_000);
        let empty_end = [frame(HEADERS, 4, 50), frame(DATA, END_STREAM, 0)].concat();
        assert_eq!(admitted(&mut started(), &empty_end), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn one_overhead_frame_per_second_is_always_admitted() {
        let (mut frames, ping) = (started(), frame(PING, 0, 8));
        assert!((0..INITIAL).all(|_| frames.admits(&ping)));
        for _ in 0..100 {
            advance(Duration::from_secs(1)).await;
            assert!(frames.admits(&ping));
        }
        assert!(!frames.admits(&ping));
    }

    proptest! {
        #[test]
        fn splitting_the_bytes_does_not_change_the_count(
            kinds in prop::collection::vec((0..10_u8, 0..40_usize), 0..40),
            size in 1..30_usize,
        ) {
            let bytes: Vec<u8> =
                kinds.iter().flat_map(|(kind, payload)| frame(*kind, 0, *payload)).collect();
            let (mut whole, mut pieces) = (started(), started());
            prop_assert!(whole.admits(&bytes));
            prop_assert!(bytes.chunks(size).all(|piece| pieces.admits(piece)));
            prop_assert_eq!(whole.balance, pieces.balance);
            prop_assert_eq!((whole.header_bytes, whole.skip_bytes), (0, 0));
        }
    }
}
