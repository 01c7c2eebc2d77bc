use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::node::{Key, Node, Value};
use crate::problem::Spot;

/// Deepest nesting of a document.
const DEPTH: usize = 64;

/// Where and why there is no document.
type Wrong = (Spot, String);

/// A list or map that is being read, and the name of the map's entry that comes next.
struct Open {
    node: Node,
    key: Option<Key>,
}

/// The first document in `text` (YAML 1.2, core schema). Aliases are refused: they would let a small file become a huge one.
pub(crate) fn parse(text: &str) -> Result<Node, Wrong> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let mark = error.marker();
            let spot = Spot { line: mark.line().max(1), column: mark.col() + 1 };
            (spot, format!("this is not YAML: {}", error.info()))
        })?;
        let spot = spot(&span);
        let whole = match event {
            Event::SequenceStart(..) => enter(&mut open, spot, Value::List(Vec::new()))?,
            Event::MappingStart(..) => enter(&mut open, spot, Value::Map(Vec::new()))?,
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(|open| open.node),
            Event::Scalar(text, style, ..) => Some(Node { spot, value: scalar(&text, style) }),
            Event::Alias(_) => return Err((spot, "aliases (*name) are not supported; write it out".to_owned())),
            Event::StreamEnd => break,
            _ => None,
        };
        let Some(node) = whole else { continue };
        let Some(outer) = open.last_mut() else { return Ok(node) };
        put(outer, node)?;
    }
    Ok(Node { spot: Spot::START, value: Value::Null })
}

fn enter(open: &mut Vec<Open>, spot: Spot, value: Value) -> Result<Option<Node>, Wrong> {
    if open.len() >= DEPTH {
        return Err((spot, format!("this is nested more than {DEPTH} deep")));
    }
    open.push(Open { node: Node { spot, value }, key: None });
    Ok(None)
}

/// Puts a whole value into what it stands in.
fn put(outer: &mut Open, node: Node) -> Result<(), Wrong> {
    match (&mut outer.node.value, outer.key.take()) {
        (Value::List(items), _) => items.push(node),
        (Value::Map(entries), Some(key)) => entries.push((key, node)),
        (Value::Map(_), None) => {
            let name = match node.value {
                Value::Text(text) | Value::Number(text) => text,
                Value::Bool(flag) => flag.to_string(),
                _ => return Err((node.spot, "a name must be a string".to_owned())),
            };
            outer.key = Some(Key { spot: node.spot, name });
        }
        // Only lists and maps are ever open.
        _ => {}
    }
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        number if number.parse::<f64>().is_ok() && number.contains(|c: char| c.is_ascii_digit()) => {
            Value::Number(number.to_owned())
        }
        text => Value::Text(text.to_owned()),
    }
}

fn spot(span: &Span) -> Spot {
    Spot { line: span.start.line().max(1), column: span.start.col() + 1 }
}
