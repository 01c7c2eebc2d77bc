use bytes::{Buf, BytesMut};

/// A longer line of output is cut into pieces, in bytes.
const LIMIT: usize = 16 * 1024;

/// Cuts the output of a one-off into lines, however its bytes arrive.
#[derive(Debug, Default)]
pub struct Lines(BytesMut);

impl Lines {
    /// The lines that `bytes` complete, without their ends.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.0.extend_from_slice(bytes);
        let mut lines = Vec::new();
        loop {
            let end = self.0.iter().take(LIMIT).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    lines.push(text(&self.0[..end]));
                    self.0.advance(end + 1);
                }
                None if self.0.len() >= LIMIT => lines.push(text(&self.0.split_to(LIMIT))),
                None => return lines,
            }
        }
    }

    /// What came after the last line's end.
    pub fn rest(self) -> Option<String> {
        if self.0.is_empty() { None } else { Some(text(&self.0)) }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines_however_it_arrives() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one, ").is_empty());
        assert_eq!(lines.push(b"still one\r\n\ntwo\nthr"), ["one, still one", "", "two"]);
        assert_eq!(lines.push(&[b'x'; LIMIT]).len(), 1);
        assert_eq!(lines.rest().as_deref(), Some("xxx"));
    }
}
