//! Checks values against JSON schemas, with messages that name the key path.

use serde_json::Value;

use crate::nearest::suggest;

/// A value that does not fit: its key path, and why.
pub type Misfit = (String, String);

/// Keys of an object schema.
pub fn keys(schema: &Value) -> Vec<&str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Keys of the table that a key of an object schema holds; none if it holds no table.
pub fn table_keys<'s>(schema: &'s Value, key: &str) -> Vec<&'s str> {
    let field = schema.get("properties").and_then(|properties| properties.get(key));
    field.map(|field| keys(deref(field, schema))).unwrap_or_default()
}

/// Every misfit of an object under `path` against its schema. Unknown keys name the nearest known ones.
pub fn object(value: &Value, schema: &Value, path: &str, misfits: &mut Vec<Misfit>) {
    table(value, schema, schema, path, misfits);
}

/// The same for a table inside; `root` holds the definitions that `$ref`s name.
fn table(value: &Value, schema: &Value, root: &Value, path: &str, misfits: &mut Vec<Misfit>) {
    let Some(map) = value.as_object() else {
        misfits.push((path.into(), format!("{value} is not a table")));
        return;
    };
    for (key, value) in map {
        let path = join(path, key);
        match schema.get("properties").and_then(|properties| properties.get(key)) {
            None => misfits.push((path, format!("is no known key{}", suggest(key, keys(schema))))),
            Some(field) if !keys(deref(field, root)).is_empty() => {
                table(value, deref(field, root), root, &path, misfits);
            }
            Some(field) => {
                if let Err(reason) = fits(value, field, root) {
                    misfits.push((path, reason));
                }
            }
        }
    }
}

pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

/// Whether a leaf fits its schema. `root` holds the definitions that `$ref`s name.
pub fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    let schema = deref(schema, root);
    if let Some(choices) = choices(schema) {
        let fits = choices.contains(&value.as_str().unwrap_or_default());
        let hint = suggest(value.as_str().unwrap_or_default(), choices.iter().copied());
        return if fits {
            Ok(())
        } else {
            Err(format!("{value} is not one of {}{hint}", choices.join(", ")))
        };
    }
    if let Some(kinds) = schema.get("anyOf").and_then(Value::as_array) {
        return any_of(value, kinds, root);
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("any");
    let (matches, name) = match kind {
        "integer" => (value.is_i64() || value.is_u64(), "a whole number"),
        "number" => (value.is_number(), "a number"),
        "string" => (value.is_string(), "a string"),
        "boolean" => (value.is_boolean(), "true or false"),
        "array" => (value.is_array(), "a list"),
        "object" => (value.is_object(), "a table"),
        _ => (true, ""),
    };
    if !matches {
        return Err(format!("{value} is not {name}"));
    }
    if let (Some(list), Some(items)) = (value.as_array(), schema.get("items")) {
        let misfit = list.iter().find_map(|item| fits(item, items, root).err());
        return misfit.map_or(Ok(()), |reason| Err(format!("{reason} (in {value})")));
    }
    let number = value.as_f64();
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    match (number, bound("minimum"), bound("maximum")) {
        (Some(number), Some(minimum), _) if number < minimum => {
            Err(format!("{value} is below {minimum}, the smallest allowed"))
        }
        (Some(number), _, Some(maximum)) if number > maximum => {
            Err(format!("{value} is above {maximum}, the largest allowed"))
        }
        _ => Ok(()),
    }
}

/// Whether a value is of one of several kinds: of the one whose type it has, if it has one, it must keep the bounds too.
fn any_of(value: &Value, kinds: &[Value], root: &Value) -> Result<(), String> {
    let reasons: Vec<String> = kinds.iter().filter_map(|kind| fits(value, kind, root).err()).collect();
    if reasons.len() < kinds.len() {
        return Ok(());
    }
    let start = format!("{value} is not ");
    let types: Option<Vec<&str>> = reasons.iter().map(|reason| reason.strip_prefix(&start)).collect();
    Err(match types {
        Some(types) => format!("{value} is neither {}", types.join(" nor ")),
        None => reasons.into_iter().find(|reason| !reason.starts_with(&start)).unwrap_or_default(),
    })
}

