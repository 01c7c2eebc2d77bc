//! A document of either format with the place of everything in it, and how its fields are read: every complaint names the field.

use crate::problem::{At, Problem, Severity, Spot};

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) spot: Spot,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, names that come twice included.
    Map(Vec<(Key, Node)>),
}

/// The name of a field and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) spot: Spot,
    pub(crate) name: String,
}

/// A value, and what people call it: `env.SECRET.value`, `addons[1]`.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) path: String,
    pub(crate) spot: Spot,
    value: Value,
}

impl Item {
    pub(crate) fn root(node: Node) -> Self {
        Self { path: String::new(), spot: node.spot, value: node.value }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value, Value::Text(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value, Value::List(_))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    fn name(&self) -> &str {
        if self.path.is_empty() { "the file" } else { &self.path }
    }
}

/// An entry of a map.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) item: Item,
}

/// The fields of a map that are known, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<Entry>);

impl Fields {
    /// Takes a field; null is as good as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Item> {
        let index = self.0.iter().position(|entry| entry.key.name == name)?;
        Some(self.0.swap_remove(index).item).filter(|item| item.value != Value::Null)
    }
}

/// Reads values of one file and collects what is wrong with them.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) file: &'static str,
    pub(crate) problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    pub(crate) fn error(&mut self, spot: Spot, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file, spot, severity: Severity::Error, message: message.into() });
    }

    pub(crate) fn warning(&mut self, spot: Spot, message: impl Into<String>) {
        self.problems.push(Problem { file: self.file, spot, severity: Severity::Warning, message: message.into() });
    }

    pub(crate) fn at<T>(&self, spot: Spot, value: T) -> At<T> {
        At { value, file: self.file, spot }
    }

    /// The entries of a map whose names are the author's own.
    pub(crate) fn entries(&mut self, item: Item) -> Vec<Entry> {
        let Item { path, spot, value } = item;
        let Value::Map(entries) = value else {
            self.wrong::<()>(&Item { path, spot, value }, "an object");
            return Vec::new();
        };
        let mut read: Vec<Entry> = Vec::new();
        for (key, node) in entries {
            let path = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
            if let Some(first) = read.iter().position(|entry| entry.key.name == key.name) {
                self.warning(key.spot, format!("{path} is there more than once; the last one counts"));
                read.remove(first);
            }
            let item = Item { path, spot: node.spot, value: node.value };
            read.push(Entry { key, item });
        }
        read
    }

    /// The fields of a map; those that are not `known` are warned of.
    pub(crate) fn fields(&mut self, item: Item, known: &[&str]) -> Option<Fields> {
        if !item.is_map() {
            return self.wrong(&item, "an object");
        }
        let mut entries = self.entries(item);
        entries.retain(|entry| {
            let is_known = known.contains(&entry.key.name.as_str());
            if !is_known {
                let meant =
                    similar(&entry.key.name, known).map_or_else(String::new, |name| format!("; did you mean {name}?"));
                self.warning(entry.key.spot, format!("{} is not known and changes nothing{meant}", entry.item.path));
            }
            is_known
        });
        Some(Fields(entries))
    }

    pub(crate) fn list(&mut self, item: Item) -> Vec<Item> {
        let Item { path, spot, value } = item;
        let Value::List(nodes) = value else {
            self.wrong::<()>(&Item { path, spot, value }, "a list");
            return Vec::new();
        };
        let number = |(index, node): (usize, Node)| Item {
            path: format!("{path}[{index}]"),
            spot: node.spot,
            value: node.value,
        };
        nodes.into_iter().enumerate().map(number).collect()
    }

    /// A text; a number or a yes or no is taken as it is written.
    pub(crate) fn text(&mut self, item: Item) -> Option<String> {
        match item.value {
            Value::Text(text) | Value::Number(text) => Some(text),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => self.wrong(&item, "a string"),
        }
    }

    /// A text, or a list of texts, which are joined by commas.
    pub(crate) fn text_or_texts(&mut self, item: Item) -> Option<String> {
        if !item.is_list() {
            return self.text(item);
        }
        let parts: Vec<_> = self.list(item).into_iter().filter_map(|item| self.text(item)).collect();
        Some(parts.join(","))
    }

    /// A text with something in it, on one line.
    pub(crate) fn command(&mut self, item: Item) -> Option<String> {
        let (path, spot) = (item.path.clone(), item.spot);
        let text = self.text(item)?.trim().to_owned();
        if text.is_empty() || text.contains(['\n', '\0']) {
            self.error(spot, format!("{path} must be a command on one line"));
            return None;
        }
        Some(text)
    }

    pub(crate) fn number(&mut self, item: &Item) -> Option<u32> {
        match &item.value {
            Value::Number(text) | Value::Text(text) if text.parse::<u32>().is_ok() => text.parse().ok(),
            _ => self.wrong(item, "a whole number from 0"),
        }
    }

    pub(crate) fn flag(&mut self, item: &Item) -> Option<bool> {
        match &item.value {
            Value::Bool(flag) => Some(*flag),
            Value::Text(text) if text == "true" || text == "false" => Some(text == "true"),
            _ => self.wrong(item, "true or false"),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, item: Item, choices: &[(&str, T)]) -> Option<T> {
        let (path, spot) = (item.path.clone(), item.spot);
        let text = self.text(item)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.error(spot, format!("{path} must be {}", words.join(" or ")));
        }
        found.map(|(_, choice)| *choice)
    }

    fn wrong<T>(&mut self, item: &Item, wanted: &str) -> Option<T> {
        self.error(item.spot, format!("{} must be {wanted}, not {}", item.name(), describe(&item.value)));
        None
    }
}

/// The name among `known` that may be meant by `name`: at most every third letter is wrong.
pub(crate) fn similar<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&'a str| (strsim::damerau_levenshtein(name, known), *known);
    let (wrong, best) = known.iter().map(distance).min()?;
    (wrong * 3 <= name.chars().count()).then_some(best)
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::Text(_) => "a string",
        Value::List(_) => "a list",
        Value::Map(_) => "an object",
    }
}
