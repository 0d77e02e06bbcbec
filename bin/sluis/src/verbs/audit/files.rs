//! The files of audit logs: the one that is written, and the full ones beside it.
//!
//! In:    `NAME.jsonl`, `NAME.000000001234.jsonl`, the same with `.gz`.
//! Out:   lines, oldest first.
//! Never: skips a file that cannot be read.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use sluis_audit::Line;
use sluis_nouns::ObjectName;

use super::Which;
use crate::state::StateDir;

/// The longest line that is read: a checkpoint with a chain of certificates is some 4 KiB.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One log.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// NAMESPACE/NAME, or the file's name.
    pub(super) name: String,
    /// The workload, when the log is one of the state directory.
    pub(super) workload: Option<ObjectName>,
    /// The file that is written.
    pub(super) path: PathBuf,
}

/// The logs that are meant.
pub(super) fn find(state: Result<StateDir>, which: &Which) -> Result<Vec<Log>> {
    if !which.files.is_empty() {
        let of = |path: &PathBuf| Log {
            name: path.display().to_string(),
            workload: None,
            path: path.clone(),
        };
        return Ok(which.files.iter().map(of).collect());
    }
    let folder = state?.audit();
    let mut logs = Vec::new();
    for namespace in folders(&folder)? {
        for entry in fs::read_dir(&namespace).with_context(|| namespace.display().to_string())? {
            let path = entry?.path();
            let (Some(name), Some(space)) = (name_of(&path), namespace.file_name()) else {
                continue;
            };
            let workload = ObjectName::new(&*space.to_string_lossy(), name.as_str());
            logs.push(Log { name: workload.to_string(), workload: Some(workload), path });
        }
    }
    logs.sort_by(|a, b| a.name.cmp(&b.name));
    if !which.workloads.is_empty() {
        for wanted in &which.workloads {
            if !logs.iter().any(|log| log.name == *wanted) {
                bail!("{wanted} has no audit log in {}", folder.display());
            }
        }
        logs.retain(|log| which.workloads.contains(&log.name));
    }
    if logs.is_empty() {
        bail!("there is no audit log in {}", folder.display());
    }
    Ok(logs)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            let mut paths: Vec<_> = paths.collect::<io::Result<_>>()?;
            paths.retain(|path| path.is_dir());
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).context(folder.display().to_string()),
    }
}

/// The name of the log of which this is the file that is written. Names of workloads may hold dots,
/// so that only a number of twelve digits means a full file.
fn name_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
    number_of(name).is_none().then(|| name.to_owned())
}

/// The number at the end of a full file's name.
fn number_of(name: &str) -> Option<u64> {
    let (_, number) = name.rsplit_once('.')?;
    if number.len() < 12 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse().ok()
}

impl Log {
    /// All its files, oldest first.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut full = Vec::new();
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let own = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = own.strip_suffix(".jsonl").unwrap_or(own);
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let plain = name.strip_suffix(".gz").unwrap_or(name);
            let Some(base) = plain.strip_suffix(".jsonl") else { continue };
            if let Some(number) = number_of(base)
                && base.rsplit_once('.').is_some_and(|(of, _)| of == stem)
            {
                full.push((number, name.ends_with(".gz"), path.clone()));
            }
        }
        full.sort();
        // Where both forms are there the plain one is whole: the other was being made.
        full.dedup_by_key(|(number, ..)| *number);
        let mut files: Vec<PathBuf> = full.into_iter().map(|(.., path)| path).collect();
        if self.path.exists() || files.is_empty() {
            files.push(self.path.clone());
        }
        Ok(files)
    }

    /// Gives each line that can be read.
    pub(super) fn each_line(&self, mut take: impl FnMut(Line)) -> Result<()> {
        for path in self.files()? {
            each(&path, |text, _| {
                if let Ok(line) = serde_json::from_slice(text) {
                    take(line);
                }
            })
            .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// Gives each line of the file that is written.
    pub(super) fn each_current_line(&self, mut take: impl FnMut(Line)) -> io::Result<()> {
        each(&self.path, |text, has_end| {
            if has_end && let Ok(line) = serde_json::from_slice(text) {
                take(line);
            }
        })
    }

    /// The number of the last line.
    pub(super) fn last_seq(&self) -> Result<u64> {
        let mut last = 0;
        self.each_line(|line| last = last.max(line.seq))?;
        Ok(last)
    }
}

/// Gives each line of a file without its line end, and whether it has one.
pub(super) fn each(path: &Path, mut take: impl FnMut(&[u8], bool)) -> io::Result<()> {
    let file = File::open(path)?;
    let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn BufRead> = if is_compressed {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(BufReader::new(file))
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let has_end = line.last() == Some(&b'\n');
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        take(text, has_end);
    }
}
