//! The file of the audit log: opened for one writer, appended whole, put aside when full.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use sluis_audit::Tail;
use tracing::warn;

/// How far back the end of a file is read at a start: more than the lines between two checkpoints.
const READ_BACK_BYTES_MAX: u64 = 8 << 20;

/// The longest file that was put aside: a few times what is usual.
const ASIDE_BYTES_MAX: u64 = 512 << 20;

/// Names whom a record is about: for the owner alone.
const MODE: u32 = 0o600;

/// The file that is written now.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LogFile {
    /// Opens the file, or makes it. An error of kind `WouldBlock` means that another process still
    /// writes it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Tail>)> {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).read(true).create(true).mode(MODE).open(path)?;
        file.try_lock()?;
        let found = file.metadata()?;
        if found.is_file() {
            file.set_permissions(Permissions::from_mode(MODE))?;
        }
        let length = found.len();
        file.seek(SeekFrom::Start(length.saturating_sub(READ_BACK_BYTES_MAX)))?;
        let mut text = Vec::new();
        (&file).take(READ_BACK_BYTES_MAX).read_to_end(&mut text)?;
        Ok((Self { path: path.to_owned(), file, length }, Tail::of(&text)))
    }

    /// Appends as much as the file takes; says how much that was.
    pub(super) fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count;
                    self.length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Bytes in the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Makes what was written outlast the machine.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether the file is still the one of its name: somebody may have moved or removed it.
    pub(super) fn is_in_place(&self) -> bool {
        let (Ok(ours), Ok(named)) = (self.file.metadata(), fs::metadata(&self.path)) else {
            return false;
        };
        (ours.dev(), ours.ino()) == (named.dev(), named.ino())
    }

    /// Gives the file the name of its last record.
    pub(super) fn put_aside(&self, seq: u64) -> io::Result<()> {
        fs::rename(&self.path, aside(&self.path, seq))
    }
}

/// The end of the newest file that was put aside: where the chain is when the current file is gone.
pub(super) fn newest_aside(path: &Path) -> Option<Tail> {
    let (folder, stem) = (path.parent()?, path.file_stem()?.to_string_lossy().into_owned());
    let newest = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(&stem)?.strip_prefix('.')?;
            let number = rest.strip_suffix(".gz").unwrap_or(rest).strip_suffix(".jsonl")?;
            Some((number.parse::<u64>().ok()?, entry.path()))
        })
        .max()?
        .1;
    let file = File::open(&newest).ok()?;
    let mut text = Vec::new();
    if newest.extension().is_some_and(|extension| extension == "gz") {
        GzDecoder::new(file).take(ASIDE_BYTES_MAX).read_to_end(&mut text).ok()?;
    } else {
        { file }.take(ASIDE_BYTES_MAX).read_to_end(&mut text).ok()?;
    }
    Tail::of(&text)
}

/// `NAME.000000001234.jsonl`, so that names sort as records do.
fn aside(path: &Path, seq: u64) -> PathBuf {
    path.with_extension(format!("{seq:012}.jsonl"))
}

/// Replaces a file by its compressed form, whole or not at all.
fn compress(path: &Path) -> io::Result<()> {
    let name = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let part = name(".gz.new");
    let mut options = OpenOptions::new();
    let into = options.write(true).create(true).truncate(true).mode(MODE).open(&part)?;
    let mut encoder = GzEncoder::new(into, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&part, name(".gz"))?;
    fs::remove_file(path)
}

/// Compresses the files that were put aside.
pub(super) fn compress_aside(path: &Path) {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem()) else { return };
    let Ok(entries) = fs::read_dir(folder) else { return };
    let prefix = format!("{}.", stem.to_string_lossy());
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".jsonl"));
        let is_aside = number.is_some_and(|number| number.parse::<u64>().is_ok());
        if is_aside && let Err(error) = compress(&entry.path()) {
            warn!(file = name, %error, "audit log is not compressed");
        }
    }
}
