//! The text of a Dockerfile, as far as it is read here: its instructions, and where its stages begin.

/// One instruction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// In capitals.
    pub(crate) name: String,
    /// What follows it, as one line, without the documents after it.
    pub(crate) text: String,
    /// Where it begins, from 1.
    pub(crate) line: usize,
}

/// An instruction that goes on for several lines, or has documents after it, as far as it was read.
#[derive(Default)]
struct Open {
    instruction: String,
    is_continued: bool,
    /// Ends of documents that are still to come ("here-documents"), and whether tabs before them count for nothing.
    documents: Vec<(String, bool)>,
}

/// Makes variables arguments of every stage: its steps see them, and the image never has them. What the Dockerfile or an image
/// says of the same name by `ENV` wins.
pub(super) fn declare(dockerfile: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return dockerfile.to_owned();
    }
    let escape = escape(dockerfile);
    let mut text = String::new();
    let mut open = Open::default();
    for line in dockerfile.lines() {
        text.push_str(line);
        text.push('\n');
        if open.read(line, escape) && open.instruction.eq_ignore_ascii_case("FROM") {
            text.push_str(&declaration(names));
            text.push('\n');
        }
    }
    text
}

/// All instructions.
pub(crate) fn instructions(dockerfile: &str) -> Vec<Instruction> {
    let escape = escape(dockerfile);
    let mut open = Open::default();
    let mut all = Vec::new();
    let mut begun: Option<Instruction> = None;
    for (index, line) in dockerfile.lines().enumerate() {
        let is_document = !open.is_continued && !open.documents.is_empty();
        let ends = open.read(line, escape);
        let plain = line.trim();
        if is_document || plain.is_empty() || plain.starts_with('#') {
            continue;
        }
        let plain = plain.strip_suffix(escape).unwrap_or(plain);
        if let Some(begun) = &mut begun {
            begun.text.push(' ');
            begun.text.push_str(plain.trim());
        } else {
            let (name, text) = plain.split_once(char::is_whitespace).unwrap_or((plain, ""));
            let (name, text) = (name.to_ascii_uppercase(), text.trim().to_owned());
            begun = Some(Instruction { name, text, line: index + 1 });
        }
        if ends {
            all.extend(begun.take());
        }
    }
    all.extend(begun);
    all
}

/// The instruction that [`declare`] puts after every `FROM`.
pub(super) fn declaration(names: &[&str]) -> String {
    format!("ARG {}", names.join(" "))
}

impl Open {
    /// Reads the next line; whether an instruction ends with it.
    fn read(&mut self, line: &str, escape: char) -> bool {
        if !self.is_continued
            && let Some((end, is_indented)) = self.documents.first()
        {
            let line = if *is_indented { line.trim_start_matches('\t') } else { line };
            if line == end {
                self.documents.remove(0);
            }
            return false;
        }
        let plain = line.trim();
        // Also in the middle of an instruction.
        if plain.is_empty() || plain.starts_with('#') {
            return false;
        }
        if !self.is_continued {
            plain.split_whitespace().next().unwrap_or_default().clone_into(&mut self.instruction);
        }
        if ["RUN", "COPY", "ADD"].iter().any(|name| self.instruction.eq_ignore_ascii_case(name)) {
            self.documents.extend(plain.split_whitespace().filter_map(document));
        }
        self.is_continued = plain.ends_with(escape);
        !self.is_continued
    }
}

/// The end of the document that a word like `<<EOF`, `<<-"EOF"` or `3<<EOF` begins.
fn document(word: &str) -> Option<(String, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (rest, is_indented) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let end = rest.trim_matches(['"', '\'']);
    let is_name = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (end.to_owned(), is_indented))
}

/// What ends a line that goes on: a directive before everything else may name another character.
fn escape(dockerfile: &str) -> char {
    let comments = dockerfile.lines().map_while(|line| line.trim().strip_prefix('#'));
    let directives = comments.map_while(|comment| comment.split_once('='));
    let mut escapes = directives.filter(|(name, _)| name.trim().eq_ignore_ascii_case("escape"));
    escapes.find_map(|(_, value)| value.trim().chars().next()).unwrap_or('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_the_arguments_and_nothing_else_is_touched() {
        let dockerfile = "# syntax=docker/dockerfile:1\nARG BASE=x\nfrom $BASE as build\nRUN psql -c 'SELECT * \\\n  # or less\n\n  FROM t'\n\
                          RUN <<EOF cat <<-'MORE' && x\nFROM a\nEOF\nFROM b\n\tMORE\nCOPY --from=build /a <b /c\nFROM \\\n  scratch\nCMD x";
        insta::assert_snapshot!(declare(dockerfile, &["A", "B"]), @r"
        # syntax=docker/dockerfile:1
        ARG BASE=x
        from $BASE as build
        ARG A B
        RUN psql -c 'SELECT * \
          # or less

          FROM t'
        RUN <<EOF cat <<-'MORE' && x
        FROM a
        EOF
        FROM b
        	MORE
        COPY --from=build /a <b /c
        FROM \
          scratch
        ARG A B
        CMD x
        ");
        assert_eq!(declare(dockerfile, &[]), dockerfile);
        let windows = "# escape=`\nFROM x\nCOPY c:\\\nFROM y\n";
        assert_eq!(declare(windows, &["A"]).matches("ARG A\n").count(), 2);
    }
}
