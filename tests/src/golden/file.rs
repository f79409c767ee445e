//! Reading a case: `NAME.json` says what each tensor is, `NAME.safetensors` holds the numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Input,
    /// `ct_NAME`: upstream cotangent of the output NAME.
    Cotangent,
    Output,
    /// `grad_NAME`: gradient of sum(output * cotangent) with respect to the input NAME.
    Gradient,
}

/// A tensor of a case, row-major.
#[derive(Clone, Debug)]
pub struct Golden {
    pub role: Role,
    /// Whole numbers, which are compared exactly.
    pub integer: bool,
    pub dims: Vec<usize>,
    pub data: Vec<f64>,
}

/// A case as its two files say it.
#[derive(Clone, Debug)]
pub struct Case {
    pub scalars: Map<String, Value>,
    pub tolerance_f64: f64,
    pub tolerance_f32: f64,
    pub tensors: BTreeMap<String, Golden>,
}

/// Names of all cases of a folder, sorted, base cases before those of nested learning, which build on them. Half a case
/// is named too, and fails when it is read.
pub fn names(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if let (Some("json" | "safetensors"), Some(stem)) = (ending, path.file_stem()) {
            names.insert(stem.to_string_lossy().into_owned());
        }
    }
    if names.is_empty() {
        return Err("holds no case".into());
    }
    let (nested, base): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| name.starts_with("nested-"));
    Ok([base, nested].concat())
}

/// Reads a case; an error names the file and what is wrong with it.
pub fn read(folder: &Path, name: &str) -> Result<Case, String> {
    let load = |ending: &str| {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let said = |ending: &str, reason: String| format!("{name}.{ending}: {reason}");
    let (text, bytes) = (load("json")?, load("safetensors")?);
    let json: Value = serde_json::from_slice(&text).map_err(|error| said("json", error.to_string()))?;
    let numbers = SafeTensors::deserialize(&bytes).map_err(|error| said("safetensors", error.to_string()))?;

    let object = |key: &str| {
        let map = json.get(key).and_then(Value::as_object);
        map.ok_or_else(|| said("json", format!("has no object {key:?}")))
    };
    let tolerances = object("tolerance")?;
    let tolerance = |key: &str| {
        let number = tolerances.get(key).and_then(Value::as_f64);
        number.ok_or_else(|| said("json", format!("has no tolerance {key:?}")))
    };
    let mut tensors = BTreeMap::new();
    for (tensor, entry) in object("tensors")? {
        let golden = golden(entry, tensor, &numbers);
        tensors.insert(tensor.clone(), golden.map_err(|reason| said("json", format!("{tensor}: {reason}")))?);
    }
    if let Some(extra) = numbers.names().into_iter().find(|known| !tensors.contains_key(*known)) {
        return Err(said("safetensors", format!("holds {extra}, which the JSON file does not name")));
    }
    Ok(Case {
        scalars: object("scalars")?.clone(),
        tolerance_f64: tolerance("f64")?,
        tolerance_f32: tolerance("f32")?,
        tensors,
    })
}

fn golden(entry: &Value, name: &str, numbers: &SafeTensors<'_>) -> Result<Golden, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let role = match text("role") {
        "input" => Role::Input,
        "cotangent" => Role::Cotangent,
        "output" => Role::Output,
        "gradient" => Role::Gradient,
        other => return Err(format!("has the unknown role {other:?}")),
    };
    let shape = entry.get("shape").and_then(Value::as_array).ok_or("has no shape")?;
    let dims: Option<Vec<usize>> =
        shape.iter().map(|dim| dim.as_u64().and_then(|dim| usize::try_from(dim).ok())).collect();
    let dims = dims.ok_or("has a malformed shape")?;
    let view = numbers.tensor(name).map_err(|error| error.to_string())?;
    if view.shape() != dims {
        return Err(format!("is {dims:?} here and {:?} in the safetensors file", view.shape()));
    }
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.copy_from_slice(bytes);
        word
    };
    let (integer, number): (bool, fn([u8; 8]) -> f64) = match (text("dtype"), view.dtype()) {
        ("f64", Dtype::F64) => (false, f64::from_le_bytes),
        ("i64", Dtype::I64) => (true, |word| i64::from_le_bytes(word) as f64),
        (said, held) => return Err(format!("is {said:?} here and {held:?} in the safetensors file")),
    };
    let data = view.data().chunks_exact(8).map(|bytes| number(word(bytes))).collect();
    Ok(Golden { role, integer, dims, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("the system's folder for temporary files is writable");
        let reason = |json: &str| {
            std::fs::write(folder.path().join("x.json"), json).expect("the folder is writable");
            read(folder.path(), "x").expect_err("it is malformed")
        };
        assert!(reason("{}").contains("x.safetensors"));
        let empty = safetensors::serialize(Vec::<(&str, safetensors::tensor::TensorView)>::new(), None);
        std::fs::write(folder.path().join("x.safetensors"), empty.expect("nothing is easy to write"))
            .expect("the folder is writable");
        assert!(reason("{").starts_with("x.json: "));
        assert_eq!(reason("{}"), "x.json: has no object \"tolerance\"");
        let missing = r#"{"tolerance": {"f64": 1, "f32": 1}, "scalars": {},
            "tensors": {"y": {"role": "output", "dtype": "f64", "shape": []}}}"#;
        assert!(reason(missing).starts_with("x.json: y: "));
        assert_eq!(names(folder.path()), Ok(vec!["x".into()]));
        std::fs::write(folder.path().join("nested-a.json"), "{}").expect("the folder is writable");
        assert_eq!(names(folder.path()), Ok(vec!["x".into(), "nested-a".into()]));
    }
}
