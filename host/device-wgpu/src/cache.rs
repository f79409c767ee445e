//! Compiled kernels kept between runs: what a Vulkan driver makes of them, in a file for each adapter.
//!
//! wgpu refuses what another version or another driver made. A checksum of our own refuses what is not whole, and the
//! folder is the user's alone. Whatever goes wrong costs time and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use wgpu::{Adapter, Device, Features, PipelineCache, PipelineCacheDescriptor, util};

use crate::gpu::lock;

/// Begins every file; the checksum of what follows it comes next.
const MAGIC: &[u8; 8] = b"hostwgpu";
const HEADER: usize = 16;

/// The pipelines of one device and the file they are kept in.
pub struct Cache {
    path: PathBuf,
    pub pipelines: PipelineCache,
    /// Checksum of what the file holds, as far as we know.
    kept: Mutex<Option<u64>>,
}

impl Cache {
    /// What `folder` keeps for an adapter; None where it cannot keep anything. The device has the feature.
    pub fn open(folder: &Path, adapter: &Adapter, device: &Device) -> Option<Cache> {
        if !device.features().contains(Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(util::pipeline_cache_key(&adapter.get_info())?);
        let content = match std::fs::read(&path) {
            Ok(file) => match checked(&file) {
                Some(content) => Some(content.to_vec()),
                None => {
                    tracing::warn!("{}: damaged; kernels are compiled again", path.display());
                    None
                }
            },
            // A first run.
            Err(_) => None,
        };
        let descriptor = PipelineCacheDescriptor { label: None, data: content.as_deref(), fallback: true };
        // SAFETY: the bytes are those that `keep` had from wgpu for the same key: the file is whole, and lies in a folder
        // that only the user writes to. wgpu checks the driver's version.
        let pipelines = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Cache { path, pipelines, kept: Mutex::new(content.as_deref().map(checksum)) })
    }

    /// Writes what has been compiled, if it is more than the file holds.
    pub fn keep(&self) {
        let Some(content) = self.pipelines.get_data() else { return };
        let sum = checksum(&content);
        if lock(&self.kept).replace(sum) == Some(sum) {
            return;
        }
        if let Err(error) = write(&self.path, &content) {
            tracing::info!("{}: {error}; kernels are not kept", self.path.display());
        }
    }
}

/// Beside its place, then renamed into it, so that another run never reads half of it.
pub fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    #[cfg(unix)]
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let file = [&MAGIC[..], &checksum(content).to_le_bytes(), content].concat();
    let written = std::fs::write(&draft, file).and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        // There may be nothing to remove.
        let _ = std::fs::remove_file(&draft);
    }
    written
}

/// What a file holds, if it is whole.
fn checked(file: &[u8]) -> Option<&[u8]> {
    let (header, content) = file.split_at_checked(HEADER)?;
    (header.starts_with(MAGIC) && header[MAGIC.len()..] == checksum(content).to_le_bytes()).then_some(content)
}

/// FNV-1a: against accidents, not against people.
fn checksum(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_only_if_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("host-wgpu-cache-{}", std::process::id()));
        let path = folder.join("adapter");
        write(&path, b"compiled").unwrap();
        write(&path, b"compiled again").unwrap();
        let file = std::fs::read(&path).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "drafts are renamed");
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(checked(&file), Some(&b"compiled again"[..]));
        let mut other = file.clone();
        other[20] ^= 1;
        for bad in [&other[..], &file[..file.len() - 1], &file[..5], b"", b"something else altogether"] {
            assert_eq!(checked(bad), None, "{bad:?}");
        }
        assert!(write(&Path::new("/proc/nowhere").join("adapter"), b"x").is_err());
    }
}
