//! Reads what people keep in `.env` files. Nothing is substituted: `$` and backquotes are just characters.

/// A variable, and the line that it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// What stands before the first `=`.
    pub name: String,
    /// What stands after it, without its quotes.
    pub value: String,
}

/// Reads a file. The error names the line that is not understood.
///
/// `NAME=value`, with or without `export` before it; comments begin with `#` on a line of its own or after a space. In
/// single quotes everything stands for itself; in double quotes `\n`, `\t`, `\"`, `\\` and `\$` are escapes. Quoted values go
/// over several lines.
pub fn parse(text: &str) -> Result<Vec<Variable>, String> {
    let mut variables = Vec::new();
    let mut rest = text;
    let line_of = |rest: &str| text[..text.len() - rest.len()].matches('\n').count() + 1;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        let number = line_of(rest);
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.starts_with('#') {
            rest = after;
            continue;
        }
        let declaration = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) =
            declaration.split_once('=').ok_or_else(|| format!("Line {number} is not NAME=value: {}", shorten(line)))?;
        let value_at = &rest[line.len() - value.len()..];
        let value = value_at.trim_start_matches([' ', '\t']);
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                quoted(&value[1..], quote).ok_or_else(|| format!("The quote in line {number} is never closed"))?
            }
            _ => (plain(value.split('\n').next().unwrap_or_default()), after),
        };
        variables.push(Variable { name: name.trim().to_owned(), value });
        rest = after;
    }
}

/// The value, and what follows the line on which its quote is closed.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' if quote == '"' => match characters.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ if character == quote => {
                let after = &text[at + 1..];
                return Some((value, after.split_once('\n').map_or("", |(_, after)| after)));
            }
            _ => value.push(character),
        }
    }
    None
}

fn plain(line: &str) -> String {
    let comment = line.match_indices('#').find(|(at, _)| *at == 0 || line[..*at].ends_with([' ', '\t']));
    line[..comment.map_or(line.len(), |(at, _)| at)].trim().to_owned()
}

/// Without what may be a secret.
fn shorten(line: &str) -> String {
    let start: String = line.chars().take(12).collect();
    if start.len() < line.len() { format!("`{start}…`") } else { format!("`{start}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).expect("read").into_iter().map(|variable| (variable.name, variable.value)).collect()
    }

    #[test]
    fn reads_what_people_write() {
        let text = "# keys\nA=1\nexport B = two words  # comment\nC=\"line one\nline two\\n\\\"three\\\"\" # end\nD='$HOME `x` #'\n\nE=\nF=a#b\r\nG=https://u:p@h/?q=1&r=$2\nH=\"é\\d\"";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "line one\nline two\n\"three\""),
            ("D", "$HOME `x` #"),
            ("E", ""),
            ("F", "a#b"),
            ("G", "https://u:p@h/?q=1&r=$2"),
            ("H", "é\\d"),
        ];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(read(text), expected);
        assert_eq!(read("  \n# only\n#comments"), vec![]);
    }

    #[test]
    fn names_the_line_that_it_does_not_understand() {
        assert_eq!(parse("A=1\nnonsense").expect_err("refused"), "Line 2 is not NAME=value: `nonsense`");
        assert_eq!(parse("A=1\n\nB='x\ny").expect_err("refused"), "The quote in line 3 is never closed");
        let long = parse("a secret without any name").expect_err("refused");
        assert!(!long.contains("without any name"), "{long}");
    }
}
