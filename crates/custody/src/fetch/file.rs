//! Values in files: one for each entry, a folder of them, or a JSON object.
//!
//! In:    paths.
//! Out:   entries; the version is the time of the newest file.
//! Never: reads what others may read or change, unless told so; waits for a pipe.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::SystemTime,
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::malformed;
use crate::{Entries, FetchError, Fetched, FileOrigin, Label, Value, value::BYTES_MAX};

/// Files that are looked at in a folder. More is another kind of folder.
const FILES_MAX: usize = 64;

/// Reads the files once.
pub(super) fn read(files: &FileOrigin, readable_by_others: bool) -> Result<Fetched, FetchError> {
    let mut reader = Reader { readable_by_others, newest: SystemTime::UNIX_EPOCH };
    let (entries, keys) = match files {
        FileOrigin::Each(paths) => {
            let mut entries = Entries::new();
            for (entry, path) in paths {
                entries.insert(entry.clone(), reader.value(path)?);
            }
            (entries, BTreeMap::new())
        }
        FileOrigin::Folder(path) => (reader.folder(path)?, BTreeMap::new()),
        FileOrigin::Json { path, keys } => {
            let text = reader.bytes(path)?;
            let entries = serde_json::from_slice(&text).map_err(|error| malformed(&error))?;
            (entries, keys.clone())
        }
    };
    Fetched::new(entries, &keys, Label::Changed(reader.newest), None)
}

struct Reader {
    readable_by_others: bool,
    newest: SystemTime,
}

impl Reader {
    fn folder(&mut self, path: &Path) -> Result<Entries, FetchError> {
        let unreadable = |error| FetchError::Unreadable { path: path.to_owned(), error };
        let mut entries = Entries::new();
        for entry in fs::read_dir(path).map_err(unreadable)?.take(FILES_MAX) {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Kubernetes keeps the versions of a mounted Secret in hidden folders.
            if name.starts_with('.') || !entry.path().is_file() {
                continue;
            }
            entries.insert(name, self.value(&entry.path())?);
        }
        Ok(entries)
    }

    fn value(&mut self, path: &Path) -> Result<Value, FetchError> {
        let bytes = self.bytes(path)?;
        Ok(Value::new(bytes.to_vec()).without_newline())
    }

    fn bytes(&mut self, path: &Path) -> Result<Zeroizing<Vec<u8>>, FetchError> {
        let unreadable = |error| FetchError::Unreadable { path: path.to_owned(), error };
        let file = open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(unreadable(error));
        }
        let mode = about.mode() & 0o777;
        // The group may read: it is how services share a file. Nobody but the owner may change it.
        let exposed = if self.readable_by_others { mode & 0o022 } else { mode & 0o026 };
        if exposed != 0 {
            return Err(FetchError::Exposed { path: path.to_owned(), mode });
        }
        self.newest = self.newest.max(about.modified().unwrap_or(SystemTime::UNIX_EPOCH));
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX + 1));
        file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        Ok(bytes)
    }
}

/// Does not wait for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}
