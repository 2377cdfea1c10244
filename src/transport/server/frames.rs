//! The frames that come in over an HTTP/2 connection, as far as their heads tell: how
//! many ask for work without bringing a call.

use tokio::time::Instant;

use super::PREFACE;

/// The length of the head of a frame, and the types that are told apart (RFC 9113, 4.1
/// and 6).
const HEAD_LEN: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The flag of a frame that ends a stream.
const END_STREAM: u8 = 1;

/// How many frames that bring nothing a connection may send at first; some of them
/// belong to every beginning.
const AT_FIRST: u32 = 1_000;

/// How many more it may send with each call: a client may announce its windows, measure
/// the way, and give the call up.
const WITH_A_CALL: u32 = 10;

/// How many it may save up.
const MOST: u32 = 10_000;

/// Counts frames that bring nothing: PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`,
/// `RST_STREAM` and whatever else is no beginning of a call and no part of a message. One
/// a second is always allowed, as for keep-alive.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD_LEN],
    /// How many bytes of the head have come.
    have: usize,
    /// How many bytes come before the next head.
    skip: usize,
    left: u32,
    earned_at: Instant,
}

impl Frames {
    /// Those of a connection that begins with the preface.
    pub(super) fn new(now: Instant) -> Self {
        Self { head: [0; HEAD_LEN], have: 0, skip: PREFACE.len(), left: AT_FIRST, earned_at: now }
    }

    /// Looks at what has come in. False when there are too many that bring nothing.
    pub(super) fn admits(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return true;
            }
            let missing = (HEAD_LEN - self.have).min(bytes.len());
            self.head[self.have..self.have + missing].copy_from_slice(&bytes[..missing]);
            self.have += missing;
            bytes = &bytes[missing..];
            if self.have == HEAD_LEN && !self.frame() {
                return false;
            }
        }
    }

    fn frame(&mut self) -> bool {
        self.have = 0;
        let [a, b, c, kind, flags, ..] = self.head;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        match kind {
            HEADERS => self.left = (self.left + WITH_A_CALL).min(MOST),
            DATA if self.skip > 0 || flags & END_STREAM != 0 => {}
            _ if self.left > 0 => self.left -= 1,
            _ => return self.earns(Instant::now()),
        }
        true
    }

    /// One a second since the last time that there was none left.
    fn earns(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.earned_at).as_secs();
        self.earned_at = now;
        self.left = u32::try_from(earned).unwrap_or(MOST).min(MOST);
        self.left = self.left.saturating_sub(1);
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
        let head = [length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        [&head[..], &vec![7; payload]].concat()
    }

    fn begun() -> Frames {
        let mut frames = Frames::new(Instant::now());
        assert!(frames.admits(PREFACE));
        frames
    }

    /// How many of these frames are admitted, of at most 100,000.
    fn admitted(frames: &mut Frames, bytes: &[u8]) -> u32 {
        (0..100_000).find(|_| !frames.admits(bytes)).unwrap_or(100_000)
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_bring_nothing_are_admitted_within_a_bound() {
        for (kind, payload) in [(PING, 8), (4, 6), (2, 5), (8, 4), (3, 4), (9, 0), (0, 0), (77, 3)]
        {
            assert_eq!(admitted(&mut begun(), &frame(kind, 0, payload)), AT_FIRST, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_admitted_without_a_bound_whatever_goes_with_them() {
        let call = [frame(HEADERS, 4, 50), frame(DATA, END_STREAM, 200), frame(3, 0, 4)].concat();
        let with_pings = [call, frame(PING, 0, 8).repeat(8)].concat();
        assert_eq!(admitted(&mut begun(), &with_pings), 100_000);
        let empty_end = [frame(HEADERS, 4, 50), frame(DATA, END_STREAM, 0)].concat();
        assert_eq!(admitted(&mut begun(), &empty_end), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn one_a_second_is_always_admitted() {
        let (mut frames, ping) = (begun(), frame(PING, 0, 8));
        assert!((0..AT_FIRST).all(|_| frames.admits(&ping)));
        for _ in 0..100 {
            advance(Duration::from_secs(1)).await;
            assert!(frames.admits(&ping));
        }
        assert!(!frames.admits(&ping));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_what_pieces_they_come(
            kinds in prop::collection::vec((0..10_u8, 0..40_usize), 0..40),
            size in 1..30_usize,
        ) {
            let bytes: Vec<u8> =
                kinds.iter().flat_map(|(kind, payload)| frame(*kind, 0, *payload)).collect();
            let (mut whole, mut pieces) = (begun(), begun());
            prop_assert!(whole.admits(&bytes));
            prop_assert!(bytes.chunks(size).all(|piece| pieces.admits(piece)));
            prop_assert_eq!((whole.left, whole.have, whole.skip), (pieces.left, 0, 0));
        }
    }
}
