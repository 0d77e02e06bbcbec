//! Finds the files to read under the given paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most files that are read; a whole disk given by mistake ends here.
const FILES_MAX: usize = 10_000;

/// Deepest directory that is looked into, which also ends loops of symlinks.
const DEPTH_MAX: usize = 16;

/// What tells a directory from another of the same name: device and inode.
pub(crate) type DirectoryId = (u64, u64);

/// What was found.
#[derive(Default)]
pub(crate) struct Scan {
    /// Files to read, in the order of their paths. Paths start as the user gave them.
    pub(crate) files: BTreeSet<PathBuf>,
    /// Directories in which a change matters: those of the files, also behind symlinks.
    pub(crate) directories: BTreeMap<PathBuf, DirectoryId>,
    /// Paths that could not be looked into. What was known below them is not gone for certain.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
}

/// Looks for files: each root that is a file, and `*.yaml`, `*.yml` and `*.json` in and below each
/// root that is a directory. Hidden names (which start with a dot) are passed over there.
pub(crate) fn scan(roots: &[PathBuf]) -> Scan {
    let mut scan = Scan::default();
    for root in roots {
        match root.metadata() {
            Ok(metadata) if metadata.is_dir() => scan.directory(root, 0),
            Ok(_) => scan.file(root.clone()),
            Err(error) => {
                scan.watch_parent(root);
                scan.unreadable.push((root.clone(), error));
            }
        }
    }
    scan
}

impl Scan {
    fn directory(&mut self, path: &Path, depth: usize) {
        self.watch(path);
        // A directory that comes back under its name is news for the one above it.
        self.watch_parent(path);
        let entries = path.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.unreadable.push((path.to_owned(), error)),
        };
        for entry in entries {
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            // Follows symlinks: the files of a mounted ConfigMap are some.
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => self.below(&path, depth),
                Ok(metadata) if metadata.is_file() && is_ours(&path) => self.file(path),
                Err(error) if is_ours(&path) => self.unreadable.push((path, error)),
                _ => {}
            }
        }
    }

    fn below(&mut self, path: &Path, depth: usize) {
        if depth < DEPTH_MAX {
            return self.directory(path, depth + 1);
        }
        let error = io::Error::other(format!("directories are nested deeper than {DEPTH_MAX}"));
        self.unreadable.push((path.to_owned(), error));
    }

    fn file(&mut self, path: PathBuf) {
        if self.files.len() == FILES_MAX && !self.files.contains(&path) {
            // One fault is enough, and the list of them must not grow with the disk.
            if !self
                .unreadable
                .iter()
                .any(|(_, error)| error.kind() == io::ErrorKind::QuotaExceeded)
            {
                let message = format!("there are more than {FILES_MAX} files");
                let error = io::Error::new(io::ErrorKind::QuotaExceeded, message);
                self.unreadable.push((path, error));
            }
            return;
        }
        self.watch_parent(&path);
        if path.is_symlink()
            && let Ok(target) = path.canonicalize()
        {
            self.watch_parent(&target);
        }
        self.files.insert(path);
    }

    fn watch_parent(&mut self, path: &Path) {
        match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => self.watch(Path::new(".")),
            Some(parent) => self.watch(parent),
            None => {}
        }
    }

    fn watch(&mut self, path: &Path) {
        if let Ok(metadata) = path.metadata() {
            self.directories.insert(path.to_owned(), (metadata.dev(), metadata.ino()));
        }
    }
}

fn is_ours(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}