fn deref<'s>(schema: &'s Value, root: &'s Value) -> &'s Value {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// The strings an enum allows.
pub fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return Some(list.iter().filter_map(Value::as_str).collect());
    }
    let variants = schema.get("oneOf")?.as_array()?;
    let mut names = Vec::new();
    for variant in variants {
        match (variant.get("const").and_then(Value::as_str), choices(variant)) {
            (Some(name), _) => names.push(name),
            (None, Some(list)) => names.extend(list),
            _ => return None,
        }
    }
    Some(names)
}

/// An option as `plugins info` shows it.
pub struct Described {
    pub key: String,
    /// JSON types, or the names of a choice.
    pub kind: String,
    pub default: String,
    /// `1..`, `0..0.9`; empty where every value of the type will do.
    pub range: String,
    pub doc: String,
}

/// Every option of a schema.
pub fn describe(schema: &Value) -> Vec<Described> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let row = |(key, field): (&String, &Value)| {
        let target = deref(field, schema);
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_string);
        let kinds = target.get("anyOf").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let kind = match choices(target) {
            Some(names) => names.join(" | "),
            None if kinds.is_empty() => text(target, "type").unwrap_or_default(),
            None => kinds.iter().filter_map(|kind| text(kind, "type")).collect::<Vec<_>>().join(" | "),
        };
        Described {
            key: key.clone(),
            kind,
            default: field.get("default").map(Value::to_string).unwrap_or_default(),
            range: std::iter::once(target)
                .chain(kinds)
                .map(range)
                .find(|range| !range.is_empty())
                .unwrap_or_default(),
            doc: text(field, "description").or_else(|| text(target, "description")).unwrap_or_default(),
        }
    };
    properties.map(|map| map.iter().map(row).collect()).unwrap_or_default()
}

/// The bounds of a number. A whole number that may not be negative has the bound 0, which goes without saying.
fn range(schema: &Value) -> String {
    let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number()).map(Value::to_string);
    let is_unsigned =
        schema.get("format").and_then(Value::as_str).is_some_and(|name| name.starts_with("uint"));
    match (bound("minimum"), bound("maximum")) {
        (Some(least), None) if is_unsigned && least == "0" => String::new(),
        (None, None) => String::new(),
        (least, most) => format!("{}..{}", least.unwrap_or_default(), most.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn misfits_name_path_and_reason() {
        let schema = json!({"properties": {
            "heads": {"type": "integer", "minimum": 1}, "norm": {"$ref": "#/$defs/Norm"}, "lr": {"type": "number"}},
            "$defs": {"Norm": {"oneOf": [{"const": "pre"}, {"const": "post"}]}}});
        let mut misfits = Vec::new();
        object(&json!({"heads": 0, "nrom": 1, "norm": "mid", "lr": "x"}), &schema, "m", &mut misfits);
        let text: Vec<String> = misfits.iter().map(|(path, reason)| format!("{path}: {reason}")).collect();
        assert!(text.contains(&"m.heads: 0 is below 1, the smallest allowed".to_string()), "{text:?}");
        assert!(text.contains(&"m.nrom: is no known key; did you mean norm?".to_string()), "{text:?}");
        assert!(
            text.iter().any(|line| line.starts_with("m.norm: \"mid\" is not one of pre, post")),
            "{text:?}"
        );
        assert!(text.contains(&"m.lr: \"x\" is not a number".to_string()), "{text:?}");
    }

    #[test]
    fn a_value_may_be_of_several_kinds() {
        let schema = json!({"properties": {"lr": {"$ref": "#/$defs/PerLevel"}}, "$defs": {"PerLevel": {"anyOf": [
            {"type": "number", "minimum": 0}, {"type": "array", "items": {"type": "number"}}]}}});
        let reason = |value: Value| fits(&value, &schema["properties"]["lr"], &schema).err();
        assert_eq!((reason(json!(0.1)), reason(json!([0.1, 2])), reason(json!([]))), (None, None, None));
        assert_eq!(reason(json!("x")).as_deref(), Some("\"x\" is neither a number nor a list"));
        assert_eq!(reason(json!([0.1, "x"])).as_deref(), Some("\"x\" is not a number (in [0.1,\"x\"])"));
        assert_eq!(reason(json!(-1)).as_deref(), Some("-1 is below 0, the smallest allowed"));
        let [lr] = &describe(&schema)[..] else { panic!("one option") };
        assert_eq!((lr.kind.as_str(), lr.range.as_str()), ("number | array", "0.."));
    }
}
