//! Files, variables, objects, programs and sealed texts, good and bad.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

use super::*;
use crate::{ExecOrigin, FileOrigin, Identity, Reason, seal};

fn fetcher() -> Fetcher {
    Fetcher::new(|name| (name == "API_KEY").then(|| Value::new("from-env")))
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned())).collect()
}

fn shown(fetched: &Fetched) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| std::str::from_utf8(value.expose()).unwrap().to_owned();
    let leak = |value| -> &str { Box::leak(text(value).into_boxed_str()) };
    fetched.entries.iter().map(|(key, value)| (key.as_str(), leak(value))).collect()
}

fn each(pairs: &[(&str, &Path)]) -> Origin {
    let paths = pairs.iter().map(|(entry, path)| ((*entry).to_owned(), path.to_path_buf()));
    Origin::File { files: FileOrigin::Each(paths.collect()), readable_by_others: false }
}

#[track_caller]
fn refused(answer: Result<Fetched, FetchError>, reason: Reason) -> String {
    let error = answer.unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cret"), "{text}");
    text
}

#[tokio::test]
async fn variables_and_objects_give_what_is_named() {
    let env = Origin::Env(keys(&[("key", "API_KEY")]));
    assert_eq!(shown(&fetcher().fetch(&env).await.unwrap()), [("key", "from-env")]);
    let absent = Origin::Env(keys(&[("key", "OTHER")]));
    refused(fetcher().fetch(&absent).await, Reason::Missing);

    let entries =
        Entries::from([("ak".to_owned(), Value::new("1")), ("x".to_owned(), Value::new("2"))]);
    let object = |entries, keys| Origin::Object {
        what: "Secret a/b".to_owned(),
        entries,
        label: Some("blue".to_owned()),
        not_after: Some("2031-01-01T00:00:00Z".to_owned()),
        keys,
    };
    let some = object(Some(entries), keys(&[("accessKey", "ak")]));
    let read = fetcher().fetch(&some).await.unwrap();
    assert_eq!(shown(&read), [("accessKey", "1")]);
    assert_eq!((read.label, read.not_after.is_some()), (Label::Told("blue".to_owned()), true));
    let gone = refused(fetcher().fetch(&object(None, keys(&[]))).await, Reason::Missing);
    assert!(gone.contains("Secret a/b does not exist"), "{gone}");
}

#[tokio::test]
async fn a_file_is_read_without_its_last_newline_and_followed_when_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    write(&path, "one\n", 0o640);
    let origin = each(&[("key", &path)]);
    let first = fetcher().fetch(&origin).await.unwrap();
    assert_eq!(shown(&first), [("key", "one")]);
    assert!(matches!(first.label, Label::Changed(_)));
    let next = folder.path().join("next");
    write(&next, "two", 0o600);
    fs::rename(&next, &path).unwrap();
    assert_eq!(shown(&fetcher().fetch(&origin).await.unwrap()), [("key", "two")]);
}

#[tokio::test]
async fn a_file_that_others_may_read_or_change_is_refused_unless_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    for (mode, reads, with_word) in [
        (0o600, true, true),
        (0o440, true, true),
        (0o644, false, true),
        (0o604, false, true),
        (0o660, false, false),
        (0o606, false, false),
    ] {
        write(&path, "s3cret", mode);
        let origin = |readable_by_others| {
            let files = FileOrigin::Each([("key".to_owned(), path.clone())].into());
            Origin::File { files, readable_by_others }
        };
        let answer = fetcher().fetch(&origin(false)).await;
        assert_eq!(answer.is_ok(), reads, "{mode:o}");
        if !reads {
            assert!(refused(answer, Reason::Exposed).contains(&format!("{mode:o}")));
        }
        assert_eq!(
            fetcher().fetch(&origin(true)).await.is_ok(),
            with_word,
            "{mode:o} with the word"
        );
    }
}

#[tokio::test]
async fn a_folder_is_read_as_kubernetes_mounts_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("..2026_01_01");
    fs::create_dir(&data).unwrap();
    write(&data.join("user"), "me\n", 0o600);
    write(&data.join("password"), "s3cret", 0o600);
    symlink("..2026_01_01", folder.path().join("..data")).unwrap();
    for name in ["user", "password"] {
        symlink(format!("..data/{name}"), folder.path().join(name)).unwrap();
    }
    let files = FileOrigin::Folder(folder.path().to_owned());
    let origin = Origin::File { files, readable_by_others: false };
    let read = fetcher().fetch(&origin).await.unwrap();
    assert_eq!(shown(&read), [("password", "s3cret"), ("user", "me")]);
}

#[tokio::test]
async fn odd_files_are_refused_and_none_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    refused(fetcher().fetch(&each(&[("key", &pipe)])).await, Reason::Missing);
    refused(fetcher().fetch(&each(&[("key", folder.path())])).await, Reason::Missing);
    let absent = folder.path().join("absent");
    refused(fetcher().fetch(&each(&[("key", &absent)])).await, Reason::Missing);
    let large = folder.path().join("large");
    write(&large, &"s3cret".repeat(40_000), 0o600);
    refused(fetcher().fetch(&each(&[("key", &large)])).await, Reason::Malformed);
    let empty = folder.path().join("empty");
    write(&empty, "\n", 0o600);
    refused(fetcher().fetch(&each(&[("key", &empty)])).await, Reason::Malformed);
}

