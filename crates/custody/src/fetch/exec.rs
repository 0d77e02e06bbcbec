//! Values that a program prints.
//!
//! In:    an argument list, an environment, a time to answer.
//! Out:   the entries of the JSON object on its standard output.
//! Never: a shell, our own environment, a value in an argument; shows what it wrote to standard error,
//!        which may hold a value; leaves it or its children running.

use std::{process::Stdio, time::SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    time::timeout,
};
use zeroize::Zeroizing;

use super::{malformed, time_of};
use crate::{Entries, ExecOrigin, FetchError, Fetched, Label, value::BYTES_MAX};

/// Where its own programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of JSON: twice those of all values, for escapes.
const OUTPUT_MAX: usize = 2 * BYTES_MAX;
/// Bytes of standard error that are counted; more is thrown away unread.
const ERRORS_MAX: usize = 64 * 1024;

/// The members that are not entries.
const WORDS_OF_VERSION: &str = "version";
const WORDS_OF_END: [&str; 3] = ["expires", "expiration", "not_after"];

/// Runs the program once.
pub(super) async fn run(origin: &ExecOrigin) -> Result<Fetched, FetchError> {
    let Some((program, arguments)) = origin.command.split_first() else {
        return Err(FetchError::Malformed("the command is empty".to_owned()));
    };
    if !program.starts_with('/') {
        return Err(FetchError::Malformed(format!("{program:?} is no absolute path")));
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(&origin.environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let child =
        command.spawn().map_err(|error| FetchError::Start { program: program.clone(), error })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let answer = timeout(origin.timeout, listen(program, child)).await;
    drop(group);
    let text = answer.unwrap_or(Err(FetchError::Timeout(origin.timeout)))?;
    read(&text, origin)
}

/// The program and what it has started: all of it is ended when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // That it has ended already is no matter.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads what it prints until it ends.
async fn listen(program: &str, mut child: Child) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    let failed = |status: String, said: usize| FetchError::Failed {
        program: program.to_owned(),
        status,
        said,
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(bounded(stdout, OUTPUT_MAX), bounded(stderr, ERRORS_MAX)) };
    let (output, errors) = reading.await;
    let (output, errors) = (output?, errors.map_or(ERRORS_MAX, |errors| errors.len()));
    let status = child.wait().await.map_err(|error| failed(error.to_string(), errors))?;
    if !status.success() {
        return Err(failed(status.to_string(), errors));
    }
    Ok(output)
}

async fn bounded(
    pipe: Option<impl AsyncRead + Unpin>,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    // Room for all of it at once: a growing buffer would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(most + 1));
    let Some(pipe) = pipe else { return Ok(text) };
    let mut pipe = pipe.take(most as u64 + 1);
    let read = pipe.read_to_end(&mut text).await;
    read.map_err(|error| FetchError::Malformed(format!("its output cannot be read: {error}")))?;
    if text.len() > most { Err(FetchError::TooLarge) } else { Ok(text) }
}

/// The form in which entries are apart from what is about them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Apart {
    keys: Entries,
    version: Option<crate::Value>,
    #[serde(alias = "expiration", alias = "not_after")]
    expires: Option<String>,
}

fn read(text: &[u8], origin: &ExecOrigin) -> Result<Fetched, FetchError> {
    let word = |value: &crate::Value| String::from_utf8_lossy(value.expose()).into_owned();
    if let Ok(Apart { keys, version, expires }) = serde_json::from_slice(text) {
        let label = version.as_ref().map_or(Label::None, |version| Label::Told(word(version)));
        let end = expires.as_deref().map(time_of).transpose()?;
        return Fetched::new(keys, &origin.keys, label, end);
    }
    let mut entries: Entries = serde_json::from_slice(text).map_err(|error| malformed(&error))?;
    let label = match entries.remove(WORDS_OF_VERSION) {
        Some(version) => Label::Told(word(&version)),
        None => Label::None,
    };
    let mut end: Option<SystemTime> = None;
    for name in WORDS_OF_END {
        if let Some(value) = entries.remove(name) {
            end = Some(time_of(&word(&value))?);
        }
    }
    Fetched::new(entries, &origin.keys, label, end)
}
