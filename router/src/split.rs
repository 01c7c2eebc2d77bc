//! Cuts JSON that comes in pieces into values that are read one by one: a table of a million rows is never in memory as text.

use std::io;

use memchr::memchr2;

/// Most bytes of one value.
const LONGEST: usize = 16 << 20;

/// Cuts objects, one after another, into the values of their members, and members that are lists into their items.
#[derive(Default)]
pub(crate) struct Splitter {
    /// What is not cut yet.
    bytes: Vec<u8>,
    /// How far it was looked at.
    seen: usize,
    state: State,
    /// The member that is being read.
    name: String,
    /// How many brackets of the value are open, and whether a string is.
    depth: usize,
    in_string: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before an object.
    #[default]
    Outside,
    /// Before a member.
    Member,
    /// In its name.
    Name,
    /// After its name.
    Colon,
    /// Before its value.
    Value,
    /// In its value.
    Inside,
    /// Before an item of a list, or its end.
    Items,
    /// In an item.
    Item,
    /// After a list.
    After,
}

/// What was cut out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// An object begins.
    Begin,
    /// A member that is no list.
    Member(&'a str, &'a [u8]),
    /// An item of a member that is a list.
    Item(&'a str, &'a [u8]),
    /// The object ends.
    End,
}

impl Splitter {
    /// Takes what came next, and shows what is whole by now.
    pub(crate) fn push(&mut self, bytes: &[u8], show: &mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        let mut start = 0;
        while self.seen < self.bytes.len() {
            match self.state {
                State::Inside | State::Item => {
                    let Some(end) = self.end_of_value() else { break };
                    let value = self.bytes[start..end].trim_ascii_end();
                    self.state = match (self.state, self.bytes[end]) {
                        (State::Item, next @ (b',' | b']')) => {
                            show(Piece::Item(&self.name, value))?;
                            if next == b',' { State::Items } else { State::After }
                        }
                        (State::Inside, next @ (b',' | b'}')) => {
                            show(Piece::Member(&self.name, value))?;
                            if next == b'}' {
                                show(Piece::End)?;
                            }
                            if next == b',' { State::Member } else { State::Outside }
                        }
                        _ => return Err(damaged()),
                    };
                    self.seen = end + 1;
                }
                State::Name => {
                    let Some(length) = memchr2(b'"', b'\\', &self.bytes[self.seen..]) else { break };
                    let end = self.seen + length;
                    let name = std::str::from_utf8(&self.bytes[start..end]).ok().filter(|_| self.bytes[end] == b'"');
                    name.ok_or_else(damaged)?.clone_into(&mut self.name);
                    (self.state, self.seen) = (State::Colon, end + 1);
                }
                _ => self.step(show)?,
            }
            start = self.seen;
        }
        self.bytes.drain(..start);
        self.seen -= start;
        if self.bytes.len() > LONGEST { Err(io::Error::other("a value is too long")) } else { Ok(()) }
    }

    /// One byte of those between names and values.
    fn step(&mut self, show: &mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> io::Result<()> {
        self.state = match (self.state, self.bytes[self.seen]) {
            (state, byte) if byte.is_ascii_whitespace() => state,
            (State::Outside, b'{') => {
                show(Piece::Begin)?;
                State::Member
            }
            (State::Member | State::After, b'}') => {
                show(Piece::End)?;
                State::Outside
            }
            (State::Member, b'"') => State::Name,
            (State::Colon, b':') => State::Value,
            (State::Value, b'[') => State::Items,
            (State::Items, b']') => State::After,
            (State::After, b',') => State::Member,
            (state @ (State::Value | State::Items), byte) if !matches!(byte, b',' | b'}' | b']') => {
                (self.depth, self.in_string) = (0, false);
                self.state = if state == State::Value { State::Inside } else { State::Item };
                // Its first byte is looked at again, as a part of it.
                return Ok(());
            }
            _ => return Err(damaged()),
        };
        self.seen += 1;
        Ok(())
    }

    /// Where the value ends that is being read, if that is there by now.
    fn end_of_value(&mut self) -> Option<usize> {
        loop {
            if self.in_string {
                let Some(length) = memchr2(b'"', b'\\', &self.bytes[self.seen..]) else {
                    self.seen = self.bytes.len();
                    return None;
                };
                let at = self.seen + length;
                let escapes = self.bytes[at] == b'\\';
                if escapes && at + 1 == self.bytes.len() {
                    self.seen = at;
                    return None;
                }
                self.in_string = escapes;
                self.seen = at + 1 + usize::from(escapes);
                continue;
            }
            match *self.bytes.get(self.seen)? {
                b',' | b'}' | b']' if self.depth == 0 => return Some(self.seen),
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => self.depth -= 1,
                _ => {}
            }
            self.seen += 1;
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not the JSON that a route table is")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a text that comes in pieces of this length.
    fn shown(text: &str, length: usize) -> io::Result<Vec<String>> {
        let (mut splitter, mut shown) = (Splitter::default(), Vec::new());
        for piece in text.as_bytes().chunks(length) {
            splitter.push(piece, &mut |piece| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                shown.push(match piece {
                    Piece::Begin => "begin".to_owned(),
                    Piece::Member(name, value) => format!("{name}={}", text(value)),
                    Piece::Item(name, value) => format!("{name}+{}", text(value)),
                    Piece::End => "end".to_owned(),
                });
                Ok(())
            })?;
        }
        Ok(shown)
    }

    #[test]
    fn a_text_is_cut_into_the_same_values_however_it_comes() {
        let text = r#"{"version":7, "reset" : true,"set":[["a",{"x":[1,2],"y":"],\"}\\"}] , ["b",null]],"unset":[ ],"d":{"secs":1}}
{"version":8,"unset":["c"]}{} "#;
        let wanted = [
            "begin",
            "version=7",
            "reset=true",
            r#"set+["a",{"x":[1,2],"y":"],\"}\\"}]"#,
            r#"set+["b",null]"#,
            r#"d={"secs":1}"#,
            "end",
            "begin",
            "version=8",
            r#"unset+"c""#,
            "end",
            "begin",
            "end",
        ];
        for length in 1..=text.len() {
            assert_eq!(shown(text, length).expect("whole"), wanted, "{length}");
        }
        for end in 1..text.find('\n').expect("a line") {
            let pieces = shown(&text[..end], 1000).expect("a beginning");
            assert_ne!(pieces.last().map(String::as_str), Some("end"), "{end}");
        }
        for bad in ["[", "{a", "{\"a\\", "{\"a\"}", "{\"a\":}", "{\"a\":]", "{\"a\":[1}", "{\"a\":[,", "x"] {
            assert!(shown(bad, 1).is_err(), "{bad}");
        }
    }
}