#[tokio::test]
async fn a_json_file_gives_its_members_and_its_faults_are_told_without_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.json");
    let origin = |pairs: &[(&str, &str)]| {
        let files = FileOrigin::Json { path: path.clone(), keys: keys(pairs) };
        Origin::File { files, readable_by_others: false }
    };
    write(&path, r#"{"user": "me", "port": 8443, "on": true}"#, 0o600);
    let all = fetcher().fetch(&origin(&[])).await.unwrap();
    assert_eq!(shown(&all), [("on", "true"), ("port", "8443"), ("user", "me")]);
    let one = fetcher().fetch(&origin(&[("name", "user")])).await.unwrap();
    assert_eq!(shown(&one), [("name", "me")]);
    refused(fetcher().fetch(&origin(&[("name", "nobody")])).await, Reason::Missing);
    for text in [r#"{"key": {"s3cret": 1}}"#, r#"{"key": "s3cret""#, r#"["s3cret"]"#, "s3cret"] {
        write(&path, text, 0o600);
        refused(fetcher().fetch(&origin(&[])).await, Reason::Malformed);
    }
}

fn program(folder: &Path, script: &str) -> ExecOrigin {
    let path = folder.join("plugin");
    write(&path, &format!("#!/bin/sh\n{script}\n"), 0o700);
    ExecOrigin {
        command: vec![path.to_string_lossy().into_owned(), "--for".to_owned(), "$HOME".to_owned()],
        environment: keys(&[("REGION", "eu")]),
        timeout: Duration::from_secs(5),
        keys: BTreeMap::new(),
    }
}

#[tokio::test]
async fn a_programs_object_is_read_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    for script in [
        r#"echo '{"keys": {"key": "s3cret"}, "version": 7, "expires": "2031-01-01T00:00:00Z"}'"#,
        r#"echo '{"key": "s3cret", "version": "7", "expiration": "2031-01-01T00:00:00Z"}'"#,
    ] {
        let read = fetcher().fetch(&Origin::Exec(program(folder.path(), script))).await.unwrap();
        assert_eq!(shown(&read), [("key", "s3cret")]);
        assert_eq!(read.label, Label::Told("7".to_owned()));
        assert_eq!(read.not_after, Some(time_of("2031-01-01T00:00:00Z").unwrap()));
    }
}

#[tokio::test]
async fn a_program_gets_its_arguments_and_its_environment_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"printf '{"args": "%s", "names": "%s", "cwd": "%s"}' "$*" \
        "$(env | sed 's/=.*//' | sort | tr '\n' ' ')" "$(pwd)""#;
    let read = fetcher().fetch(&Origin::Exec(program(folder.path(), script))).await.unwrap();
    let names = [("args", "--for $HOME"), ("cwd", "/"), ("names", "PATH PWD REGION ")];
    let without_shells_own: Vec<_> = shown(&read)
        .into_iter()
        .map(|(key, value)| (key, value.replace("OLDPWD ", "").replace("_ ", "")))
        .collect();
    let expected: Vec<_> = names.map(|(key, value)| (key, value.to_owned())).into();
    assert_eq!(without_shells_own, expected);
}

#[tokio::test]
async fn a_program_that_fails_hangs_floods_or_babbles_gives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |script: &str| {
        let mut origin = program(folder.path(), script);
        origin.timeout = Duration::from_millis(500);
        Origin::Exec(origin)
    };
    let failed = refused(fetcher().fetch(&ask("echo s3cret >&2; exit 3")).await, Reason::Failed);
    assert!(failed.contains("exit status: 3"), "{failed}");
    refused(fetcher().fetch(&ask("kill -9 $$")).await, Reason::Failed);
    refused(fetcher().fetch(&ask("while :; do :; done")).await, Reason::Unreachable);
    refused(fetcher().fetch(&ask("yes s3cret")).await, Reason::Malformed);
    refused(fetcher().fetch(&ask("echo s3cret")).await, Reason::Malformed);
    refused(fetcher().fetch(&ask("echo '{}'")).await, Reason::Malformed);
    let mut absent = program(folder.path(), "");
    absent.command[0] = "/nonexistent/plugin".to_owned();
    refused(fetcher().fetch(&Origin::Exec(absent)).await, Reason::Failed);
    let mut relative = program(folder.path(), "");
    relative.command[0] = "plugin".to_owned();
    refused(fetcher().fetch(&Origin::Exec(relative)).await, Reason::Malformed);
}

#[tokio::test]
async fn what_a_hanging_program_started_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let mut origin = program(folder.path(), &script);
    origin.timeout = Duration::from_millis(500);
    refused(fetcher().fetch(&Origin::Exec(origin)).await, Reason::Unreachable);
    let child = fs::read_to_string(&pid).unwrap();
    let status = PathBuf::from(format!("/proc/{}/stat", child.trim()));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    // Gone, or dead and not yet collected by whoever adopted it.
    let lives = || fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z "));
    while lives() {
        assert!(std::time::Instant::now() < deadline, "{} lives on", child.trim());
        task::yield_now().await;
    }
}

#[tokio::test]
async fn a_sealed_text_opens_with_the_namespaces_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let path = folder.path().join("egress.key");
    write(&path, &own.to_text().unwrap(), 0o600);
    let origin = |text: String| Origin::Sealed {
        texts: [("key".to_owned(), text)].into(),
        identities: path.clone(),
    };
    let sealed = seal(b"s3cret\n", &[own.recipient().unwrap()]).unwrap();
    let read = fetcher().fetch(&origin(sealed)).await.unwrap();
    assert_eq!(shown(&read), [("key", "s3cret")]);
    let elsewhere = seal(b"s3cret", &[other.recipient().unwrap()]).unwrap();
    let text = refused(fetcher().fetch(&origin(elsewhere)).await, Reason::Sealed);
    assert!(text.contains("another key"), "{text}");
    fs::remove_file(&path).unwrap();
    refused(fetcher().fetch(&origin(String::new())).await, Reason::Missing);
}
