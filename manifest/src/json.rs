use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions};

use crate::node::{Key, Node, Value};
use crate::problem::Spot;

/// JSON (RFC 8259) and nothing beside it.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_extended_string_escapes: false,
    allow_non_finite_numbers: false,
};

/// The document in `text`, or where and why there is none. The parser limits how deep a document may be.
pub(crate) fn parse(text: &str) -> Result<Node, (Spot, String)> {
    let lines = Lines::of(text);
    let parsed = jsonc_parser::parse_to_ast(text, &CollectOptions::default(), &STRICT);
    match parsed {
        Ok(parsed) => {
            parsed.value.map(|value| node(value, &lines)).ok_or((Spot::START, "the file is empty".to_owned()))
        }
        Err(error) => Err((lines.spot(error.range().start), format!("this is not JSON: {}", error.kind()))),
    }
}

fn node(value: ast::Value<'_>, lines: &Lines<'_>) -> Node {
    let spot = lines.spot(value.range().start);
    let value = match value {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(literal) => Value::Bool(literal.value),
        ast::Value::NumberLit(literal) => Value::Number(literal.value.to_owned()),
        ast::Value::StringLit(literal) => Value::Text(literal.value.into_owned()),
        ast::Value::Array(array) => Value::List(array.elements.into_iter().map(|value| node(value, lines)).collect()),
        ast::Value::Object(object) => {
            let entry = |property: ast::ObjectProp<'_>| {
                let key = Key { spot: lines.spot(property.name.range().start), name: property.name.into_string() };
                (key, node(property.value, lines))
            };
            Value::Map(object.properties.into_iter().map(entry).collect())
        }
    };
    Node { spot, value }
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(index, _)| index + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn spot(&self, byte: usize) -> Spot {
        let line = self.starts.partition_point(|start| *start <= byte).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..byte).unwrap_or_default();
        Spot { line, column: before.chars().count() + 1 }
    }
}
