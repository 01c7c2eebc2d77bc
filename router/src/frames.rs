//! Where the frames of a `WebSocket` begin and end (RFC 6455 section 5.2), without looking at what they carry.

/// Flags, opcode, mask and length; the longest is one with 8 bytes of length and 4 of mask.
const LONGEST_HEADER: usize = 14;
const CLOSE: u8 = 8;

/// A server's close frame with the code for "going away": it has no mask.
pub(crate) const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

/// How far one direction is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    header: [u8; LONGEST_HEADER],
    /// Bytes of the current frame's header that have passed.
    seen: usize,
    /// Bytes of its payload that are yet to come, once the header has passed.
    left: u64,
    closed: bool,
}

impl Frames {
    /// These bytes passed.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.pass_one(bytes)..];
        }
    }

    /// These bytes passed, up to the end of the current frame; how many that are.
    pub(crate) fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while self.seen < self.header_length() {
            let Some(byte) = bytes.get(passed) else { return passed };
            self.header[self.seen] = *byte;
            self.seen += 1;
            passed += 1;
            if self.seen == self.header_length() {
                self.left = self.payload_length();
            }
        }
        let rest = bytes.len() - passed;
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest);
        self.left -= here as u64;
        if self.left == 0 {
            self.closed |= self.header[0] & 0x0f == CLOSE;
            self.seen = 0;
        }
        passed + here
    }

    /// Whether a frame has just ended, or none has begun yet.
    pub(crate) fn is_between(&self) -> bool {
        self.seen == 0
    }

    /// Whether a close frame has passed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn header_length(&self) -> usize {
        if self.seen < 2 {
            return 2;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + self.length_bytes() + mask
    }

    fn length_bytes(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn payload_length(&self) -> u64 {
        match self.length_bytes() {
            0 => u64::from(self.header[1] & 0x7f),
            bytes => self.header[2..2 + bytes].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(length) {
            Ok(short @ 0..126) => frame.push(mask | u8::try_from(short).expect("short")),
            Ok(length) => {
                frame.push(mask | 0x7e);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(mask | 0x7f);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; length + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn frames_of_every_length_end_where_they_end_however_their_bytes_come() {
        for masked in [false, true] {
            let lengths = [0, 1, 125, 126, 65_535, 65_536, 70_000];
            let frames: Vec<Vec<u8>> = lengths.into_iter().map(|length| frame(2, length, masked)).collect();
            let mut whole = Frames::default();
            let all = frames.concat();
            let mut rest = all.as_slice();
            for frame in &frames {
                assert_eq!(whole.pass_one(rest), frame.len());
                assert!(whole.is_between());
                rest = &rest[frame.len()..];
            }
            for step in [1, 7, 1000] {
                let mut pieces = Frames::default();
                all.chunks(step).for_each(|piece| pieces.pass(piece));
                assert!(pieces.is_between() && !pieces.is_closed());
                pieces.pass(&frame(CLOSE, 2, masked)[..3]);
                assert!(!pieces.is_between() && !pieces.is_closed(), "it is not whole");
            }
        }
        let mut closing = Frames::default();
        closing.pass(&GOING_AWAY);
        assert!(closing.is_closed() && closing.is_between());
    }
}
