//! Files of tensors (safetensors), written and read a tensor at a time: a checkpoint is as large as the States of a run, and
//! a machine that trains has no room for those once more.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, View, serialize_to_file};

use crate::Error;

/// Bytes of the length of the header, with which a file begins.
const LENGTH: usize = 8;
const FLOAT: usize = size_of::<f32>();

/// Where the values of a tensor come from, as little-endian bytes.
pub type Source<'l> = &'l dyn Fn() -> Result<Vec<u8>, Error>;

/// A tensor that is asked for when it is written.
struct Later<'l> {
    dims: Vec<usize>,
    values: Source<'l>,
    /// The first thing that went wrong; [`View`] has no room for it.
    failed: &'l RefCell<Option<Error>>,
}

impl View for Later<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match (self.values)() {
            Ok(bytes) => Cow::Owned(bytes),
            Err(error) => {
                self.failed.borrow_mut().get_or_insert(error);
                Cow::default()
            }
        }
    }

    fn data_len(&self) -> usize {
        self.dims.iter().product::<usize>() * FLOAT
    }
}

/// Writes f32 tensors by (name, dims, where their values come from) and waits until they are on the disk. On an error, which
/// names what was to be saved and gives the hint, the file is worth nothing.
pub fn write<'l>(
    path: &Path,
    (what, hint): (&Path, &'static str),
    tensors: impl IntoIterator<Item = (String, Vec<usize>, Source<'l>)>,
) -> Result<(), Error> {
    let failed = RefCell::new(None);
    let later =
        tensors.into_iter().map(|(name, dims, values)| (name, Later { dims, values, failed: &failed }));
    let written = serialize_to_file(later, None, path);
    if let Some(error) = failed.take() {
        return Err(error);
    }
    written.map_err(|error| match error {
        SafeTensorError::IoError(error) => Error::file(what, hint)(error),
        other => Error::said(format!("{}: {other}; {hint}", what.display())),
    })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::file(what, hint))
}

/// An open file of tensors.
pub struct Tensors {
    file: File,
    header: Metadata,
    /// Where the values begin.
    start: u64,
}

impl Tensors {
    /// Reads the header; says what is wrong with it.
    pub fn open(path: &Path) -> Result<Tensors, String> {
        let said = |error: std::io::Error| error.to_string();
        let mut file = File::open(path).map_err(said)?;
        let bytes = file.metadata().map_err(said)?.len();
        let mut length = [0; LENGTH];
        file.read_exact(&mut length).map_err(said)?;
        let length = u64::from_le_bytes(length);
        let start = length.saturating_add(LENGTH as u64);
        if start > bytes {
            return Err(format!("its header should have {length} bytes, and the file has {bytes}"));
        }
        let mut header = Vec::new();
        file.by_ref().take(length).read_to_end(&mut header).map_err(said)?;
        let header: Metadata = serde_json::from_slice(&header).map_err(|error| error.to_string())?;
        let want = start + header.data_len() as u64;
        if want != bytes {
            return Err(format!("its tensors end at byte {want}, and the file at {bytes}"));
        }
        Ok(Tensors { file, header, start })
    }

    /// Whether it has this tensor of f32; says what it has instead.
    pub fn check(&self, name: &str, dims: &[usize]) -> Result<(), String> {
        let info = self.header.info(name).ok_or_else(|| format!("{name} is missing"))?;
        if info.shape != dims || info.dtype != Dtype::F32 {
            return Err(format!("{name} is {:?}{:?}, the model has f32{dims:?}", info.dtype, info.shape));
        }
        Ok(())
    }

    /// The values of a tensor that was checked.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, String> {
        let info = self.header.info(name).ok_or_else(|| format!("{name} is missing"))?;
        let (from, to) = info.data_offsets;
        let said = |error: std::io::Error| format!("{name} cannot be read ({error})");
        let mut reader = BufReader::with_capacity(1 << 20, &self.file);
        reader.seek(SeekFrom::Start(self.start + from as u64)).map_err(said)?;
        let mut values = Vec::with_capacity((to - from) / FLOAT);
        let mut value = [0; FLOAT];
        for _ in 0..(to - from) / FLOAT {
            reader.read_exact(&mut value).map_err(said)?;
            values.push(f32::from_le_bytes(value));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (a, b) = (|| Ok(bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), || Ok(bytes(&[-0.5])));
        let tensors: [(String, Vec<usize>, Source<'_>); 2] =
            [("a".into(), vec![2, 3], &a), ("b".into(), vec![], &b)];
        write(&path, (&path, ""), tensors).expect("it fits");
        let file = Tensors::open(&path).expect("a whole file");
        assert_eq!(file.read("a"), Ok(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        assert_eq!(file.read("b"), Ok(vec![-0.5]));
        assert_eq!((file.check("a", &[2, 3]), file.check("b", &[])), (Ok(()), Ok(())));
        assert!(file.check("a", &[6]).unwrap_err().contains("[2, 3]"));
        assert_eq!(file.check("c", &[]), Err("c is missing".to_string()));
        let whole = std::fs::read(&path).expect("readable");
        for cut in [0, 4, 40, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).expect("writable");
            assert!(Tensors::open(&path).is_err(), "{cut} bytes");
        }
        std::fs::write(&path, [0xff; 64]).expect("writable");
        assert!(Tensors::open(&path).is_err());
    }

    #[test]
    fn a_tensor_that_cannot_be_had_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let lost = || Err(Error::said("the device was lost".to_string()));
        let tensors: [(String, Vec<usize>, Source<'_>); 1] = [("a".into(), vec![2], &lost)];
        let path = folder.path().join("x");
        let error = write(&path, (&path, ""), tensors).expect_err("no values");
        assert!(error.to_string().contains("the device was lost"));
    }
}
