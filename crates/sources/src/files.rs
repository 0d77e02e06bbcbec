//! What is in force out of a set of files, and what changed since the last look.
//!
//! In:    the files under some paths, each time [`Files::refresh`] is called.
//! Out:   [`SourceEvent`]s: the difference to the last one, and all current faults.
//! Never: waits, watches, or forgets what was in force because a file cannot be read.
//!
//! A file counts as a whole: with an error in it, its last good version stays in force; where there
//! was none, nothing of it is. So a half-written file never mixes with its own past.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sluis_nouns::SourceRef;
use sluis_resources::{
    Fault, Key, Legacy, Modern, Options, Parsed, Resource, TEXT_BYTES_MAX, modernize, parse_with,
};

use crate::scan::{DirectoryId, scan};

/// What changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceEvent {
    /// New and changed resources, in the order of their keys.
    pub upserts: Vec<Resource>,
    /// Keys of resources that are gone.
    pub removals: Vec<Key>,
    /// All faults there are now, old ones included, in the order of the files.
    pub faults: Vec<Fault>,
    /// Files with an error and without a last good version: nothing of them is in force. A program
    /// that starts should not take what it has for complete.
    pub never_good: Vec<PathBuf>,
}

/// Everything under some paths, read once.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Each file with what it says, in the order of the paths.
    pub files: Vec<(PathBuf, Parsed)>,
    /// What objects of old kinds in any of them say today.
    pub modern: Modern,
    /// Faults of no file or of several: what cannot be read, what is there twice.
    pub faults: Vec<Fault>,
}

impl Loaded {
    /// Returns all faults, those of the files first.
    pub fn all_faults(&self) -> Vec<Fault> {
        let of_files = self.files.iter().flat_map(|(_, parsed)| &parsed.faults);
        of_files.chain(&self.modern.faults).chain(&self.faults).cloned().collect()
    }
}

/// Reads everything under some paths once.
///
/// A root that is a file is read whatever it is called; in and below a directory, `*.yaml`, `*.yml`
/// and `*.json` that are not hidden.
pub fn load(roots: &[PathBuf], options: &Options) -> Loaded {
    let options = &options.deferring_legacy();
    let scan = scan(roots);
    let mut loaded = Loaded::default();
    loaded.faults.extend(scan.unreadable.iter().map(|(path, error)| cannot_read(path, error)));
    for path in scan.files {
        match read(&path) {
            Ok(text) => {
                let parsed = parse_with(&path.to_string_lossy(), &text, options);
                loaded.files.push((path, parsed));
            }
            Err(error) => loaded.faults.push(cannot_read(&path, &error)),
        }
    }
    let legacy = loaded.files.iter().flat_map(|(_, parsed)| &parsed.legacy);
    let resources = loaded.files.iter().flat_map(|(_, parsed)| &parsed.resources);
    loaded.modern = modernize(legacy, resources.clone(), options);
    let resources = resources.chain(&loaded.modern.resources);
    let (_, twice) = first_of_each(resources);
    loaded.faults.extend(twice);
    loaded
}

/// What is in force out of the files under some paths.
#[derive(Debug)]
pub struct Files {
    roots: Vec<PathBuf>,
    options: Options,
    files: BTreeMap<PathBuf, FileState>,
    in_force: BTreeMap<Key, Resource>,
    /// What objects of old kinds said when nothing was wrong with them; `None` before that.
    modern: Option<Vec<Resource>>,
    directories: BTreeMap<PathBuf, DirectoryId>,
    /// The faults and files without a good version that were last told; `None` before the first
    /// look.
    told: Option<(Vec<Fault>, Vec<PathBuf>)>,
}

/// One file, as last seen.
#[derive(Debug, Default)]
struct FileState {
    /// Hash of the text that was last read, so that an untouched file is not parsed again.
    hash: Option<u64>,
    /// The resources of the last version without an error; `None` when there was none.
    good: Option<(Vec<Resource>, Vec<Legacy>)>,
    /// What is wrong with the current version.
    faults: Vec<Fault>,
}

impl Files {
    /// Prepares to read the files under some paths. Nothing is read yet.
    pub fn new(roots: Vec<PathBuf>, options: Options) -> Self {
        Self {
            roots,
            options: options.deferring_legacy(),
            files: BTreeMap::new(),
            in_force: BTreeMap::new(),
            modern: None,
            directories: BTreeMap::new(),
            told: None,
        }
    }

