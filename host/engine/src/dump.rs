//! What compilations show of themselves to whoever asks by `HOST_DUMP`.

use std::path::PathBuf;

/// Where to, if anybody asks.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("HOST_DUMP").map(PathBuf::from)
}

/// `HOST_DUMP=dir` writes `dir/PLAN/NN-pass.txt`. A dump that cannot be written is reported once and skipped.
pub fn to_folder(plan: &str) -> Option<impl FnMut(&str, &str) + use<>> {
    let folder = folder()?.join(plan);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        tracing::warn!("HOST_DUMP: {}: {error}", folder.display());
        return None;
    }
    Some(move |stage: &str, text: &str| {
        if let Err(error) = std::fs::write(folder.join(format!("{stage}.txt")), text) {
            tracing::warn!("HOST_DUMP: {}: {error}", folder.display());
        }
    })
}
