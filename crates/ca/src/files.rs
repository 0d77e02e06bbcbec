//! Keeps the root's files: whole or not at all, and the key for nobody else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Owner only.
const PRIVATE: u32 = 0o600;
/// Anybody may read what anybody may know.
const PUBLIC: u32 = 0o644;
/// Owner only, for a directory.
const PRIVATE_DIR: u32 = 0o700;
/// What group and others may have on a private file: nothing.
const OTHERS_MASK: u32 = 0o077;

/// Why a file of the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner may read or write the key.
    #[error(
        "{path}: mode {mode:04o} lets others at the key: run `chmod 600 {path}`, and replace the key \
         if others had access"
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode, permission bits only.
        mode: u32,
    },
    /// It is a directory, a device or suchlike.
    #[error("{path}: not a regular file")]
    Kind {
        /// The file.
        path: PathBuf,
    },
}

/// Who may read a file.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Private,
    Public,
}

/// Makes the directory, for its owner only, unless it exists.
pub(crate) fn make_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(path).map_err(fault(path))
}

/// Reads a file; `None` when there is none. A private one must be so.
pub(crate) fn read(path: &Path, access: Access) -> Result<Option<String>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(fault(path)(source)),
    };
    let meta = file.metadata().map_err(fault(path))?;
    if !meta.is_file() {
        return Err(FileError::Kind { path: path.to_owned() });
    }
    let mode = meta.mode() & 0o7777;
    if matches!(access, Access::Private) && mode & OTHERS_MASK != 0 {
        return Err(FileError::Mode { path: path.to_owned(), mode });
    }
    io::read_to_string(file).map(Some).map_err(fault(path))
}

/// Writes a file so that a crash at any moment leaves the old one or the new one.
pub(crate) fn write(path: &Path, text: &str, access: Access) -> Result<(), FileError> {
    let mode = match access {
        Access::Private => PRIVATE,
        Access::Public => PUBLIC,
    };
    let draft = path.with_extension("tmp");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(&draft)(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)
        .map_err(fault(&draft))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault(&draft))?;
    fs::rename(&draft, path).map_err(fault(path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(fault(dir))
}

/// Opens a private file to append to.
pub(crate) fn append(path: &Path) -> Result<File, FileError> {
    OpenOptions::new().append(true).create(true).mode(PRIVATE).open(path).map_err(fault(path))
}

fn fault(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { path: path.to_owned(), source }
}