    /// Looks at all files and returns what changed; `None` when nothing did.
    ///
    /// The first look always returns an event, also when there is nothing. Blocks on the disk.
    pub fn refresh(&mut self) -> Option<SourceEvent> {
        let unreadable = self.read_all();
        let good = self.files.values().filter_map(|file| file.good.as_ref());
        let written = good.clone().flat_map(|(resources, _)| resources);
        let legacy = good.flat_map(|(_, legacy)| legacy);
        let Modern { resources, faults: of_legacy, .. } =
            modernize(legacy, written.clone(), &self.options);
        // As with files: what old objects said stays in force while something is wrong with them.
        if !of_legacy.iter().any(Fault::is_error) {
            self.modern = Some(resources);
        }
        let (in_force, twice) = first_of_each(written.chain(self.modern.iter().flatten()));
        let upserts: Vec<Resource> = in_force
            .iter()
            .filter(|(key, resource)| self.in_force.get(key) != Some(resource))
            .map(|(_, resource)| (*resource).clone())
            .collect();
        let removals: Vec<Key> =
            self.in_force.keys().filter(|key| !in_force.contains_key(*key)).cloned().collect();

        let of_files = self.files.values().flat_map(|file| file.faults.iter().cloned());
        let without_good = self.files.iter().filter(|(path, file)| {
            let name = path.to_string_lossy();
            let is_at_fault = |fault: &Fault| fault.is_error() && *fault.at.file == *name;
            file.good.is_none() || (self.modern.is_none() && of_legacy.iter().any(is_at_fault))
        });
        let never_good: Vec<PathBuf> = without_good.map(|(path, _)| path.clone()).collect();
        let faults: Vec<Fault> = of_files.chain(of_legacy).chain(unreadable).chain(twice).collect();

        let told = (faults.clone(), never_good.clone());
        if upserts.is_empty() && removals.is_empty() && self.told.as_ref() == Some(&told) {
            return None;
        }
        for key in &removals {
            self.in_force.remove(key);
        }
        self.in_force.extend(upserts.iter().map(|resource| (resource.key(), resource.clone())));
        self.told = Some(told);
        Some(SourceEvent { upserts, removals, faults, never_good })
    }

    /// Returns the directories in which a change may matter, as of the last look.
    pub(crate) fn directories(&self) -> &BTreeMap<PathBuf, DirectoryId> {
        &self.directories
    }

    /// Brings the state of all files up to date; returns the faults of what could not be read.
    fn read_all(&mut self) -> Vec<Fault> {
        let scan = scan(&self.roots);
        self.directories = scan.directories;
        // What is below a path that cannot be read may still be there.
        let unreadable = &scan.unreadable;
        let perhaps = |file: &Path| unreadable.iter().any(|(path, _)| file.starts_with(path));
        self.files.retain(|path, _| scan.files.contains(path) || perhaps(path));
        let mut faults: Vec<Fault> =
            unreadable.iter().map(|(path, error)| cannot_read(path, error)).collect();
        for path in scan.files {
            match read(&path) {
                Ok(text) => {
                    let name = path.to_string_lossy().into_owned();
                    self.files.entry(path).or_default().update(&name, &text, &self.options);
                }
                // Gone since the directory was read: the next look tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    faults.push(cannot_read(&path, &error));
                    self.files.entry(path).or_default();
                }
            }
        }
        faults
    }
}

impl FileState {
    fn update(&mut self, name: &str, text: &str, options: &Options) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = Some(hasher.finish());
        if self.hash == hash {
            return;
        }
        self.hash = hash;
        let parsed = parse_with(name, text, options);
        if !parsed.has_errors() {
            self.good = Some((parsed.resources, parsed.legacy));
        }
        self.faults = parsed.faults;
    }
}

/// Keeps the first object of each key; each further one is a fault that names both places.
fn first_of_each<'r>(
    resources: impl Iterator<Item = &'r Resource>,
) -> (BTreeMap<Key, &'r Resource>, Vec<Fault>) {
    let mut first: BTreeMap<Key, &Resource> = BTreeMap::new();
    let mut faults = Vec::new();
    for resource in resources {
        let key = resource.key();
        if let Some(other) = first.get(&key) {
            let message = format!("this object is there twice, first at {}", other.meta.at);
            let fault = Fault::error(resource.meta.at.clone(), message)
                .of(key.to_string())
                .help("the first one is in force; remove one of them");
            faults.push(fault);
        } else {
            first.insert(key, resource);
        }
    }
    (first, faults)
}

/// Reads a file as text, as far as it may go.
fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    // A pipe or a device would block, or never end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut text = String::new();
    // One byte more than is allowed, so that `parse` sees that it is too large.
    file.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

fn cannot_read(path: &Path, error: &io::Error) -> Fault {
    let at = SourceRef::new(path.to_string_lossy(), 0, 0);
    Fault::error(at, format!("this cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
